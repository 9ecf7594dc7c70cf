"""The vision transformers of SatMAE++ that are fine-tuned: plain, and with groups of bands."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any, Self, TypeGuard

import torch
from torch import Tensor, nn

from geovision.models.satmae_pp_autoencoder import Autoencoder
from geovision.models.satmae_pp_names import BASE, DECODER_ENTRIES, LARGE, factory_arguments, official_name
from geovision.models.satmae_pp_trunk import (
    EPS,
    SENTINEL_GROUPS,
    Groups,
    Trunk,
    json_arguments,
)
from shared_backbones import official
from shared_backbones.architectures import Arguments
from shared_backbones.blocks.embeddings import fit_positions
from shared_backbones.json_values import Json
from shared_backbones.networks.classifier import Classifier, Intermediates, chosen_levels, linear_classifier


class EncoderClassifier(Classifier):
    """What both vision transformers share: pooling, head and the pyramid of one resolution."""

    feature_indices = (-3, -2, -1)

    def __init__(self, trunk: Trunk, num_classes: int, global_pool: bool | str) -> None:
        super().__init__()
        if global_pool not in {True, False, "avg", "token"}:
            raise ValueError(f"global_pool is {global_pool!r}, expected True or 'avg', False or 'token'")
        self.trunk, self.num_classes = trunk, num_classes
        self.global_pool = global_pool in {True, "avg"}
        self.num_features = self.head_hidden_size = trunk.dim
        self.norm = nn.LayerNorm(trunk.dim, EPS)
        self.head = linear_classifier(trunk.dim, num_classes)
        self.feature_info = [
            {"num_chs": trunk.dim, "reduction": trunk.patch_size, "module": f"trunk.blocks.{i}"}
            for i in range(len(trunk.blocks))
        ]
        self.arguments: Arguments = {}
        _initialise_classifier(self)

    @classmethod
    def from_official(
        cls,
        path_or_state_dict: official.Source,
        *,
        variant: str | None = None,
        qkv_bias: bool = True,
        **arguments: Any,
    ) -> Self:
        """Build a network with fine-tuned weights of the released code (techmn/satmae_pp).

        Positions that were trained at another square image size are resampled.

        Args:
            path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
            variant: a released factory, `vit_base_patch16` or `vit_large_patch16`.
            qkv_bias: True, as in all released models.
            arguments: arguments of the network's class.

        Raises:
            ValueError: the variant is unknown, or an argument does not suit.
            InputError: the entries are not those of the released code, or do not fit.
        """
        model = cls(**{**factory_arguments("vit_", variant, qkv_bias), **arguments})
        grouped = model.trunk.groups is not None
        names = {name: official_name(name, grouped, model.global_pool) for name in model.state_dict()}
        convert = {"trunk.positions": functools.partial(fit_positions, grid=model.trunk.grid)}
        official.load_foreign(model, path_or_state_dict, names, convert=convert)
        return model.eval()

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens of images before the first block, class token first, `(B, 1 + G * L, D)`, and the grid of patches."""
        first = (self.trunk.class_token + self._class_code()).expand(len(x), -1, -1)
        return torch.cat([first, self.trunk.embed(x)], 1), self.trunk.grid

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens of the last block, class token first, `(B, 1 + G * L, D)`; normed where it is the feature."""
        tokens = self.trunk.attend(self.embed(x)[0])[0]
        return tokens if self.global_pool else self.norm(tokens)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of tokens; with `pre_logits` the feature `(B, D)` that the classifier sees."""
        x = self.norm(x[:, 1:].mean(1)) if self.global_pool else x[:, 0]
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates:
        """Maps `(B, D, H / p, W / p)` after the blocks `indices`, groups averaged; alone or after the last tokens.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, len(self.trunk.blocks), output_fmt)
        stop = max(wanted) + 1 if stop_early or intermediates_only else None
        tokens, levels = self.trunk.attend(self.embed(x)[0], wanted, stop)
        maps = []
        for level in levels:
            level = (self.norm(level) if norm else level)[:, 1:]
            level = level.unflatten(1, (-1, *self.trunk.grid)).mean(1)
            maps.append(level.permute(0, 3, 1, 2))
        return maps if intermediates_only else (tokens, maps)

    def reset_classifier(self, num_classes: int, global_pool: bool | str | None = None) -> None:
        """Give the network another number of classes, with a head drawn as for fine-tuning, or another pooling."""
        if global_pool is not None:
            self.global_pool = global_pool in {True, "avg"}
            self.arguments["global_pool"] = self.global_pool
        super().reset_classifier(num_classes)
        self._draw_head()

    def official_input(self) -> dict[str, Json] | None:
        """The `input` of a card: what the released code feeds the network, or None where the bands are not its own."""
        return self.trunk.official_input()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each block instead of keeping them."""
        self.trunk.grad_checkpointing = enable

    def load_autoencoder(self, source: "official.Source | Autoencoder | EncoderClassifier") -> None:
        """Start fine-tuning from a pre-trained encoder: the trunk's weights are taken, the head is drawn anew.

        Positions are resampled where the image sizes differ, which the released code announces but never does.

        Args:
            source: an autoencoder of the same bands, patch and width, official weights of one, or its encoder alone.

        Raises:
            InputError: the weights are no such autoencoder's, or of other bands, patch or width.
        """
        grouped = self.trunk.groups is not None
        state: official.Source
        if isinstance(source, Autoencoder | EncoderClassifier):
            state = {f"trunk.{name}": value for name, value in source.trunk.state_dict().items()}
            names = {name: f"trunk.{name}" for name in self.trunk.state_dict()}
        else:
            state = source
            names = {name: official_name(f"trunk.{name}", grouped) for name in self.trunk.state_dict()}
        convert = {"positions": functools.partial(fit_positions, grid=self.trunk.grid)}
        official.load_foreign(self.trunk, state, names, DECODER_ENTRIES, convert=convert)
        self._draw_head()

    def _draw_head(self) -> None:
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=2e-5)
            nn.init.zeros_(self.head.bias)

    def _class_code(self) -> Tensor:
        return self.trunk.positions[:, :1]


