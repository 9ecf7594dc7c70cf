"""Our networks as a program runs them, against the same mathematics written as the official code writes it.

CPU time of one thread, both forms in one process, in turns; the least of a few runs of each. The official form of a
row is named in the row: explicit softmax attention, unfolded norms, unmerged maps, in plain memory format. Nothing is
asserted but equal outputs.
"""

import copy
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrovision.models.astroformer import VARIANTS, Astroformer
from geovision.models.multiscale import ChannelNorm, MultiScaleHead
from geovision.models.satmae_pp import GroupMaskedAutoencoder
from geovision.pretraining import pyramid
from medvision.models.duoformer import DuoFormer
from medvision.models.hbformer import HBFormer
from medvision.models.medvitv2 import MedViTV2
from medvision.models.paratranscnn import ParaTransCNN, Tail
from shared_backbones import optimize_for_inference
from shared_backbones.blocks.convolution import DynamicDilatedConvolution
from shared_backbones.blocks.neighborhood_attention import NeighborhoodAttention


def explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ value


@contextmanager
def patched(monkeypatch: pytest.MonkeyPatch, *changes: tuple[Any, str, Any]) -> Any:
    with monkeypatch.context() as context:
        for owner, name, value in changes:
            context.setattr(owner, name, value)
        yield


