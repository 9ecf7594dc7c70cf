"""What every network keeps, whatever its domain: one small case of each architecture."""

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared_backbones import architectures, optimize_for_inference, weights

ORT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """A small network of an architecture.

    Attributes:
        home: module and class.
        arguments: of the constructor.
        shape: of an input, `(C, H, W)` or `(C, X, Y, Z)`.
        classes: its outputs' classes; 0 for an autoencoder.
        other: a size it accepts beside its own; None where positions fix the size, which another one must say.
        mapped: classes are pixels'.
        scale: of a restorer, whose classes are the bands: pixels out per pixel in along each axis.
        unread: parameters that the released network has, but that nothing depends on.
        of_torchgeo: whether its parts are torchgeo's, and its arguments decide whether it classifies or maps.
    """

    home: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    classes: int
    other: tuple[int, ...] | None = None
    mapped: bool = False
    scale: int = 0
    unread: tuple[str, ...] = field(default=())
    of_torchgeo: bool = False

    def build(self, **changes: Any) -> Any:
        torch.manual_seed(0)
        module, name = self.home.split(":")
        return getattr(importlib.import_module(module), name)(**{**self.arguments, **changes})

    def input(self, batch: int = 2, seed: int = 0, size: tuple[int, ...] | None = None, channels: int = 0) -> Tensor:
        shape = (batch, channels or self.shape[0], *(size or self.shape[1:]))
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


