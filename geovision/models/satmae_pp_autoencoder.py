"""What the masked autoencoders of SatMAE++ share: masking, encoder, decoder, and the multi-scale loss."""

from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geovision.models.multiscale import MultiScaleHead
from geovision.models.satmae_pp_names import factory_arguments, official_name
from geovision.models.satmae_pp_trunk import (
    EPS,
    Trunk,
    combine,
    position_table,
)
from shared_backbones import official
from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.embeddings import sine_cosine
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import TransformerBlock
from shared_backbones.json_values import Json

RECONSTRUCTION_WEIGHT, MULTISCALE_WEIGHT = 0.6, 0.4


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


class Autoencoder(nn.Module):
    """What both autoencoders share: masking, encoder, decoder blocks, and the multi-scale loss."""

    role: ClassVar[Role] = "autoencoder"

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
        self.arguments: Arguments = {}
        self.norm = nn.LayerNorm(trunk.dim, EPS)
        self.decoder_embedding = nn.Linear(trunk.dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        grouped = trunk.groups is not None
        code = decoder_channel_embed if grouped else 0
        self.decoder_positions: Tensor
        self.decoder_channels: Tensor
        self.register_buffer("decoder_positions", position_table(trunk.grid, decoder_embed_dim - code))
        if grouped:  # the last row is the class token's
            rows = torch.arange(len(trunk.patch_embeddings) + 1, device="cpu")
            self.register_buffer("decoder_channels", sine_cosine(rows, code)[None])
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(decoder_embed_dim, decoder_num_heads, mlp_ratio, eps=EPS) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim, EPS)
        self.predictions = nn.ModuleList(
            nn.Linear(decoder_embed_dim, size * trunk.patch_size**2) for size in trunk.sizes
        )
        self.multiscale = MultiScaleHead(trunk.in_chans, proj_ratio, scales)
        _initialise_autoencoder(self)

    @classmethod
    def from_official(
        cls,
        path_or_state_dict: official.Source,
        *,
        variant: str | None = None,
        qkv_bias: bool = True,
        **arguments: Any,
    ) -> Self:
        """Build an autoencoder with pretrained weights of the released code (techmn/satmae_pp).

        Args:
            path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
            variant: a released factory, `mae_vit_base_patch16` or `mae_vit_large_patch16`.
            qkv_bias: True, as in all released models.
            arguments: arguments of the autoencoder's class.

        Raises:
            ValueError: the variant is unknown, or an argument does not suit.
            InputError: the entries are not those of the released code, or do not fit.
        """
        model = cls(**{**factory_arguments("mae_", variant, qkv_bias), **arguments})
        names = {name: official_name(name, model.trunk.groups is not None) for name in model.state_dict()}
        computed = [r"(decoder_)?(pos|channel)_embed$"]
        official.load_foreign(model, path_or_state_dict, names, optional=computed)
        return model.eval()

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
            for image, target in zip(enlarged, upscaled_targets, strict=True):
                if image.shape != target.shape:
                    raise ValueError(f"upscaled target of shape {tuple(target.shape)}: expected {tuple(image.shape)}")
                multiscale = multiscale + F.l1_loss(image, target) / len(enlarged)
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

    def official_input(self) -> dict[str, Json] | None:
        """The `input` of a card: what the released code feeds the network, or None where the bands are not its own."""
        return self.trunk.official_input()

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


def _initialise_autoencoder(model: Autoencoder) -> None:
    """Xavier for linear layers and patch embeddings, small normal for tokens; the enlargement keeps its own."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d) and name.startswith("trunk.patch_embeddings"):
            nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
    nn.init.normal_(model.trunk.class_token, std=0.02)
    nn.init.normal_(model.mask_token, std=0.02)
