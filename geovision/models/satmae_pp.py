"""SatMAE++: masked autoencoders of satellite images with multi-scale reconstruction, and their vision transformers.

Noman et al., *Rethinking Transformers Pre-training for Multi-Spectral Satellite Imagery* (CVPR 2024, arXiv 2403.05419),
as the released code computes it. The plain models see all bands in one patch embedding; the group models embed groups
of bands (such as the 10 m, 20 m and short-wave infrared bands of Sentinel-2) as tokens of their own.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geovision.models.multiscale import MultiScaleHead
from shared_backbones import weights
from shared_backbones.classifier import Classifier, chosen_levels, linear_classifier
from shared_backbones.embeddings import fit_positions, sine_cosine, sine_cosine_2d
from shared_backbones.recomputation import recomputed
from shared_backbones.transformer import TransformerBlock

SENTINEL_GROUPS = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
"""Of the ten bands B2 B3 B4 B5 B6 B7 B8 B8A B11 B12: 10 m, 20 m, and short-wave infrared."""
RECONSTRUCTION_WEIGHT, MULTISCALE_WEIGHT = 0.6, 0.4
_EPS = 1e-6
Groups = Sequence[Sequence[int]]


class Reconstruction(NamedTuple):
    """What a masked autoencoder gives.

    Attributes:
        loss: 0.6 reconstruction_loss + 0.4 multiscale_loss; without enlarged targets, reconstruction_loss.
        prediction: patches, `(B, L, p * p * C)` pixel by pixel (plain) or `(B, C, L, p * p)` band by band (groups).
        mask: 1 where a patch was removed, `(B, L)` or `(B, G, L)`.
        reconstruction_loss: mean squared error over removed patches.
        multiscale_loss: mean absolute error over all pixels of the enlarged images, mean over the scales; 0 without.
    """

    loss: Tensor
    prediction: Tensor
    mask: Tensor
    reconstruction_loss: Tensor
    multiscale_loss: Tensor


class Trunk(nn.Module):
    """Patch embedding, positions and transformer blocks, shared by all four networks.

    Args:
        in_chans: bands C of the images.
        img_size: height and width in pixels, or one number for both; multiples of `patch_size`.
        patch_size: side p of a patch in pixels.
        groups: bands of each group; None for one embedding of all bands.
        embed_dim: channels D of a token.
        channel_embed: of these, how many code the group.
        depth: transformer blocks.
        num_heads: attention heads; divides `embed_dim`.
        mlp_ratio: hidden channels of the feed-forward, as a multiple of D.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        trainable: whether the tables of positions and groups are learnt.

    Raises:
        ValueError: an argument does not suit.
    """

    def __init__(
        self,
        in_chans: int,
        img_size: int | Sequence[int],
        patch_size: int,
        groups: Groups | None,
        embed_dim: int,
        channel_embed: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path_rate: float = 0.0,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % patch_size or width % patch_size:
            raise ValueError(f"img_size {height} x {width}: both must be multiples of patch_size {patch_size}")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim}: expected a multiple of num_heads {num_heads}")
        if groups is not None:
            bands = [band for group in groups for band in group]
            if sorted(bands) != list(range(in_chans)):
                raise ValueError(
                    f"channel_groups {[list(g) for g in groups]} with in_chans {in_chans}: expected every band from 0 "
                    f"to {in_chans - 1} in one group; give channel_groups that match in_chans"
                )
        self.in_chans, self.patch_size, self.groups = in_chans, patch_size, groups
        self.img_size, self.grid = (int(height), int(width)), (height // patch_size, width // patch_size)
        self.dim = embed_dim
        self.grad_checkpointing = False
        sizes = [in_chans] if groups is None else [len(group) for group in groups]
        self.patch_embeddings: Any = nn.ModuleList(
            nn.Conv2d(size, embed_dim, patch_size, stride=patch_size) for size in sizes
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        code = 0 if groups is None else channel_embed
        if not 0 <= code < embed_dim:
            raise ValueError(f"channel_embed {code}: expected less than embed_dim {embed_dim}")
        self.positions: Any  # `(1, 1 + L, P)`, learnt or not
        self.channels: Any  # `(1, G, Q)`
        tables = {"positions": position_table(self.grid, embed_dim - code)}
        if groups is not None:
            tables["channels"] = sine_cosine(torch.arange(len(sizes), device="cpu"), code)[None]
        for name, table in tables.items():
            if trainable:
                setattr(self, name, nn.Parameter(table))
            else:
                self.register_buffer(name, table)
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, num_heads, mlp_ratio, eps=_EPS, drop_path=rate) for rate in rates
        )
        self.summed: Tensor | None  # positions and channels of all tokens, in the inference form
        self.register_buffer("summed", None, persistent=False)

    def embed(self, images: Tensor) -> Tensor:
        """Tokens with their positions, group by group: `(B, C, H, W)` to `(B, G * L, D)`, L in raster order.

        Raises:
            ValueError: the images have another size or number of bands.
        """
        if tuple(images.shape[1:]) != (self.in_chans, *self.img_size):
            raise ValueError(
                f"images of shape {tuple(images.shape)}: expected (B, {self.in_chans}, {self.img_size[0]}, "
                f"{self.img_size[1]}), for which the position table was made; build with that img_size"
            )
        parts = [images] if self.groups is None else [images[:, list(group)] for group in self.groups]
        tokens = [
            embedding(part).flatten(2).transpose(1, 2)
            for embedding, part in zip(self.patch_embeddings, parts, strict=True)
        ]
        return torch.cat(tokens, 1) + (self._sum() if self.summed is None else self.summed)

    def attend(
        self, tokens: Tensor, levels: Sequence[int] = (), stop: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the blocks, or those before `stop`, on `(B, N, D)`; returns also the outputs of the blocks `levels`."""
        kept = {}
        for index, block in enumerate(list(self.blocks)[:stop]):
            recompute = self.grad_checkpointing and self.training
            tokens = recomputed(block, tokens) if recompute else block(tokens)
            kept[index] = tokens if index in levels else None
        return tokens, [kept[index] for index in levels]

    def fold_(self) -> None:
        """Add the tables up once and for all."""
        self.summed = self._sum()

    def _sum(self) -> Tensor:
        positions = self.positions[:, 1:]
        return positions if self.groups is None else combine(positions, self.channels)


