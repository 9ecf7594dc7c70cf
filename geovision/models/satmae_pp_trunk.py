"""What the SatMAE++ networks share: patches of images, with their places and groups of bands, through a transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geovision.contract import input_section
from geovision.sensors import find_sensor
from shared_backbones.architectures import Arguments
from shared_backbones.blocks.embeddings import sine_cosine, sine_cosine_2d
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import TransformerBlock
from shared_backbones.json_values import Document, Json

SENTINEL_GROUPS = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
"""Groups of the ten bands B2 B3 B4 B5 B6 B7 B8 B8A B11 B12: 10 m, 20 m, and short-wave infrared."""
EPS = 1e-6
Groups = Sequence[Sequence[int]]


class Trunk(nn.Module):
    """Patch embedding, positions and transformer blocks, shared by all four networks.

    Args:
        in_chans: bands C of the images.
        img_size: height and width in pixels, or one number for both; multiples of `patch_size`.
        patch_size: side p of a patch in pixels.
        groups: bands of each group; None for one embedding of all bands.
        embed_dim: channels D of a token.
        channel_embed: how many of these channels code the group.
        depth: transformer blocks.
        num_heads: attention heads; divides `embed_dim`.
        mlp_ratio: hidden channels of the feed-forward, as a multiple of D.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        trainable: whether the tables of positions and groups are learned.

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
        self.sizes = sizes
        self.patch_embeddings = nn.ModuleList(
            nn.Conv2d(size, embed_dim, patch_size, stride=patch_size) for size in sizes
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        code = 0 if groups is None else channel_embed
        if not 0 <= code < embed_dim:
            raise ValueError(f"channel_embed {code}: expected less than embed_dim {embed_dim}")
        self.positions: Tensor  # `(1, 1 + L, P)`, learned or not
        self.channels: Tensor  # `(1, G, Q)`
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
            TransformerBlock(embed_dim, num_heads, mlp_ratio, eps=EPS, drop_path=rate) for rate in rates
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

    def official_input(self) -> dict[str, Json] | None:
        """The `input` of a card: what the released code feeds the network, or None where the bands are not its own."""
        size = self.img_size[0]
        if self.groups is None and self.in_chans == 3:
            return input_section("rgb", ["red", "green", "blue"], size)
        if self.groups is not None and [list(g) for g in self.groups] == [list(g) for g in SENTINEL_GROUPS]:
            kept = [name for name in find_sensor("sentinel2_l1c").names() if name not in {"B1", "B9", "B10"}]
            return input_section("sentinel2_l1c", kept, size, normalisation="satmae")
        return None

    def fold_(self) -> None:
        """Add the tables up once and for all."""
        self.summed = self._sum()

    def _sum(self) -> Tensor:
        positions = self.positions[:, 1:]
        return positions if self.groups is None else combine(positions, self.channels)


def position_table(grid: tuple[int, int], width: int) -> Tensor:
    """Sine-cosine positions behind a row of zeros for the class token, `(1, 1 + L, width)`."""
    return torch.cat([torch.zeros(1, width), sine_cosine_2d(grid, width)])[None]


def combine(positions: Tensor, channels: Tensor) -> Tensor:
    """Codes of all tokens, group by group: `(1, L, P)` and `(1, G, Q)` to `(1, G * L, P + Q)`."""
    places, groups = positions.shape[1], channels.shape[1]
    spread = positions[:, None].expand(-1, groups, -1, -1), channels[:, :, None].expand(-1, -1, places, -1)
    return torch.cat(spread, 3).flatten(1, 2)


def json_arguments(arguments: Document) -> Arguments:
    """A constructor's arguments in JSON types."""

    def plain(value: Json) -> Json:
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return {name: plain(value) for name, value in arguments.items() if name not in {"self", "__class__"}}