GROUPS = [[0, 2], [1]]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}
MAE = {**VIT, "depth": 1, "decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
SATMAE = "geovision.models.satmae_pp"
CASES = {
    "hbformer": Case(
        "medvision.models.hbformer:HBFormer",
        {"feature_size": 8, "depths": [2, 1, 1, 1], "head_dim": 8, "num_classes": 4, "img_size": 64},
        (3, 64, 64),
        4,
        other=(40, 71),
        mapped=True,
    ),
    "paratranscnn": Case(
        "medvision.models.paratranscnn:ParaTransCNN",
        {"num_classes": 4, "heads": 2, "dim": 32, "depth": [1, 1, 1], "resnet_depth": 18, "resnet_width": 8},
        (3, 48, 64),
        4,
        other=(33, 50),
        mapped=True,
    ),
    "duoformer": Case(
        "medvision.models.duoformer:DuoFormer",
        {"depth": 2, "embed_dim": 16, "num_heads": 2, "num_classes": 3, "backbone": "r18", "img_size": 64}
        | {"num_layers": 3, "freeze_backbone": False},
        (3, 64, 64),
        3,
    ),
    "medvitv2": Case(
        "medvision.models.medvitv2:MedViTV2",
        {"stem_chs": [8, 8, 16], "depths": [2, 2, 3, 1], "dims": [32, 64, 64, 64], "num_classes": 5}
        | {"mix_block_ratio": 0.5, "tokens": "spatial"},
        (3, 64, 48),
        5,
        other=(28, 28),
    ),
    "medvitv2 as released": Case(
        "medvision.models.medvitv2:MedViTV2",
        {"stem_chs": [8, 8, 16], "depths": [1, 2, 3, 1], "dims": [32, 64, 64, 64], "num_classes": 5}
        | {"mix_block_ratio": 0.5},
        (3, 112, 112),
        5,
        other=(97, 97),
    ),
    "astroformer": Case(
        "astrovision.models.astroformer:Astroformer",
        {"img_size": 64, "num_classes": 10, "embed_dim": [8, 16, 32, 64], "depths": [1, 2, 1, 2], "stem_width": 8}
        | {"head_hidden_size": 32},
        (3, 64, 64),
        10,
    ),
    "satmae_pp_vit_rgb": Case(f"{SATMAE}_vit:VisionTransformer", {**VIT, "num_classes": 6}, (3, 32, 32), 6),
    "satmae_pp_vit_group": Case(
        f"{SATMAE}_vit:GroupVisionTransformer",
        {**VIT, "num_classes": 6, "in_chans": 3, "channel_groups": GROUPS, "channel_embed": 4},
        (3, 32, 32),
        6,
    ),
    "satmae_pp_mae_rgb": Case(f"{SATMAE}_mae:MaskedAutoencoder", MAE, (3, 32, 32), 0),
    "satmae_pp_mae_group": Case(
        f"{SATMAE}_mae:GroupMaskedAutoencoder",
        MAE | {"in_chans": 3, "channel_groups": GROUPS, "channel_embed": 4, "decoder_channel_embed": 4, "scales": 1},
        (3, 32, 32),
        0,
    ),
    "satmae_pp_fpn": Case(
        "geovision.models.mapper:SatMAEMapper",
        {**VIT, "num_classes": 2, "in_chans": 3, "channel_groups": GROUPS, "channel_embed": 4, "width": 64},
        (3, 32, 32),
        2,
        mapped=True,
    ),
    "satmae_pp_vitcomer": Case(
        "geovision.models.mapper:SatMAEComer",
        {**VIT, "depth": 4, "num_classes": 2, "in_chans": 3, "channel_groups": GROUPS, "channel_embed": 4, "width": 64}
        | {"adapter": {"inplanes": 8, "heads": 2, "fusion_ratio": 2.0}},
        (3, 32, 32),
        2,
        mapped=True,
    ),
    "torchgeo": Case(
        "geovision.models.torchgeo_model:TorchGeo",
        {"weights": "ResNet18_Weights.SENTINEL2_ALL_MOCO", "num_classes": 2, "in_chans": 13, "img_size": 64},
        (13, 64, 64),
        2,
        other=(40, 50),
        of_torchgeo=True,
    ),
    "smp_unet": Case(
        "shared_backbones.networks.unet:Unet",
        {"num_classes": 2, "encoder": "resnet18", "decoder_channels": [16, 8, 8, 8, 8]},
        (3, 64, 64),
        2,
        other=(40, 50),
        mapped=True,
    ),
    "spectral_mapper": Case(
        "geovision.models.spectral_mapper:SpectralMapper",
        {"num_classes": 3, "in_chans": 3, "width": 8},
        (3, 16, 24),
        3,
        other=(20, 12),
        mapped=True,
    ),
    "skip_unet": Case(
        "shared_backbones.networks.skip_unet:SkipUnet",
        {"num_classes": 2, "in_chans": 3, "widths": [4, 8, 8]},
        (3, 16, 8, 12),
        2,
        other=(9, 10, 11),
        mapped=True,
    ),
    "monai": Case(
        "medvision.models.monai_network:MonaiNetwork",
        {"network": "DynUNet", "num_classes": 2, "in_chans": 3, "filters": [4, 8, 8], "kernel_size": [3, 3, 3]}
        | {"strides": [1, 2, 2], "upsample_kernel_size": [2, 2]},
        (3, 16, 8, 12),
        2,
        other=(8, 16, 20),
        mapped=True,
    ),
}
NETWORKS = "shared_backbones.networks"
SMALL_VIT = {"num_classes": 5, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}
CASES |= {
    "cct": Case(
        f"{NETWORKS}.cct:CCT", SMALL_VIT | {"img_size": 32, "kernel_size": 3, "stride": 1, "padding": 1}, (3, 32, 32), 5
    ),
    "crossformer": Case(
        f"{NETWORKS}.crossformer:CrossFormer",
        {"num_classes": 5, "embed_dim": 64, "depths": [2, 1, 4, 2], "num_heads": [2, 4, 8, 16], "use_acl": True}
        | {"group_size": [4, 4, 4, 4], "crs_interval": [2, 2, 1, 1]},
        (3, 64, 64),
        5,
        other=(40, 70),
    ),
    "cvt": Case(
        f"{NETWORKS}.cvt:CvT",
        {"num_classes": 5, "embed_dim": [16, 24, 32], "depth": [1, 1, 2], "num_heads": [1, 3, 4]},
        (3, 64, 32),
        5,
        other=(48, 70),
        # of the last queries, the class token's alone counts, which skips the convolution
        unread=tuple(
            f"stages.2.blocks.1.attention.convolutions.query.{name}"
            for name in ("convolution.weight", "norm.weight", "norm.bias")
        ),
    ),
    "hornet": Case(
        f"{NETWORKS}.hornet:HorNet",
        {"num_classes": 5, "base_dim": 16, "depths": [1, 1, 2, 1], "layer_scale": 0.5},
        (3, 64, 32),
        5,
        other=(40, 70),
    ),
    "smt": Case(
        f"{NETWORKS}.smt:SMT",
        {"num_classes": 5, "embed_dims": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "sa_num_heads": [-1, -1, 4, 4]},
        (3, 64, 32),
        5,
        other=(40, 70),
    ),
    "spectformer": Case(
        f"{NETWORKS}.spectformer:SpectFormer",
        {"num_classes": 5, "img_size": 64, "embed_dims": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
        | {"num_heads": [1, 1, 3, 4], "mlp_ratios": [2, 2, 2, 2], "stem_hidden_dim": 8},
        (3, 64, 64),
        5,
        other=(64, 96),
    ),
    "spectformer_plain": Case(
        f"{NETWORKS}.spectformer_plain:PlainSpectFormer",
        {"num_classes": 5, "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 5, "mlp_ratio": 2.0},
        (3, 32, 32),
        5,
    ),
    "msrnet": Case(
        f"{NETWORKS}.msrnet:MSRNet",
        {"num_classes": 2, "encoder": "resnet10t", "width": 8, "branch_groups": 2, "fusion_groups": 3},
        (3, 64, 64),
        2,
        other=(70, 90),
        mapped=True,
    ),
    "pem": Case(
        f"{NETWORKS}.pem:PEM",
        {"num_classes": 2, "base": 8, "layers": [1, 1, 1], "conv_dim": 16, "mask_dim": 16, "hidden_dim": 16}
        | {"num_queries": 6, "nheads": 2, "dim_feedforward": 24, "dec_layers": 3},
        (3, 64, 64),
        2,
        other=(70, 90),
        mapped=True,
    ),
    "vit_comer": Case(
        f"{NETWORKS}.vit_comer:ViTCoMer",
        {"num_classes": 2, "embed_dim": 24, "depth": 4, "num_heads": 3, "mlp_ratio": 2.0}
        | {"interaction_indexes": [[0, 0], [1, 1], [2, 2], [3, 3]], "adapter": {"inplanes": 8, "fusion_ratio": 2.0}},
        (3, 64, 64),
        2,
        other=(96, 64),
        mapped=True,
    ),
    "sret": Case(
        f"{NETWORKS}.sret:SReT",
        {"num_classes": 5, "image_size": 64, "base_dims": [8, 8, 8], "depth": [2, 2, 1], "recursive_num": [1, 1, 1]}
        | {"heads": [1, 2, 4], "groups1": [4, 2, 1], "groups2": [2, 1, 1], "mlp_ratio": 2.0},
        (3, 64, 64),
        5,
    ),
    "fcaformer": Case(
        f"{NETWORKS}.fcaformer:FcaFormer",
        {"num_classes": 5, "img_size": 64, "embed_dims": [8, 16, 24, 32], "depths": [1, 1, 3, 2]}
        | {"num_heads": [0, 0, 2, 4]},
        (3, 64, 64),
        5,
    ),
    "vit_resnas": Case(
        f"{NETWORKS}.vit_resnas:ViTResNAS",
        {"num_classes": 5, "img_size": 112, "distill_token": True}
        | {
            "network_def": [
                [5, 16, 8],
                [1, [16, 2, 4], [16, 24], 1],
                [3, 16, 24],
                [1, [24, 2, 8], [24, 32], 1],
                [2, 24, 5],
            ]
        },
        (3, 112, 112),
        5,
    ),
    "dhvt": Case(f"{NETWORKS}.dhvt:DHVT", SMALL_VIT | {"patch_size": 4}, (3, 32, 32), 5, other=(40, 28)),
    "resformer": Case(
        f"{NETWORKS}.resformer:ResFormer",
        SMALL_VIT | {"patch_size": 8},
        (3, 32, 32),
        5,
        other=(40, 30),
        unread=("blocks.2.attention.local.weight", "blocks.2.attention.local.bias"),  # the class token has no place
    ),
}
SMALL_WINDOWS = {"img_size": 16, "window_size": 4, "embed_dim": 24}
CASES |= {
    "hat": Case(
        f"{NETWORKS}.hat:HAT",
        SMALL_WINDOWS
        | {"depths": [2], "num_heads": [2], "squeeze_factor": 6, "conv_scale": 0.5, "mlp_ratio": 1.0, "upscale": 2},
        (3, 16, 12),
        3,
        other=(9, 14),
        scale=2,
    ),
    "drct": Case(
        f"{NETWORKS}.drct:DRCT",
        SMALL_WINDOWS | {"depths": [2], "num_heads": [6], "gc": 8, "mlp_ratio": 1.0, "upscale": 3},
        (3, 16, 12),
        3,
        other=(9, 14),
        scale=3,
    ),
    "drsformer": Case(
        f"{NETWORKS}.drsformer:DRSformer",
        {"dim": 6, "num_blocks": [1, 1, 1, 1], "ffn_expansion_factor": 1.0},
        (3, 32, 24),
        3,
        other=(35, 18),
        scale=1,
    ),
}
CASES["timm_classifier"] = Case(
    "shared_backbones.networks.timm_classifier:TimmClassifier",
    {"name": "resnet10t", "num_classes": 3},
    (3, 64, 64),
    3,
    other=(48, 80),
)
CLASSIFIERS = [
    name
    for name, case in CASES.items()
    if case.classes and not (case.mapped or case.scale or case.of_torchgeo) and name != "timm_classifier"
]


class Plain(nn.Module):
    """A network with one tensor in and one out: an autoencoder keeps tokens by a given noise, and shows its patches."""

    def __init__(self, network: nn.Module, case: Case) -> None:
        super().__init__()
        self.network: Any = network
        self.autoencoder = not case.classes
        count = 16 * (len(GROUPS) if "Group" in case.home else 1)
        self.noise: Tensor
        self.register_buffer("noise", torch.rand(1, count, generator=torch.Generator().manual_seed(1)), False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.autoencoder:
            return self.network(x)
        return self.network(x, noise=self.noise.expand(len(x), -1)).prediction


def randomise(network: nn.Module) -> None:
    """Statistics, gates and biases that all matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif ".squeeze." in name:
                tensor.mul_(0.1).add_(0.1)  # a gate whose few units are all below zero is shut for good
            elif tensor.ndim > 1 and name.endswith("weight"):
                # wide enough for the input to reach the output
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif tensor.is_floating_point() and not name.endswith("grid"):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.05)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def network(case: Case) -> Any:
    built = case.build()
    randomise(built)
    return built.eval()


class TestEveryNetwork:
    """The contract."""

    def test_gives_finite_outputs_of_the_promised_shape(self, case: Case, network: Any) -> None:
        x = case.input()
        with torch.inference_mode():
            output = Plain(network, case)(x)
        if case.mapped:
            assert output.shape == (2, case.classes, *case.shape[1:])
        elif case.scale:
            assert output.shape == (2, case.classes, *(case.scale * side for side in case.shape[1:]))
        elif case.classes:
            assert output.shape == (2, case.classes)
        else:
            assert output.numel() == x.numel()  # every pixel of every band
        assert output.isfinite().all() and output.std() > 0
        # else what follows would agree whatever came in
        assert (output[0] - output[1]).abs().max() > 0.02 * output.abs().max()

    def test_has_a_role_and_is_tried_without_memory(self, case: Case) -> None:
        (name,) = [name for name, point in architectures.installed().items() if point.value == case.home]
        role: architectures.Role = "segmenter" if case.mapped else "classifier" if case.classes else "autoencoder"
        role = "restorer" if case.scale else role
        assert getattr(architectures.find(name), "role", None) == (None if case.of_torchgeo else role)
        network: Any = architectures.check(name, case.arguments, role=role, shape=case.shape, classes=case.classes)
        assert network.arguments["in_chans"] == case.shape[0]

    def test_is_the_same_for_a_sample_alone_and_in_any_memory_layout(self, case: Case, network: Any) -> None:
        x, plain = case.input(3), Plain(network, case)
        with torch.inference_mode():
            output = plain(x)
            assert torch.equal(plain(x), output)  # nothing is drawn in eval mode
            alone = torch.cat([plain(sample[None]) for sample in x])
            strided = x.transpose(2, 3).contiguous().transpose(2, 3)
            last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
            for found in (alone, plain(x.to(memory_format=last)), plain(strided)):
                torch.testing.assert_close(found, output, rtol=0, atol=1e-4 * float(output.abs().max()))

    def test_takes_other_channels_and_classes(self, case: Case) -> None:
        grouped = {"channel_groups": [[0], [1, 2, 3]]} if "channel_groups" in case.arguments else {}
        changes = {"in_chans": 4, **grouped, **({"num_classes": 7} if case.classes and not case.scale else {})}
        built = case.build(**changes).eval()
        with torch.inference_mode():
            output = Plain(built, case)(case.input(channels=4))
        assert not case.classes or output.shape[1] == (4 if case.scale else 7)
        with pytest.raises((ValueError, RuntimeError), match=r"expected .*4|4 channels"):
            built(case.input(channels=3))

    def test_takes_another_size_or_says_which_it_needs(self, case: Case, network: Any) -> None:
        if case.other:
            with torch.inference_mode():
                output = network(case.input(size=case.other))
            scale = case.scale or (1 if case.mapped else 0)
            assert output.shape[2:] == (tuple(scale * side for side in case.other) if scale else ())
        else:
            with pytest.raises(ValueError, match=str(case.shape[1])):
                network(case.input(size=(case.shape[1] + 32, case.shape[2])))

    def test_training_draws_from_torch_and_reaches_every_parameter(self, case: Case) -> None:
        built = case.build().train()
        randomise(built)
        x = case.input(4)

        def step() -> Tensor:
            torch.manual_seed(5)
            if case.classes:
                return built(x).square().mean()
            larger = nn.functional.interpolate(x, scale_factor=2)
            return built(x, larger).loss

        first = step()
        first.backward()
        unreached = [
            name
            for name, p in built.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
        ]
        assert unreached == list(case.unread)
        assert all(p.grad.isfinite().all() for p in built.parameters() if p.grad is not None)
        assert torch.equal(step(), first)

    def test_checkpointing_changes_no_gradient_and_no_statistics(self, case: Case) -> None:
        if not hasattr(case.build(), "set_grad_checkpointing"):
            pytest.skip("the baseline is not ours to change")
        grads, states = [], []
        for enable in (False, True):
            built = case.build().train()
            built.set_grad_checkpointing(enable)
            torch.manual_seed(3)
            Plain(built, case)(case.input()).square().mean().backward()
            grads.append({name: p.grad for name, p in built.named_parameters() if p.grad is not None})
            states.append(built.state_dict())
        assert grads[0].keys() == grads[1].keys()
        for name, grad in grads[0].items():
            torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6, msg=name)
        for name, value in states[0].items():  # a batch that is computed twice is counted once
            torch.testing.assert_close(states[1][name], value, msg=name)

    def test_a_folder_brings_it_back(self, case: Case, network: Any, tmp_path: Path) -> None:
        weights.save(tmp_path / "model", network, {"name": "small"})
        loaded = weights.load(tmp_path / "model")
        assert type(loaded.module) is type(network)
        assert json.loads(json.dumps(network.arguments)) == loaded.module.arguments
        x = case.input()
        with torch.inference_mode():
            assert torch.equal(Plain(loaded.module.eval(), case)(x), Plain(network, case)(x))

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
    def test_the_inference_form_is_equivalent(
        self, case: Case, network: Any, dtype: torch.dtype, tolerance: float
    ) -> None:
        network, x = network.to(dtype), case.input().to(dtype)
        optimized = optimize_for_inference(network)
        twice = optimize_for_inference(optimized)
        with torch.inference_mode():
            expected = Plain(network, case)(x)
            for form in (optimized, twice, optimized):  # the last one meets its kept tables again
                found = Plain(form, case)(x)
                assert found.dtype == dtype
                torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))
            if hasattr(network, "forward_head"):
                features = network.forward_features(x)
                for found, wanted in (
                    (optimized.forward_features(x), features),
                    (
                        optimized.forward_head(optimized.forward_features(x), pre_logits=True),
                        network.forward_head(features, pre_logits=True),
                    ),
                ):
                    atol = 10 * tolerance * float(wanted.abs().max())
                    torch.testing.assert_close(found, wanted, rtol=0, atol=atol)
        assert not any(p.requires_grad for p in optimized.parameters()) and network.training is False

    @pytest.mark.usefixtures("all_packed")
    def test_packed_weights_give_the_same(self, case: Case, network: Any) -> None:
        optimized, x = optimize_for_inference(network.eval()), case.input()
        with torch.inference_mode():
            expected = Plain(network, case)(x)
            for form in (optimized, optimize_for_inference(optimized), optimized):
                atol = 1e-4 * float(expected.abs().max())
                torch.testing.assert_close(Plain(form, case)(x), expected, rtol=0, atol=atol)

    def test_runs_under_bfloat16_autocast(self, case: Case) -> None:
        network, x = case.build().eval(), case.input()
        with torch.inference_mode():
            expected = Plain(network, case)(x).flatten()
            for form in (network, optimize_for_inference(network)):
                with torch.autocast("cpu", torch.bfloat16):
                    output = Plain(form, case)(x).float().flatten()
                assert (
                    nn.functional.cosine_similarity(output, expected, dim=0) > 0.9
                )  # these are random weights, which amplify rounding

    @pytest.mark.parametrize("form", ["plain", "optimized"])
    def test_exports(self, case: Case, network: Any, form: str) -> None:
        model = Plain(network if form == "plain" else optimize_for_inference(network), case).eval()
        x = case.input()
        with torch.no_grad():
            program = torch.export.export(model, (x,))
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
            # and what the network kept while it was traced does not disturb it afterwards
            torch.testing.assert_close(model(x), program.module()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_runtime_gives_the_same(name: str, tmp_path: Path) -> None:
    import onnxruntime

    case = CASES[name]
    built = case.build()
    randomise(built)
    model, x = Plain(optimize_for_inference(built), case).eval(), case.input(1)
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, input_names=["image"], verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    outputs: Any = session.run(None, {"image": x.numpy()})
    with torch.inference_mode():
        expected = model(x).numpy()
    np.testing.assert_allclose(
        outputs[0], expected, rtol=0, atol=ORT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    )


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_gives_the_same() -> None:
    case = CASES["satmae_pp_vit_rgb"]
    network = optimize_for_inference(case.build(depth=1))
    x = case.input()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(network)(x), network(x), rtol=1e-4, atol=1e-5)


SHARED = ["cct_7_3x1_32", "crossformer_pp_small", "cvt_13", "dhvt_tiny_cifar_patch4", "hornet_tiny_gf", "smt_t"]
SHARED += ["resformer_tiny_patch16", "fcaformer_l1", "sret_t", "vit_resnas_s"]
PUBLISHED = {
    "medvision": ["duoformer_r18", "duoformer_r50", *(f"medvitv2_{s}" for s in ("tiny", "small", "base", "large"))],
    "geovision": [f"satmae_pp_{kind}vit_{size}" for kind in ("", "group_") for size in ("base", "large")],
    "astrovision": [f"astroformer_{number}" for number in range(6)] + SHARED,
}


class TestTimm:
    """Our variants among timm's."""

    @pytest.mark.parametrize("domain", list(PUBLISHED))
    @pytest.mark.parametrize("order", ["ours first", "timm first"])
    def test_importing_the_models_registers_them_whichever_comes_first(self, domain: str, order: str) -> None:
        imports = [f"import {domain}.models", "import timm"]
        code = "; ".join(imports if order == "ours first" else imports[::-1])
        code += f"; print(all(timm.is_model(name) for name in {PUBLISHED[domain]!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "True", done.stderr

    @pytest.mark.parametrize("domain", list(PUBLISHED))
    def test_importing_the_models_imports_no_timm(self, domain: str) -> None:
        code = f"import {domain}.models, sys; print({{'timm', 'torch', 'torchvision'}} & set(sys.modules))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"

    @pytest.mark.parametrize("name", [name for names in PUBLISHED.values() for name in names])
    def test_builds_every_variant(self, name: str) -> None:
        timm = self.timm()
        with torch.device("meta"):
            network = timm.create_model(name, num_classes=3)
        assert network.num_classes == 3
        assert network.get_classifier().out_features == 3
        network.reset_classifier(0)
        assert isinstance(network.get_classifier(), nn.Identity) and network.arguments["num_classes"] == 0
        with torch.device("meta"), pytest.raises(RuntimeError, match=rf"No pretrained weights exist for {name}"):
            timm.create_model(name, pretrained=True)

    @pytest.mark.parametrize("name", ["medvitv2_tiny", "astroformer_0", "satmae_pp_vit_base"])
    def test_takes_timm_s_arguments(self, name: str) -> None:
        size = {"medvitv2_tiny": {}, "astroformer_0": {"img_size": 64}, "satmae_pp_vit_base": {"img_size": 32}}[name]
        network = self.timm().create_model(name, num_classes=3, in_chans=1, **size).eval()
        side = size.get("img_size", 112)
        with torch.inference_mode():
            assert network(torch.randn(1, 1, side, side)).shape == (1, 3)
            features = network.forward_features(torch.randn(1, 1, side, side))
            assert network.forward_head(features, pre_logits=True).shape == (1, network.head_hidden_size)

    @pytest.mark.parametrize("name", CLASSIFIERS)
    def test_maps_are_as_their_information_says(self, name: str) -> None:
        case = CASES[name]
        built = case.build().eval()
        x = case.input()
        with torch.inference_mode():
            final, maps = built.forward_intermediates(x)
            only = built.forward_intermediates(x, indices=2, intermediates_only=True)
            torch.testing.assert_close(final, built.forward_features(x))
        assert len(maps) == len(built.feature_info) and len(only) == 2
        for found, about in zip(maps, built.feature_info, strict=True):
            sides = [-(-side // about["reduction"]) for side in case.shape[1:]]
            assert found.shape == (2, about["num_chs"], *sides)
        for found, expected in zip(only, maps[-2:], strict=True):
            assert torch.equal(found, expected)
        with torch.inference_mode():
            _, early = built.forward_intermediates(x, indices=[0], stop_early=True)
        assert torch.equal(early[0], maps[0])
        with pytest.raises(ValueError, match="NCHW"):
            built.forward_intermediates(x, output_fmt="NLC")
        with pytest.raises(ValueError, match=f"expected levels 0 to {len(maps) - 1}"):
            built.forward_intermediates(x, indices=[len(maps)])
        with pytest.raises(ValueError, match="num_classes is -1"):
            built.reset_classifier(-1)

    @pytest.mark.parametrize(
        ("name", "arguments", "channels"),
        [
            ("medvitv2_tiny", {"tokens": "spatial"}, [64, 128, 192, 384]),
            ("astroformer_0", {"img_size": 64}, [64, 96, 192, 384, 768]),
            ("duoformer_r18", {"depth": 1, "embed_dim": 12}, [64, 128, 256, 512]),
            ("satmae_pp_vit_base", {"img_size": 64, "depth": 3}, [768] * 3),
            ("hornet_tiny_gf", {"depths": [1, 1, 1, 1]}, [64, 128, 256, 512]),
            ("smt_t", {}, [64, 128, 256, 512]),
            ("cvt_13", {"depth": [1, 1, 1]}, [64, 192, 384]),
            ("crossformer_tiny", {"depths": [1, 1, 1, 1]}, [64, 128, 256, 512]),
            ("sret_t", {"image_size": 64, "depth": [2, 2, 1], "recursive_num": [1, 1, 1]}, [64, 128, 256]),
            ("fcaformer_l1", {"img_size": 64, "depths": [1, 1, 1, 1]}, [64, 128, 192, 320]),
        ],
    )
    def test_gives_pyramids(self, name: str, arguments: dict[str, Any], channels: list[int]) -> None:
        pyramid = self.timm().create_model(name, features_only=True, in_chans=2, **arguments).eval()
        assert pyramid.feature_info.channels() == channels
        with torch.inference_mode():
            maps = pyramid(torch.randn(1, 2, 64, 64))
        assert [tuple(m.shape[1:]) for m in maps] == [
            (c, 64 // r, 64 // r) for c, r in zip(channels, pyramid.feature_info.reduction(), strict=True)
        ]

    @pytest.mark.parametrize(
        ("encoder", "arguments", "size"),
        [
            ("tu-astroformer_0", {"img_size": 64}, (64, 64)),
            ("tu-medvitv2_tiny", {"tokens": "spatial"}, (64, 96)),
            ("tu-smt_t", {}, (64, 96)),
            ("tu-hornet_tiny_gf", {"depths": [1, 1, 2, 1]}, (64, 96)),
            ("tu-crossformer_tiny", {"depths": [1, 1, 2, 1]}, (64, 96)),
        ],
    )
    def test_serves_as_encoders_of_segmentation_models(
        self, encoder: str, arguments: dict[str, Any], size: tuple[int, int]
    ) -> None:
        import segmentation_models_pytorch as smp

        self.timm()
        unet = smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=2, **arguments)
        output = unet.train()(torch.randn(2, 1, *size))
        assert output.shape == (2, 2, *size)
        output.square().mean().backward()
        assert sum(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in unet.encoder.parameters()) > 50

    @staticmethod
    def timm() -> Any:
        for domain in PUBLISHED:
            importlib.import_module(f"{domain}.models")
        return importlib.import_module("timm")


def test_every_architecture_has_a_case() -> None:
    known = {point.value for name, point in architectures.installed().items() if name != "ensemble"}
    assert known == {case.home for case in CASES.values()}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("paratranscnn", {"patch_size": 4}, r"patch_size is 4, expected 2"),
        ("paratranscnn", {"dim": 9}, r"dim is 9, expected a multiple of heads \(2\)"),
        ("paratranscnn", {"resnet_depth": 50}, r"resnet_depth is 50, expected 18 or 34"),
        ("duoformer", {"img_size": 65}, r"img_size 65 x 65: both must be multiples of 32"),
        ("duoformer", {"num_patches": 49}, r"num_patches is 49, expected 4"),
        ("duoformer", {"proj_dim": 8}, r"proj_dim is 8, expected embed_dim \(16\)"),
        ("duoformer", {"num_heads": 3}, r"embed_dim 16: expected a multiple of num_heads 3"),
        ("duoformer", {"num_layers": 5}, r"num_layers is 5, expected 2, 3 or 4"),
        ("duoformer", {"scale_token": "mean"}, r"scale_token 'mean' is unknown; expected one of random, channel"),
        ("duoformer", {"backbone": "resnet_none"}, r"backbone 'resnet_none' is unknown to timm"),
        ("duoformer", {"patch_block": "x"}, r"patch_block 'x' is unknown"),
        ("medvitv2", {"depths": [1, 2, 4, 1]}, r"multiple of 3 in the third stage"),
        ("medvitv2", {"dims": [30, 64, 64, 64]}, r"multiples of 32"),
        ("medvitv2", {"tokens": "x"}, r"expected one of reinterpreted, spatial"),
        ("medvitv2", {"mix_block_ratio": 0.75}, r"leaves 0 channels to the convolution, expected 32 or more"),
        ("medvitv2", {"kernel_size": 4}, r"kernel_size is 4, expected an odd number"),
        ("astroformer", {"img_size": 65}, r"both must be multiples of 32"),
        ("astroformer", {"embed_dim": [8, 16, 32, 65]}, r"embed_dim 65 .*expected a multiple of 32"),
        ("astroformer", {"block_type": ["C", "C", "C", "X"]}, r"block_type 'X' .*expected C, T"),
        ("satmae_pp_vit_rgb", {"img_size": 33}, r"both must be multiples of patch_size 8"),
        ("satmae_pp_vit_rgb", {"num_heads": 3}, r"embed_dim 16: expected a multiple of num_heads 3"),
        ("satmae_pp_vit_rgb", {"global_pool": "max"}, r"global_pool is 'max', expected"),
        ("satmae_pp_vit_group", {"in_chans": 4}, r"channel_groups \[\[0, 2\], \[1\]\] with in_chans 4: expected every"),
        ("satmae_pp_vit_group", {"channel_embed": 3}, r"width"),
        ("satmae_pp_mae_rgb", {"scales": 0}, r"scales is 0, expected 1 or more"),
        ("satmae_pp_mae_rgb", {"decoder_num_heads": 3}, r"decoder_embed_dim 16: expected a multiple"),
        ("hbformer", {"depths": [1]}, r"must name four stages"),
    ],
)
def test_an_argument_that_does_not_suit_is_named_with_what_does(name: str, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        CASES[name].build(**changes)
    assert "\n" not in str(caught.value)


def test_the_released_tokens_say_how_large_an_image_must_be() -> None:
    with pytest.raises(ValueError, match=r'image of 96 x 112: .* needs 97 pixels or more a side; .*tokens="spatial"'):
        CASES["medvitv2 as released"].build()(torch.zeros(1, 3, 96, 112))