class VisionTransformer(EncoderClassifier):
    """The plain vision transformer that fine-tunes a `MaskedAutoencoder`'s encoder.

    Args:
        img_size: height and width in pixels, or one number for both.
        patch_size: side of a patch in pixels.
        in_chans: bands of the images.
        num_classes: logits; 0 gives features.
        embed_dim: channels of a token.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        global_pool: True (or `avg`): the mean of the patches' tokens, normed; False (or `token`): the class token.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        global_pool: bool | str = True,
        drop_path_rate: float = 0.0,
    ) -> None:
        arguments = json_arguments(locals())
        trunk = Trunk(
            in_chans, img_size, patch_size, None, embed_dim, 0, depth, num_heads, mlp_ratio, drop_path_rate, True
        )
        super().__init__(trunk, num_classes, global_pool)
        nn.init.trunc_normal_(self.trunk.positions, std=0.02)
        self.arguments = arguments


class GroupVisionTransformer(EncoderClassifier):
    """The group-channel vision transformer that fine-tunes a `GroupMaskedAutoencoder`'s encoder.

    Its class token has the zero row of the positions and a learned code in place of a group's, zero at first.

    Args:
        img_size: height and width in pixels, or one number for both.
        patch_size: side of a patch in pixels.
        in_chans: bands of the images.
        channel_groups: bands of each group; together every band once.
        channel_embed: channels of a token that code the group.
        num_classes: logits; 0 gives features.
        embed_dim: channels of a token.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        global_pool: True (or `avg`): the mean of the patches' tokens, normed; False (or `token`): the class token.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 96,
        patch_size: int = 8,
        in_chans: int = 10,
        channel_groups: Groups = SENTINEL_GROUPS,
        channel_embed: int = 256,
        num_classes: int = 1000,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        global_pool: bool | str = True,
        drop_path_rate: float = 0.0,
    ) -> None:
        arguments = json_arguments(locals())
        trunk = Trunk(
            in_chans, img_size, patch_size, channel_groups, embed_dim, channel_embed, depth, num_heads, mlp_ratio,
            drop_path_rate, True,
        )  # fmt: skip
        super().__init__(trunk, num_classes, global_pool)
        self.class_code = nn.Parameter(torch.zeros(1, 1, channel_embed))
        self.arguments = arguments

    def _class_code(self) -> Tensor:
        return torch.cat([self.trunk.positions[:, :1], self.class_code], 2)


def encoder_of(autoencoder: Autoencoder) -> EncoderClassifier:
    """The encoder alone of an autoencoder: the network that it fine-tunes, without a head and with the same tokens."""
    network = VisionTransformer if autoencoder.trunk.groups is None else GroupVisionTransformer
    known = inspect.signature(network).parameters
    arguments = {name: value for name, value in autoencoder.arguments.items() if name in known}
    encoder = network(**arguments, num_classes=0, global_pool=False)
    encoder.load_autoencoder(autoencoder)
    encoder.norm.load_state_dict(autoencoder.norm.state_dict())
    return encoder.eval()


def is_pretrained_encoder(network: nn.Module) -> TypeGuard[Autoencoder | EncoderClassifier]:
    """Whether a network has no head yet, and another one may be fine-tuned from its encoder."""
    return isinstance(network, Autoencoder) or (isinstance(network, EncoderClassifier) and not network.num_classes)


def _initialise_classifier(model: EncoderClassifier) -> None:
    """Truncated normal for linear layers and the class token."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.trunk.class_token, std=0.02)


VARIANTS = {
    "satmae_pp_vit_base": functools.partial(VisionTransformer, **BASE),
    "satmae_pp_vit_large": functools.partial(VisionTransformer, **LARGE),
    "satmae_pp_group_vit_base": functools.partial(GroupVisionTransformer, **BASE),
    "satmae_pp_group_vit_large": functools.partial(GroupVisionTransformer, **LARGE),
}
# fMoW-RGB's statistics; Sentinel-2 bands are scaled to [0, 1] one by one, and nothing more
_RGB = {"mean": (0.4182007, 0.4214799, 0.3991276), "std": (0.2877428, 0.2754177, 0.2764018)}
_SENTINEL = {"input_size": (10, 96, 96), "mean": (0.0,) * 10, "std": (1.0,) * 10}
TIMM_CONFIGS = {name: _SENTINEL if "group" in name else _RGB for name in VARIANTS}