def position_table(grid: tuple[int, int], width: int) -> Tensor:
    """Sine-cosine positions behind a row of zeros for the class token, `(1, 1 + L, width)`."""
    return torch.cat([torch.zeros(1, width, device="cpu"), sine_cosine_2d(grid, width)])[None]


def combine(positions: Tensor, channels: Tensor) -> Tensor:
    """Codes of all tokens, group by group: `(1, L, P)` and `(1, G, Q)` to `(1, G * L, P + Q)`."""
    places, groups = positions.shape[1], channels.shape[1]
    spread = positions[:, None].expand(-1, groups, -1, -1), channels[:, :, None].expand(-1, -1, places, -1)
    return torch.cat(spread, 3).flatten(1, 2)


class _Autoencoder(nn.Module):
    """What both autoencoders share: masking, encoder, decoder blocks, and the multi-scale loss."""

    def __init__(
        self,
        trunk: Trunk,
        decoder_embed_dim: int,
        decoder_channel_embed: int,
        decoder_depth: int,
        decoder_num_heads: int,
        mlp_ratio: float,
        norm_pix_loss: bool,
        proj_ratio: int,
        scales: int,
        spatial_mask: bool,
    ) -> None:
        super().__init__()
        if decoder_embed_dim % decoder_num_heads:
            raise ValueError(
                f"decoder_embed_dim {decoder_embed_dim}: expected a multiple of decoder_num_heads {decoder_num_heads}"
            )
        if scales < 1:
            raise ValueError(f"scales is {scales}, expected 1 or more")
        self.trunk, self.norm_pix_loss, self.spatial_mask = trunk, norm_pix_loss, spatial_mask
        self.norm = nn.LayerNorm(trunk.dim, _EPS)
        self.decoder_embedding = nn.Linear(trunk.dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        grouped = trunk.groups is not None
        code = decoder_channel_embed if grouped else 0
        self.decoder_positions: Any
        self.decoder_channels: Any
        self.register_buffer("decoder_positions", position_table(trunk.grid, decoder_embed_dim - code))
        if grouped:  # the last row is the class token's
            rows = torch.arange(len(trunk.patch_embeddings) + 1, device="cpu")
            self.register_buffer("decoder_channels", sine_cosine(rows, code)[None])
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(decoder_embed_dim, decoder_num_heads, mlp_ratio, eps=_EPS) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim, _EPS)
        sizes = [embedding.in_channels for embedding in trunk.patch_embeddings]
        self.predictions = nn.ModuleList(nn.Linear(decoder_embed_dim, size * trunk.patch_size**2) for size in sizes)
        self.multiscale = MultiScaleHead(trunk.in_chans, proj_ratio, scales)
        _initialise_autoencoder(self)

    def forward(
        self,
        images: Tensor,
        *upscaled_targets: Tensor,
        mask_ratio: float = 0.75,
        noise: Tensor | None = None,
    ) -> Reconstruction:
        """Remove patches, reconstruct the images, and measure how well.

        Args:
            images: `(B, C, H, W)`.
            upscaled_targets: the same images at 2, 4, ... times the resolution, as many as there are scales or fewer.
            mask_ratio: share of tokens removed, in [0, 1).
            noise: `(B, N)`; the tokens with the smallest values are kept. N is the number of places where groups are
                masked together, else of all tokens. By default it is drawn anew.

        Raises:
            ValueError: a shape does not suit.
        """
        if len(upscaled_targets) > len(self.multiscale.blocks):
            raise ValueError(
                f"{len(upscaled_targets)} upscaled targets: expected {len(self.multiscale.blocks)} or fewer"
            )
        tokens = self.trunk.embed(images)
        kept, mask = self.keep(tokens, mask_ratio, noise)
        rows = kept[..., None].expand(-1, -1, tokens.shape[2])
        encoded = self._encode(tokens.gather(1, rows))
        prediction = self._decode(encoded, kept)
        reconstruction = self._reconstruction_loss(images, prediction, mask)
        multiscale = reconstruction.new_zeros(())
        loss = reconstruction
        if upscaled_targets:
            enlarged = self.multiscale(self.to_images(prediction), len(upscaled_targets))
            for found, target in zip(enlarged, upscaled_targets, strict=True):
                if found.shape != target.shape:
                    raise ValueError(f"upscaled target of shape {tuple(target.shape)}: expected {tuple(found.shape)}")
                multiscale = multiscale + F.l1_loss(found, target) / len(enlarged)
            loss = RECONSTRUCTION_WEIGHT * reconstruction + MULTISCALE_WEIGHT * multiscale
        return Reconstruction(loss, prediction, mask, reconstruction, multiscale)

    def keep(self, tokens: Tensor, mask_ratio: float, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose the tokens that the encoder sees.

        Args:
            tokens: `(B, G * L, D)`.
            mask_ratio: share removed, in [0, 1).
            noise: as in `forward`.

        Returns:
            Numbers of the kept tokens, `(B, K)`, and the mask, 1 where removed, `(B, L)` or `(B, G, L)`.

        Raises:
            ValueError: the ratio or the noise's shape does not suit.
        """
        batch, count = tokens.shape[:2]
        groups = len(self.trunk.patch_embeddings)
        drawn = count // groups if self.spatial_mask else count
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"mask_ratio is {mask_ratio}, expected 0 or more and less than 1")
        if noise is None:
            noise = torch.rand(batch, drawn, device=tokens.device)
        elif tuple(noise.shape) != (batch, drawn):
            raise ValueError(f"noise of shape {tuple(noise.shape)}: expected ({batch}, {drawn})")
        kept = noise.argsort(1)[:, : int(drawn * (1 - mask_ratio))]
        if self.spatial_mask:
            start = torch.arange(groups, device=kept.device)[:, None] * drawn
            kept = (kept[:, None] + start).flatten(1)
        mask = tokens.new_ones(batch, count).scatter_(1, kept, 0.0)
        return kept, mask if self.trunk.groups is None else mask.unflatten(1, (groups, -1))

    def forward_features(self, images: Tensor) -> Tensor:
        """Encoded tokens of whole images, class token first, `(B, 1 + G * L, D)`; nothing is removed or decoded."""
        return self._encode(self.trunk.embed(images))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each block instead of keeping them."""
        self.trunk.grad_checkpointing = enable

    def _encode(self, tokens: Tensor) -> Tensor:
        start = self.trunk.class_token
        if self.trunk.groups is None:  # the group model's class token has no position
            start = start + self.trunk.positions[:, :1]
        tokens = torch.cat([start.expand(len(tokens), -1, -1), tokens], 1)
        return self.norm(self.trunk.attend(tokens)[0])

    def _decode(self, encoded: Tensor, kept: Tensor) -> Tensor:
        x = self.decoder_embedding(encoded)
        places = len(self.trunk.patch_embeddings) * self.trunk.grid[0] * self.trunk.grid[1]
        full = self.mask_token.to(x.dtype).expand(len(x), places, -1)
        full = full.scatter(1, kept[..., None].expand(-1, -1, x.shape[2]), x[:, 1:])
        x = torch.cat([x[:, :1], full], 1) + self._decoder_table()
        for block in self.decoder_blocks:
            recompute = self.trunk.grad_checkpointing and self.training
            x = recomputed(block, x) if recompute else block(x)
        return self._predict(self.decoder_norm(x)[:, 1:])

    def _decoder_table(self) -> Tensor:
        if self.trunk.groups is None:
            return self.decoder_positions
        first = torch.cat([self.decoder_positions[:, :1], self.decoder_channels[:, -1:]], 2)
        return torch.cat([first, combine(self.decoder_positions[:, 1:], self.decoder_channels[:, :-1])], 1)

    def _predict(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def to_images(self, prediction: Tensor) -> Tensor:
        """Predicted patches as images `(B, C, H, W)`."""
        raise NotImplementedError

    def _reconstruction_loss(self, images: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError


class MaskedAutoencoder(_Autoencoder):
    """The plain autoencoder, released for RGB images of 224 pixels with one enlargement.

    As in the released code, the multi-scale loss covers visible patches, too.

    Args:
        img_size: height and width in pixels, or one number for both.
        patch_size: side of a patch in pixels.
        in_chans: bands of the images.
        embed_dim: channels of a token in the encoder.
        depth: blocks of the encoder.
        num_heads: attention heads of the encoder.
        decoder_embed_dim: channels of a token in the decoder.
        decoder_depth: blocks of the decoder.
        decoder_num_heads: attention heads of the decoder.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        norm_pix_loss: compare with patches scaled to mean 0 and deviation 1.
        proj_ratio: hidden channels of the enlargement, as a multiple of the bands.
        scales: how many times the reconstruction is enlarged by two.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_pix_loss: bool = False,
        proj_ratio: int = 4,
        scales: int = 1,
    ) -> None:
        arguments = _json(locals())
        trunk = Trunk(in_chans, img_size, patch_size, None, embed_dim, 0, depth, num_heads, mlp_ratio)
        super().__init__(
            trunk, decoder_embed_dim, 0, decoder_depth, decoder_num_heads, mlp_ratio, norm_pix_loss, proj_ratio, scales,
            False,
        )  # fmt: skip
        self.arguments = arguments

    def _predict(self, tokens: Tensor) -> Tensor:
        return self.predictions[0](tokens)

    def to_images(self, prediction: Tensor) -> Tensor:
        """Predicted patches as images `(B, C, H, W)`."""
        (rows, columns), side = self.trunk.grid, self.trunk.patch_size
        patches = prediction.unflatten(2, (side, side, -1)).unflatten(1, (rows, columns))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def _reconstruction_loss(self, images: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
        target = _patches(images, self.trunk.patch_size).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        if self.norm_pix_loss:
            target = _standardise(target)
        return ((prediction - target).square().mean(-1) * mask).sum() / mask.sum()


class GroupMaskedAutoencoder(_Autoencoder):
    """The group-channel autoencoder, released for ten Sentinel-2 bands of 96 pixels with two enlargements.

    As in the released code, predicted bands stand in the order of the groups but are compared, masked and enlarged as
    if they stood in the images' order: band k of `prediction` is trained to be band k of the images, whatever its
    group. The class token has neither position nor group.

    Args:
        img_size: height and width in pixels, or one number for both.
        patch_size: side of a patch in pixels.
        in_chans: bands of the images.
        spatial_mask: remove a place in all groups together; else every group's tokens are removed by themselves.
        channel_groups: bands of each group; together every band once.
        channel_embed: channels of an encoder's token that code the group.
        embed_dim: channels of a token in the encoder.
        depth: blocks of the encoder.
        num_heads: attention heads of the encoder.
        decoder_channel_embed: channels of a decoder's token that code the group.
        decoder_embed_dim: channels of a token in the decoder.
        decoder_depth: blocks of the decoder.
        decoder_num_heads: attention heads of the decoder.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        norm_pix_loss: compare with patches scaled to mean 0 and deviation 1 over all bands.
        proj_ratio: hidden channels of the enlargement, as a multiple of the bands.
        scales: how many times the reconstruction is enlarged by two.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 96,
        patch_size: int = 8,
        in_chans: int = 10,
        spatial_mask: bool = False,
        channel_groups: Groups = SENTINEL_GROUPS,
        channel_embed: int = 256,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        decoder_channel_embed: int = 128,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_pix_loss: bool = False,
        proj_ratio: int = 4,
        scales: int = 2,
    ) -> None:
        arguments = _json(locals())
        trunk = Trunk(
            in_chans, img_size, patch_size, channel_groups, embed_dim, channel_embed, depth, num_heads, mlp_ratio
        )
        super().__init__(
            trunk, decoder_embed_dim, decoder_channel_embed, decoder_depth, decoder_num_heads, mlp_ratio, norm_pix_loss,
            proj_ratio, scales, spatial_mask,
        )  # fmt: skip
        self.arguments = arguments

    def _predict(self, tokens: Tensor) -> Tensor:
        groups = tokens.unflatten(1, (len(self.predictions), -1)).unbind(1)
        bands = [
            head(group).unflatten(2, (-1, self.trunk.patch_size**2)).transpose(1, 2)
            for head, group in zip(self.predictions, groups, strict=True)
        ]
        return torch.cat(bands, 1)

    def to_images(self, prediction: Tensor) -> Tensor:
        """Predicted patches as images `(B, C, H, W)`."""
        (rows, columns), side = self.trunk.grid, self.trunk.patch_size
        patches = prediction.unflatten(3, (side, side)).unflatten(2, (rows, columns))
        return patches.transpose(3, 4).flatten(4).flatten(2, 3)

    def _reconstruction_loss(self, images: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
        target = _patches(images, self.trunk.patch_size).flatten(4).flatten(2, 3)  # (B, C, L, p * p)
        if self.norm_pix_loss:
            joined = target.transpose(1, 2).flatten(2)
            target = _standardise(joined).unflatten(2, target.shape[1::2]).transpose(1, 2)
        errors = (prediction - target).square().mean(-1)
        groups = self.trunk.groups or ()
        total = sum((errors[:, list(group)].mean(1) * mask[:, i]).sum() for i, group in enumerate(groups))
        return total / mask.sum()


class _Classifier(Classifier):
    """What both vision transformers share: pooling, head and the pyramid of one resolution."""

    feature_indices = (-3, -2, -1)

    def __init__(self, trunk: Trunk, num_classes: int, global_pool: bool | str) -> None:
        super().__init__()
        if global_pool not in {True, False, "avg", "token"}:
            raise ValueError(f"global_pool is {global_pool!r}, expected True or 'avg', False or 'token'")
        self.trunk, self.num_classes = trunk, num_classes
        self.global_pool = global_pool in {True, "avg"}
        self.num_features = self.head_hidden_size = trunk.dim
        self.norm = nn.LayerNorm(trunk.dim, _EPS)
        self.head = linear_classifier(trunk.dim, num_classes)
        self.feature_info = [
            {"num_chs": trunk.dim, "reduction": trunk.patch_size, "module": f"trunk.blocks.{i}"}
            for i in range(len(trunk.blocks))
        ]
        self.arguments: dict[str, Any] = {}
        _initialise_classifier(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens of the last block, class token first, `(B, 1 + G * L, D)`; normed where it is the feature."""
        tokens = self.trunk.attend(self._tokens(x))[0]
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
    ) -> Any:
        """Maps `(B, D, H / p, W / p)` after the blocks `indices`, groups averaged; alone or after the last tokens.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, len(self.trunk.blocks), output_fmt)
        stop = max(wanted) + 1 if stop_early or intermediates_only else None
        tokens, levels = self.trunk.attend(self._tokens(x), wanted, stop)
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

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each block instead of keeping them."""
        self.trunk.grad_checkpointing = enable

    def load_autoencoder(self, source: "str | Path | Mapping[str, Any] | _Autoencoder") -> None:
        """Start fine-tuning from a pre-trained encoder: the trunk's weights are taken, the head is drawn anew.

        Positions are resampled where the image sizes differ, which the released code announces but never does.

        Args:
            source: an autoencoder of the same bands, patch and width, or official weights of one.

        Raises:
            InputError: the weights are no such autoencoder's, or of other bands, patch or width.
        """
        grouped = self.trunk.groups is not None
        state: Any = source
        if isinstance(source, _Autoencoder):
            state = {f"trunk.{name}": value for name, value in source.trunk.state_dict().items()}
            names = {name: f"trunk.{name}" for name in self.trunk.state_dict()}
        else:
            names = {name: _official_name(f"trunk.{name}", grouped) for name in self.trunk.state_dict()}
        convert = {"positions": functools.partial(fit_positions, grid=self.trunk.grid)}
        weights.load_foreign(self.trunk, state, names, _DECODER_ENTRIES, convert=convert)
        self._draw_head()

    def _draw_head(self) -> None:
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=2e-5)
            nn.init.zeros_(self.head.bias)

    def _tokens(self, x: Tensor) -> Tensor:
        first = (self.trunk.class_token + self._class_code()).expand(len(x), -1, -1)
        return torch.cat([first, self.trunk.embed(x)], 1)

    def _class_code(self) -> Tensor:
        return self.trunk.positions[:, :1]


class VisionTransformer(_Classifier):
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
        arguments = _json(locals())
        trunk = Trunk(
            in_chans, img_size, patch_size, None, embed_dim, 0, depth, num_heads, mlp_ratio, drop_path_rate, True
        )
        super().__init__(trunk, num_classes, global_pool)
        nn.init.trunc_normal_(self.trunk.positions, std=0.02)
        self.arguments = arguments


class GroupVisionTransformer(_Classifier):
    """The group-channel vision transformer that fine-tunes a `GroupMaskedAutoencoder`'s encoder.

    Its class token has the zero row of the positions and a learnt code in place of a group's, zero at first.

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
        arguments = _json(locals())
        trunk = Trunk(
            in_chans, img_size, patch_size, channel_groups, embed_dim, channel_embed, depth, num_heads, mlp_ratio,
            drop_path_rate, True,
        )  # fmt: skip
        super().__init__(trunk, num_classes, global_pool)
        self.class_code = nn.Parameter(torch.zeros(1, 1, channel_embed))
        self.arguments = arguments

    def _class_code(self) -> Tensor:
        return torch.cat([self.trunk.positions[:, :1], self.class_code], 2)


_BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12}
_LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_FACTORIES = {
    "mae_vit_base_patch16": _BASE,
    "mae_vit_large_patch16": _LARGE,
    "vit_base_patch16": _BASE,
    "vit_large_patch16": _LARGE,
}
"""What the released factories fix; the patch size is an argument in spite of their names."""
VARIANTS = {
    "satmae_pp_vit_base": functools.partial(VisionTransformer, **_BASE),
    "satmae_pp_vit_large": functools.partial(VisionTransformer, **_LARGE),
    "satmae_pp_group_vit_base": functools.partial(GroupVisionTransformer, **_BASE),
    "satmae_pp_group_vit_large": functools.partial(GroupVisionTransformer, **_LARGE),
}
# fMoW-RGB's statistics; Sentinel-2 bands are scaled to [0, 1] one by one, and nothing more
_RGB = {"mean": (0.4182007, 0.4214799, 0.3991276), "std": (0.2877428, 0.2754177, 0.2764018)}
_SENTINEL = {"input_size": (10, 96, 96), "mean": (0.0,) * 10, "std": (1.0,) * 10}
TIMM_CONFIGS = {name: _SENTINEL if "group" in name else _RGB for name in VARIANTS}
ARCHITECTURES: dict[str, Any] = {
    "satmae_pp_mae_rgb": MaskedAutoencoder,
    "satmae_pp_mae_group": GroupMaskedAutoencoder,
    "satmae_pp_vit_rgb": VisionTransformer,
    "satmae_pp_vit_group": GroupVisionTransformer,
}


def from_official(
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    architecture: str,
    variant: str | None = None,
    qkv_bias: bool = True,
    **arguments: Any,
) -> nn.Module:
    """Build one of the four networks with weights of the released code (techmn/satmae_pp).

    Positions of a vision transformer that was trained at another square image size are resampled.

    Args:
        path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
        architecture: `satmae_pp_mae_rgb`, `satmae_pp_mae_group`, `satmae_pp_vit_rgb` or `satmae_pp_vit_group`.
        variant: a released factory: `mae_vit_base_patch16`, `mae_vit_large_patch16`, `vit_base_patch16` or
            `vit_large_patch16`.
        qkv_bias: True, as in all released models.
        arguments: of the network's class.

    Raises:
        ValueError: the variant is unknown, or an argument does not suit.
        InputError: the entries are not those of the released code, or do not fit.
    """
    prefix = "mae_" if architecture.startswith("satmae_pp_mae") else "vit_"
    known = [name for name in _FACTORIES if name.startswith(prefix)]
    if variant is not None and variant not in known:
        raise ValueError(f"variant {variant!r} is unknown; known: {', '.join(known)}")
    if not qkv_bias:
        raise ValueError("qkv_bias is False, expected True: all released models have these biases")
    model = ARCHITECTURES[architecture](**{**(_FACTORIES[variant] if variant else {}), **arguments})
    grouped, pooled = model.trunk.groups is not None, getattr(model, "global_pool", False)
    names = {name: _official_name(name, grouped, pooled) for name in model.state_dict()}
    if prefix == "mae_":
        optional, convert = [r"(decoder_)?(pos|channel)_embed$"], {}
    else:
        optional, convert = [], {"trunk.positions": functools.partial(fit_positions, grid=model.trunk.grid)}
    weights.load_foreign(model, path_or_state_dict, names, optional=optional, convert=convert)
    return model.eval()


_DECODER_ENTRIES = (r"decoder_", r"mask_token$", r"norm\.", r"proj_up_", r"up_block", r"(fc_norm|head)\.")
_OFFICIAL_NAMES = (
    (r"^trunk\.class_token", "cls_token"),
    (r"^trunk\.positions", "pos_embed"),
    (r"^trunk\.channels", "channel_embed"),
    (r"^class_code", "channel_cls_embed"),
    (r"^decoder_positions", "decoder_pos_embed"),
    (r"^decoder_channels", "decoder_channel_embed"),
    (r"^decoder_embedding", "decoder_embed"),
    (r"^trunk\.", ""),
    (r"\.attention\.projection", ".attn.proj"),
    (r"\.attention\.", ".attn."),
    (r"^multiscale\.projection", "proj_up_conv"),
    (r"^multiscale\.norm", "proj_up_norm"),
    (r"^(multiscale\.blocks\.\d+)\.up\.", r"\1.up_conv."),
    (r"^(multiscale\.blocks\.\d+)\.norm", r"\1.res_norm"),
    (r"^(multiscale\.blocks\.\d+)\.conv", r"\1.res_block.conv"),
    (r"^(multiscale\.blocks\.\d+)\.output", r"\1.proj_out"),
)


def _official_name(name: str, grouped: bool, pooled: bool = False) -> str:
    name = weights.renamed(name, _OFFICIAL_NAMES)
    number = r"\1" if grouped else ""
    name = re.sub(r"^patch_embeddings(\.\d+)", rf"patch_embed{number}.proj", name)
    name = re.sub(r"^predictions(\.\d+)", f"decoder_pred{number}", name)
    if pooled:
        name = re.sub(r"^norm\.", "fc_norm.", name)
    match = re.match(r"multiscale\.blocks\.(\d+)", name)
    if match:  # the plain model has one block, and its name no number
        name = f"up_block{int(match[1]) + 1 if grouped else ''}{name[match.end() :]}"
    return name


def _patches(images: Tensor, side: int) -> Tensor:
    """Cut images into patches: `(B, C, H, W)` to `(B, C, rows, columns, side, side)`."""
    return images.unflatten(3, (-1, side)).unflatten(2, (-1, side)).transpose(3, 4)


def _standardise(target: Tensor) -> Tensor:
    mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
    return (target - mean) / (variance + 1e-6).sqrt()


def _json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A constructor's arguments in JSON types."""

    def plain(value: Any) -> Any:
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return {name: plain(value) for name, value in arguments.items() if name not in {"self", "__class__"}}


def _initialise_autoencoder(model: _Autoencoder) -> None:
    """Xavier for linear layers and patch embeddings, small normal for tokens; the enlargement keeps its own."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d) and name.startswith("trunk.patch_embeddings"):
            nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
    nn.init.normal_(model.trunk.class_token, std=0.02)
    nn.init.normal_(model.mask_token, std=0.02)


def _initialise_classifier(model: _Classifier) -> None:
    """Truncated normal for linear layers and the class token."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.trunk.class_token, std=0.02)