def compare(row: str, official: Callable[[], Tensor], ours: Callable[[], Tensor], runs: int = 3) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            reference, found = official(), ours()
            torch.testing.assert_close(found, reference, rtol=0, atol=1e-3 * float(reference.abs().max()))
            best = {"official": float("inf"), "ours": float("inf")}
            for _ in range(runs):
                for name, call in (("official", official), ("ours", ours)):
                    start = time.process_time()
                    call()
                    best[name] = min(best[name], time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    print(f"\n{row}: {best['official'] / best['ours']:.2f}x ({best['official']:.3f} s -> {best['ours']:.3f} s)")


def prepared(model: Any) -> Any:
    return optimize_for_inference(model).to(memory_format=torch.channels_last)


def naive_neighborhood(module: NeighborhoodAttention, x: Tensor) -> Tensor:
    """Every query's window gathered, as a neighbourhood kernel without tiles does."""
    _, height, width, _ = x.shape
    kernel, heads = module.kernel_size, module.num_heads

    def windows(length: int) -> tuple[Tensor, Tensor]:
        query = torch.arange(length)
        start = (query - kernel // 2).clamp(0, max(length - kernel, 0))
        key = start[:, None] + torch.arange(min(kernel, length))
        return key, key - query[:, None] + kernel - 1

    (rows, row_offset), (columns, column_offset) = windows(height), windows(width)
    query, key, value = module.qkv(x).unflatten(-1, (3, heads, -1)).unbind(3)
    bias = module.bias_table[:, row_offset[:, None, :, None], column_offset[None, :, None, :]].flatten(3)
    keys = key[:, rows][:, :, :, columns].permute(0, 5, 1, 3, 2, 4, 6).flatten(4, 5)  # (B, heads, H, W, K * K, d)
    values = value[:, rows][:, :, :, columns].permute(0, 5, 1, 3, 2, 4, 6).flatten(4, 5)
    scores = (query.permute(0, 3, 1, 2, 4)[..., None, :] * keys).sum(-1) * query.shape[-1] ** -0.5 + bias
    found = (scores.softmax(-1)[..., None] * values).sum(-2)
    return module.projection(found.permute(0, 2, 3, 1, 4).flatten(3))


@pytest.mark.parametrize(("dim", "side"), [(64, 56), (128, 28), (192, 14)])
def test_neighbourhood_attention(dim: int, side: int) -> None:
    module = NeighborhoodAttention(dim, dim // 32).eval()
    x = torch.randn(1, side, side, dim)
    folded = optimize_for_inference(module)
    compare(
        f"neighbourhood attention {side}x{side}x{dim}, windows gathered",
        lambda: naive_neighborhood(module, x),
        lambda: folded(x),
    )


def test_medvitv2(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = MedViTV2().eval(), torch.randn(1, 3, 224, 224)
    ours, last = prepared(model), x.to(memory_format=torch.channels_last)

    def official() -> Tensor:
        with patched(
            monkeypatch,
            (NeighborhoodAttention, "forward", naive_neighborhood),
            (F, "scaled_dot_product_attention", explicit_attention),
        ):
            return model(x)

    compare("MedViTV2 tiny 224, windows gathered, explicit attention, unfolded", official, lambda: ours(last))


def test_duoformer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DuoFormer(depth=8, embed_dim=192, num_heads=6, num_classes=3, backbone="r18").eval()
    x = torch.randn(1, 3, 224, 224)
    ours, last = prepared(model), x.to(memory_format=torch.channels_last)

    def whole(self: DuoFormer, block: nn.Module, tokens: Tensor, queries: int | None) -> Tensor:
        return block(tokens)

    def official() -> Tensor:
        with patched(
            monkeypatch,
            (DuoFormer, "_run", whole),
            (F, "scaled_dot_product_attention", explicit_attention),
        ):
            return model(x)

    compare(
        "DuoFormer r18 depth 8 width 192, explicit attention, last block whole, unfolded", official, lambda: ours(last)
    )


def test_paratranscnn(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = ParaTransCNN(dim=64).eval(), torch.randn(1, 3, 224, 224)
    ours, last = prepared(model), x.to(memory_format=torch.channels_last)

    def official() -> Tensor:
        with patched(
            monkeypatch,
            (Tail, "forward", lambda self, x: self.classifier(self.upsample(x))),
            (F, "scaled_dot_product_attention", explicit_attention),
        ):
            return model(x)

    compare("ParaTransCNN dim 64 224, explicit attention, tail in two maps, unfolded", official, lambda: ours(last))


def test_hbformer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = HBFormer(num_classes=9, img_size=224).eval(), torch.randn(1, 3, 224, 224)
    ours, last = prepared(model), x.to(memory_format=torch.channels_last)

    def every_expert(self: DynamicDilatedConvolution, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        branch, expert = self.branch_gate(mean), self.expert_gate(mean)
        features = []
        for rate, dilation in enumerate(self.dilations):
            depthwise: Any = sum(
                expert[:, e, None, None, None]
                * F.conv2d(x, kernel, padding=dilation, dilation=dilation, groups=x.shape[1])
                for e, kernel in enumerate(self.depthwise[rate])
            )
            mixed: Any = sum(
                expert[:, e, None, None, None] * F.conv2d(depthwise, kernel)
                for e, kernel in enumerate(self.pointwise[rate])
            )
            features.append(F.silu(self.norms[rate](mixed)) * branch[:, rate, None, None, None])
        joined = torch.cat(features, 1)
        joined = joined * self.channel_attention(joined.mean((2, 3)))[:, :, None, None]
        return self.fuse_norm(self.fuse(joined))

    def official() -> Tensor:
        with patched(
            monkeypatch,
            (DynamicDilatedConvolution, "forward", every_expert),
            (F, "scaled_dot_product_attention", explicit_attention),
        ):
            return model(x)

    compare("HBFormer 224, every expert by itself, explicit attention, unfolded", official, lambda: ours(last))


def test_astroformer(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Astroformer = VARIANTS["astroformer_0"](num_classes=10, img_size=256).eval()
    x = torch.randn(2, 3, 256, 256)
    ours, last = prepared(model), x.to(memory_format=torch.channels_last)

    def official() -> Tensor:
        with patched(monkeypatch, (F, "scaled_dot_product_attention", explicit_attention)):
            return model(x)

    compare("Astroformer 0 256, explicit attention, unfolded", official, lambda: ours(last))


def by_formula(self: ChannelNorm, x: Tensor) -> Tensor:
    """The channel-first norm of SatMAE++, as its formula says."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + self.eps)
    return self.weight[:, None, None] * x + self.bias[:, None, None]


def test_satmae_pp_head(monkeypatch: pytest.MonkeyPatch) -> None:
    head, x = MultiScaleHead(10, 4, 2).eval(), torch.randn(1, 10, 96, 96)
    ours = copy.deepcopy(head)

    def official() -> Tensor:
        with patched(monkeypatch, (ChannelNorm, "forward", by_formula)):
            return head(x, 2)[-1]

    compare("SatMAE++ multi-scale head 96 -> 384, norms by formula", official, lambda: ours(x, 2)[-1])


def test_satmae_pp_pretraining_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enlarging, forward, loss and gradients of a batch of the group ViT-B."""
    torch.manual_seed(0)
    model = GroupMaskedAutoencoder(embed_dim=768, depth=12, num_heads=12)
    stored, noise = torch.rand(2, 10, 96, 96), torch.rand(2, 432)

    def step(targets: list[Tensor]) -> Tensor:
        model.zero_grad(set_to_none=True)
        with torch.inference_mode(False), torch.enable_grad():
            targets = [target.clone() for target in targets]  # those made in inference mode take no part in a graph
            found = model(targets[-1], *reversed(targets[:-1]), noise=noise)
            found.loss.backward()
        return found.loss.detach()[None]

    def enlarged(images: Tensor) -> Tensor:
        return F.interpolate(images, (384, 384), mode="bicubic", align_corners=False)

    def official() -> Tensor:
        with patched(
            monkeypatch,
            (ChannelNorm, "forward", by_formula),
            (F, "scaled_dot_product_attention", explicit_attention),
        ):
            largest = torch.cat([enlarged(image[None]) for image in stored])
            half = F.interpolate(largest, scale_factor=0.5, mode="bilinear")
            return step([largest, half, F.interpolate(half, scale_factor=0.5, mode="bilinear")])

    compare("SatMAE++ group ViT-B pretraining step, by formula", official, lambda: step(pyramid(enlarged(stored), 2)))
