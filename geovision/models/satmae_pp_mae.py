"""The masked autoencoders of SatMAE++: plain, and with groups of bands."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geovision.models.satmae_pp_autoencoder import Autoencoder
from geovision.models.satmae_pp_trunk import (
    SENTINEL_GROUPS,
    Groups,
    Trunk,
    json_arguments,
)


class MaskedAutoencoder(Autoencoder):
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
        arguments = json_arguments(locals())
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


class GroupMaskedAutoencoder(Autoencoder):
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
        arguments = json_arguments(locals())
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


def _patches(images: Tensor, side: int) -> Tensor:
    """Cut images into patches: `(B, C, H, W)` to `(B, C, rows, columns, side, side)`."""
    return images.unflatten(3, (-1, side)).unflatten(2, (-1, side)).transpose(3, 4)


def _standardise(target: Tensor) -> Tensor:
    mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
    return (target - mean) / (variance + 1e-6).sqrt()
