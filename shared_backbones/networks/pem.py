"""PEM: masks from queries that each look at one pixel of a map (Cavagnero et al., CVPR 2024, arXiv 2402.19422).

Longer than 400 lines: the two decoders make sense together alone, and released names are a third of it.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.deformable_attention import DeformableConvolution
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.inference import batch_norm_affine
from shared_backbones.networks.mask_queries import MaskQueries
from shared_backbones.networks.pyramids import TimmPyramid
from shared_backbones.networks.released import Released, Rule, renamed
from shared_backbones.networks.stdc import STDC
from shared_backbones.networks.tokens import to_tokens

_STRIDE = 32
_LEVELS = 3  # maps that the decoder looks at, at 1/32, 1/16 and 1/8
OUTPUTS = ("logits", "semantic")


class PEM(Released):
    """Prototype-based mask classification: each query gives a class and a mask.

    The released code takes each query to the most similar pixel of a map that its last mask has not shut out. This
    choice is discontinuous: outputs may jump where two pixels are nearly as similar. An image whose sides are no
    multiples of 32 is padded by zeros. The released code has no licence, so that no weights come with the suite.

    Args:
        num_classes: classes, without the one of queries that stand for nothing.
        in_chans: input channels; the released code has 3.
        encoder: `stdc`, or timm's name of a backbone with maps at 1/4 to 1/32, such as `resnet50`.
        base: channels of the map at 1/4 that `stdc` gives.
        layers: blocks of `stdc` at 1/8, 1/16 and 1/32; the published sizes 1 and 2 have 2, 2, 2 and 4, 5, 3.
        block_num: convolutions of a block of `stdc`.
        conv_dim: channels of the pixel decoder.
        mask_dim: channels of the product that gives the masks.
        hidden_dim: channels of a query.
        num_queries: queries.
        nheads: heads; they divide `hidden_dim`.
        dim_feedforward: hidden channels of the feed-forwards.
        dec_layers: layers of the decoder.
        output: `semantic`, the released map at a quarter of the image: over all queries, the sum of a class's
            probability times the mask's; or `logits`, its logarithm at the image's size, whose softmax is each class's
            share.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    role: ClassVar[Role] = "segmenter"
    grad_checkpointing = False
    released_class = "PEM"

    def __init__(
        self,
        num_classes: int = 150,
        in_chans: int = 3,
        *,
        encoder: str = "stdc",
        base: int = 64,
        layers: Sequence[int] = (2, 2, 2),
        block_num: int = 4,
        conv_dim: int = 128,
        mask_dim: int = 256,
        hidden_dim: int = 256,
        num_queries: int = 100,
        nheads: int = 8,
        dim_feedforward: int = 2048,
        dec_layers: int = 6,
        output: str = "logits",
    ) -> None:
        super().__init__()
        if hidden_dim % nheads or hidden_dim % 4:
            raise ValueError(f"hidden_dim is {hidden_dim}, expected a multiple of 4 and of nheads ({nheads})")
        if output not in OUTPUTS:
            raise ValueError(f"output {output!r}: expected one of {', '.join(OUTPUTS)}")
        if num_classes < 1 or dec_layers < 1:
            raise ValueError(f"num_classes {num_classes}, dec_layers {dec_layers}: expected 1 or more of each")
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "encoder": encoder,
            "base": base,
            "layers": list(layers),
            "block_num": block_num,
            "conv_dim": conv_dim,
            "mask_dim": mask_dim,
            "hidden_dim": hidden_dim,
            "num_queries": num_queries,
            "nheads": nheads,
            "dim_feedforward": dim_feedforward,
            "dec_layers": dec_layers,
            "output": output,
        }
        self.encoder: STDC | TimmPyramid = (
            STDC(in_chans, base, layers, block_num) if encoder == "stdc" else TimmPyramid(encoder, in_chans)
        )
        self.pixels = PixelDecoder(self.encoder.channels, conv_dim, mask_dim)
        self.project = nn.ModuleList(nn.Conv2d(conv_dim, hidden_dim, 1) for _ in range(_LEVELS))
        self.level_codes = nn.Parameter(torch.randn(_LEVELS, hidden_dim))
        self.queries = nn.Parameter(torch.randn(num_queries, hidden_dim))
        self.query_codes = nn.Parameter(torch.randn(num_queries, hidden_dim))
        self.layers = nn.ModuleList(QueryLayer(hidden_dim, nheads, dim_feedforward) for _ in range(dec_layers))
        self.norm = nn.LayerNorm(hidden_dim)
        self.classify = nn.Linear(hidden_dim, num_classes + 1)
        self.embed_mask = nn.Sequential(
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, mask_dim),
        )

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor; the released code gives the map at a quarter of the image."""
        name = variant and variant.partition(" ")[0]  # "PEM (...)", with what it is put together of
        return {"output": "semantic", **super().released_arguments(name, arguments)}

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        if name.startswith("encoder.network."):
            return renamed(name, _RESNET_NAMES)
        if name.startswith("encoder.stem."):
            return _unit(name.replace("encoder.stem.", "backbone.features."))
        if name.startswith("encoder.stages."):
            stage, block, rest = name.removeprefix("encoder.stages.").split(".", 2)
            number = 2 + sum(self.arguments["layers"][: int(stage)]) + int(block)
            return f"backbone.features.{number}.{_block(rest)}"
        return renamed(name, _OFFICIAL_NAMES)

    def released_first_name(self, name: str) -> str:
        """The released `stdc` has its blocks twice, in a row and by the maps that they give."""
        return re.sub(r"^backbone\.x\d+\.0\.", "backbone.features.", name)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(B, C, H, W)` to `(B, num_classes, H, W)`, or `(B, num_classes, H / 4, W / 4)` if `semantic`."""
        scores = self.predict(x)[-1].semantic()
        if self.arguments["output"] == "semantic":
            return scores
        floor = torch.finfo(torch.float32).eps
        scores = F.interpolate(scores, scale_factor=4, mode="bilinear", align_corners=False)
        return scores[:, :, : x.shape[2], : x.shape[3]].clamp(min=floor).log()

    def predict(self, x: Tensor) -> list[MaskQueries]:
        """Classes and masks of all queries, before the first layer and after each; masks cover the padded image.

        Args:
            x: images `(B, C, H, W)`.
        """
        if x.ndim != 4 or x.shape[1] != self.arguments["in_chans"]:
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {self.arguments['in_chans']}, H, W)")
        x = F.pad(x, (0, -x.shape[3] % _STRIDE, 0, -x.shape[2] % _STRIDE))
        recompute = self.grad_checkpointing and self.training
        maps = recomputed(self.encoder, x) if recompute else self.encoder(x)
        *levels, features = recomputed(self.pixels, *maps) if recompute else self.pixels(*maps)
        memories = [
            project(level) + code[:, None, None]
            for project, level, code in zip(self.project, levels, self.level_codes, strict=True)
        ]
        tokens = self.queries.expand(len(x), -1, -1)
        queries = [self._heads(tokens, features)]
        for i, layer in enumerate(self.layers):
            memory = memories[i % _LEVELS]
            shut = F.interpolate(queries[-1].masks, memory.shape[2:], mode="bilinear", align_corners=False).detach() < 0
            tokens = (
                recomputed(layer, tokens, memory, shut, self.query_codes)
                if recompute
                else layer(tokens, memory, shut, self.query_codes)
            )
            queries.append(self._heads(tokens, features))
        return queries

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of encoder, pixel decoder and each layer."""
        self.grad_checkpointing = enable

    def _heads(self, tokens: Tensor, features: Tensor) -> MaskQueries:
        """Class and mask of queries `(B, Q, D)` over features `(B, mask_dim, h, w)`."""
        tokens = self.norm(tokens)
        masks = (self.embed_mask(tokens) @ features.flatten(2)).unflatten(2, features.shape[2:])
        return MaskQueries(self.classify(tokens), masks)


class PixelDecoder(nn.Module):
    """Four maps, each told of the coarser ones, from 1/32 to 1/4."""

    def __init__(self, channels: Sequence[int], dim: int, mask_dim: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(ConvNormAct(width, dim, 1) for width in reversed(channels))
        self.context = ConvNormAct(channels[-1], dim, 1)
        self.gates = nn.ModuleList(ChannelGate(dim) for _ in channels)
        self.deform = nn.ModuleList(DeformableConvolution(dim, dim) for _ in channels[1:])
        self.enlarge = nn.ModuleList(Enlarge(dim) for _ in channels[1:])
        self.leave = ConvNormAct(dim, mask_dim, 1)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """Map four maps, the finest first, to those at 1/32, 1/16 and 1/8, and features of the masks at 1/4."""
        levels: list[Tensor] = []
        coarser = self.context(maps[-1].mean((2, 3), keepdim=True))
        for i, (x, enter, gate) in enumerate(zip(reversed(maps), self.enter, self.gates, strict=True)):
            x = gate(enter(x)) + coarser
            if i == len(self.deform):
                return [*levels, self.leave(x)]
            levels.append(self.deform[i](x))
            coarser = self.enlarge[i](levels[-1])
        return levels


class ChannelGate(nn.Module):
    """Channels strengthened by what their means say, through two sigmoids, as released."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.narrow = ConvNormAct(dim, dim // 2, 1)
        self.widen = nn.Conv2d(dim // 2, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        gate = self.widen(self.narrow(x.mean((2, 3), keepdim=True))).sigmoid().sigmoid()
        return x + x * gate


class Enlarge(nn.Module):
    """Transposed convolution to twice the size, batch norm and ReLU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(dim, dim, 4, 2, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, 2 H, 2 W)`."""
        return F.relu(self.norm(self.convolution(x)))

    def fold_(self) -> None:
        """Fold the batch norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            scale, shift = batch_norm_affine(self.norm)
            self.convolution.weight = nn.Parameter(self.convolution.weight * scale[:, None, None])
            self.convolution.bias, self.norm = nn.Parameter(shift), nn.Identity()
            self.requires_grad_(False)


class QueryLayer(nn.Module):
    """Each query looks at one pixel for each head, then at all queries, and goes through a feed-forward."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.look = PrototypeAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.expand, self.contract = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor, memory: Tensor, shut: Tensor, codes: Tensor) -> Tensor:
        """Map queries `(B, Q, C)` to the same shape.

        Args:
            x: the queries.
            memory: a map `(B, C, h, w)`.
            shut: pixels of the map that each query does not see, `(B, Q, h, w)`.
            codes: what tells the queries apart, `(Q, C)`.
        """
        x = self.look(x, memory, shut, codes)
        y = self.norm1(x)
        dim = x.shape[2]
        weight, bias = self.qkv.weight, self.qkv.bias
        query, key = F.linear(y + codes, weight[: 2 * dim], bias[: 2 * dim]).chunk(2, 2)
        parts = (query, key, F.linear(y, weight[2 * dim :], bias[2 * dim :]))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        x = x + self.projection(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return x + self.contract(F.relu(self.expand(self.norm2(x))))


class PrototypeAttention(nn.Module):
    """For each head, a query takes the pixel that is most similar to it, and no other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.pixel_norm = nn.BatchNorm2d(dim)
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.pixel = nn.Linear(dim, dim)
        self.norm, self.query = nn.LayerNorm(dim), nn.Linear(dim, dim)
        self.mix, self.leave = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.scale = nn.Parameter(torch.ones(1, 1, dim))

    def forward(self, x: Tensor, memory: Tensor, shut: Tensor, codes: Tensor) -> Tensor:
        """As `QueryLayer`."""
        plane = self.depthwise(self.pixel_norm(memory + sine_positions(memory)))
        pixels = F.normalize(self.pixel(to_tokens(plane)), dim=2)
        queries = F.normalize(self.query(self.norm(x + codes)), dim=2)
        by_head = [tokens.unflatten(2, (self.heads, -1)).transpose(1, 2) for tokens in (queries, pixels)]
        similar = by_head[0] @ by_head[1].transpose(2, 3)  # (B, heads, Q, N)
        shut = shut.flatten(2)
        # an image none of whose pixels any query may see is seen whole
        shut = shut & ~shut.flatten(1).all(1)[:, None, None]
        chosen = similar.masked_fill(shut[:, None], torch.finfo(similar.dtype).min).argmax(3)
        width = by_head[1].shape[3]
        seen = by_head[1].gather(2, chosen[..., None].expand(-1, -1, -1, width)).transpose(1, 2).flatten(2)
        return x + self.leave(F.normalize(self.mix(seen * queries), dim=1) * self.scale + seen)


def sine_positions(like: Tensor) -> Tensor:
    """Sine code of a map's pixels (arXiv 2005.12872): rows in the first half of the channels, columns in the second.

    Args:
        like: a map `(B, C, h, w)`; the code is `(1, C, h, w)`, computed in float32 at least.
    """
    _, channels, rows, columns = like.shape
    kind = torch.promote_types(like.dtype, torch.float32)
    steps = torch.arange(channels // 4, dtype=kind, device=like.device)
    frequencies = 10000.0 ** (-4 * steps / channels)
    halves = []
    for count in (rows, columns):
        place = torch.arange(1, count + 1, dtype=kind, device=like.device) * (2 * math.pi / (count + 1e-6))
        angles = place[:, None] * frequencies
        halves.append(torch.stack([angles.sin(), angles.cos()], 2).flatten(1))
    first, second = halves[0][:, None].expand(-1, columns, -1), halves[1].expand(rows, -1, -1)
    return torch.cat([first, second], 2).permute(2, 0, 1)[None].to(like.dtype)


VARIANTS = {
    "pem_stdc1": functools.partial(PEM),
    "pem_stdc2": functools.partial(PEM, layers=(4, 5, 3)),
    "pem_r50": functools.partial(PEM, encoder="resnet50"),
}
_HEAD, _PIXELS = "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder."
_PARTS = [
    (r"look\.pixel_norm\.", "transformer_cross_attention_layers.{}.feature_proj.bn."),
    (r"look\.depthwise\.", "transformer_cross_attention_layers.{}.feature_proj.to_query_3x3."),
    (r"look\.pixel\.", "transformer_cross_attention_layers.{}.feature_proj.out."),
    (r"look\.norm\.", "transformer_cross_attention_layers.{}.query_proj.0."),
    (r"look\.query\.", "transformer_cross_attention_layers.{}.query_proj.1."),
    (r"look\.mix\.", "transformer_cross_attention_layers.{}.proj."),
    (r"look\.leave\.", "transformer_cross_attention_layers.{}.final."),
    (r"look\.scale", "transformer_cross_attention_layers.{}.alpha"),
    (r"norm1\.", "transformer_self_attention_layers.{}.norm."),
    (r"qkv\.", "transformer_self_attention_layers.{}.self_attn.in_proj_"),
    (r"projection\.", "transformer_self_attention_layers.{}.self_attn.out_proj."),
    (r"norm2\.", "transformer_ffn_layers.{}.norm."),
    (r"expand\.", "transformer_ffn_layers.{}.linear1."),
    (r"contract\.", "transformer_ffn_layers.{}.linear2."),
]


def _unit(name: str) -> str:
    """The released name of an entry of a convolution and its norm."""
    return name.replace("convolution.", "conv.").replace("norm.", "bn.")


def _layer(match: re.Match[str]) -> str:
    return f"{_HEAD}{renamed(match[2], _PARTS).format(match[1])}"


def _block(rest: str) -> str:
    """The released name of an entry of a block of `stdc`."""
    rest = re.sub(r"^convolutions\.(\d+)\.", lambda match: f"conv_list.{int(match[1]) + 1}.", rest)
    rest = re.sub(r"^enter\.", "conv_list.0.", rest)
    return re.sub(r"^halve\.(\w+)\.", lambda match: f"avd_layer.{int(match[1] == 'norm')}.", _raw(rest))


def _raw(rest: str) -> str:
    return rest if rest.startswith("halve.") else _unit(rest)


_OFFICIAL_NAMES: list[Rule] = [
    (r"pixels\.enter\.(\d)\.(.*)$", lambda match: f"{_PIXELS}in_projections.{3 - int(match[1])}.{_unit(match[2])}"),
    (r"pixels\.context\.(.*)$", lambda match: f"{_PIXELS}conv_avg.{_unit(match[1])}"),
    (r"pixels\.gates\.(\d)\.narrow\.convolution\.", rf"{_PIXELS}csm.\1.mlp.0.mlp.0."),
    (r"pixels\.gates\.(\d)\.narrow\.norm\.", rf"{_PIXELS}csm.\1.mlp.0.mlp.1."),
    (r"pixels\.gates\.(\d)\.widen\.", rf"{_PIXELS}csm.\1.mlp.0.mlp.3."),
    (r"pixels\.deform\.(\d)\.offsets\.", rf"{_PIXELS}dcn.\1.dcn_offset."),
    (r"pixels\.deform\.(\d)\.convolution\.", rf"{_PIXELS}dcn.\1.dcn."),
    (r"pixels\.deform\.(\d)\.norm\.", rf"{_PIXELS}dcn.\1.dcn_bn."),
    (r"pixels\.enlarge\.(\d)\.convolution\.", rf"{_PIXELS}dcn.\1.up_sample."),
    (r"pixels\.enlarge\.(\d)\.norm\.", rf"{_PIXELS}dcn.\1.up_bn."),
    (r"pixels\.leave\.(.*)$", lambda match: f"{_PIXELS}out.{_unit(match[1])}"),
    (r"project\.", f"{_HEAD}input_proj."),
    (r"level_codes", f"{_HEAD}level_embed.weight"),
    (r"queries", f"{_HEAD}query_feat.weight"),
    (r"query_codes", f"{_HEAD}query_embed.weight"),
    (r"layers\.(\d+)\.(.*)$", _layer),
    (r"norm\.", f"{_HEAD}decoder_norm."),
    (r"classify\.", f"{_HEAD}class_embed."),
    (r"embed_mask\.(\d)\.", lambda match: f"{_HEAD}mask_embed.layers.{int(match[1]) // 2}."),
]
_RESNET_NAMES: list[Rule] = [  # detectron2's
    (r"encoder\.network\.conv1\.", "backbone.stem.conv1."),
    (r"encoder\.network\.bn1\.", "backbone.stem.conv1.norm."),
    (r"encoder\.network\.layer(\d)\.(\d+)\.(.*)$", lambda match: _bottleneck(int(match[1]), match[2], match[3])),
]


def _bottleneck(stage: int, block: str, rest: str) -> str:
    rest = re.sub(r"^bn(\d)\.", r"conv\1.norm.", rest)
    rest = rest.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return f"backbone.res{stage + 1}.{block}.{rest}"
