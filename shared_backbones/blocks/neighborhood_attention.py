"""Neighbourhood attention: every place of a map attends to the window around it, dilated or not, on fused attention."""

import importlib
import importlib.util
from functools import lru_cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.blocks.attention import kept_table

TILE = 8  # side of the square of queries that share a region of keys
WHOLE = 14  # up to this length of an axis, all its queries share all its keys


class NeighborhoodAttention(nn.Module):
    """Multi-head attention of each place to the K x K places around it (NAT, arXiv 2204.07143; DiNAT, 2209.15001).

    As in natten 0.17, windows are shifted inwards at borders, never cut, so that every query sees K x K keys; with
    dilation d, each axis falls into d classes of places d apart, and each class is windowed by itself. An axis with
    fewer than K places in a class is seen whole, which natten refuses.

    Queries are taken in tiles, whose windows lie in a region little larger than the tile: one masked fused attention
    over tiles computes exactly the neighbourhoods, without a loop and without a copy of every window.

    Args:
        dim: channels C, a multiple of `num_heads`.
        num_heads: attention heads.
        kernel_size: side K of the window, odd.
        dilation: distance between neighbours, in places; smaller where the map is too small for it.

    Raises:
        ValueError: an argument does not suit.
    """

    def __init__(self, dim: int, num_heads: int, kernel_size: int = 7, dilation: int = 1) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        if kernel_size % 2 == 0 or kernel_size < 3:
            raise ValueError(f"kernel_size is {kernel_size}, expected an odd number from 3")
        if dilation < 1:
            raise ValueError(f"dilation is {dilation}, expected 1 or more")
        self.num_heads, self.kernel_size, self.dilation = num_heads, kernel_size, dilation
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        side = 2 * kernel_size - 1
        self.bias_table = nn.Parameter(torch.empty(num_heads, side, side))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.bias_cache: dict[tuple, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Attend: `(B, H, W, C)` to `(B, H, W, C)`."""
        height, width = x.shape[1:3]
        dilation = max(1, min(self.dilation, min(height, width) // self.kernel_size))
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(3)  # (B, H, W, heads, d)
        natten = _natten() if self._suits_natten(x, dilation) else None
        if natten is not None:
            scale = query.shape[-1] ** -0.5
            x = natten.na2d(
                query, key, value, kernel_size=self.kernel_size, dilation=dilation, rpb=self.bias_table, scale=scale
            )
            return self.projection(x.flatten(3))

        rows, columns = (_tiling(size, self.kernel_size, dilation) for size in (height, width))
        query = _to_classes(query, rows, columns, dilation)  # (B, classes, heads, h, w, d)
        key, value = (_to_classes(part, rows, columns, dilation) for part in (key, value))
        query = _tiles(query, rows, columns)
        key, value = (_regions(part, rows, columns, x.device) for part in (key, value))
        mask = self._mask(rows, columns, dilation, query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = _from_tiles(attended, rows, columns, dilation, self.num_heads)[:, :height, :width]
        return self.projection(x)

    def fold_(self) -> None:
        """Keep the gathered bias and mask of each map size met from now on."""
        self.bias_cache = {}

    def _mask(self, rows: "Tiling", columns: "Tiling", dilation: int, dtype: torch.dtype) -> Tensor:
        """Additive scores `(1, classes * heads * tiles, queries, keys)`."""
        table = self.bias_table
        key = (rows, columns, dilation, dtype, table.device)
        cache = None if torch.compiler.is_compiling() else self.bias_cache  # a traced tensor ends with its graph
        if cache is not None and key in cache:
            return cache[key]
        side = 2 * self.kernel_size - 1
        offset, inside = _pairs(rows, self.kernel_size, dilation, table.device)
        offset2, inside2 = _pairs(columns, self.kernel_size, dilation, table.device)
        # Axes: row class, column class, row tile, column tile, row and column of query, row and column of key.
        index = (offset * side)[:, None, :, None, :, None, :, None] + offset2[None, :, None, :, None, :, None, :]
        allowed = inside[:, None, :, None, :, None, :, None] & inside2[None, :, None, :, None, :, None, :]
        bias = table.flatten(1)[:, index].masked_fill(~allowed, float("-inf"))
        # (heads, classes x2, tiles x2, queries x2, keys x2) to (1, classes * heads * tiles, queries, keys)
        mask = bias.flatten(7).flatten(5, 6).flatten(3, 4).flatten(1, 2).transpose(0, 1).flatten(0, 2)[None].to(dtype)
        if cache is not None:
            if len(cache) >= 8:  # a long-lived process may meet many sizes
                cache.clear()
            cache[key] = mask.contiguous()
        return mask

    def _suits_natten(self, x: Tensor, dilation: int) -> bool:
        """Whether natten's fused kernels apply: on a GPU, without gradients (the bias has none), not too small."""
        enough = min(x.shape[1:3]) >= self.kernel_size * dilation
        return x.is_cuda and enough and not torch.is_grad_enabled()


Tiling = tuple[int, int, int, int]
"""Length of an axis, length of a class, queries per tile, and keys per tile."""


def _tiling(length: int, kernel: int, dilation: int) -> Tiling:
    long = -(-length // dilation)
    tile = long if long <= WHOLE else TILE
    return length, long, tile, min(long, tile + kernel - 1)


@lru_cache(maxsize=1)
def _natten() -> ModuleType | None:
    """Functions of natten, where a version with relative bias is installed: 0.17; later ones have dropped it."""
    if importlib.util.find_spec("natten") is None:
        return None
    natten = importlib.import_module("natten")
    return natten.functional if natten.__version__.startswith("0.17") else None


@kept_table
def _starts(tiling: Tiling, kernel: int, device: torch.device) -> Tensor:
    """Keys of each tile of an axis, `(tiles, keys)`."""
    _, long, tile, keys = tiling
    first = torch.arange(0, long, tile, device=device) - kernel // 2
    return first.clamp(0, long - keys)[:, None] + torch.arange(keys, device=device)


def _pairs(tiling: Tiling, kernel: int, dilation: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For an axis: row of the bias table of every pair, and whether the key is in the query's window.

    Both `(classes, tiles, queries, keys)`. Queries beyond the end of a class repeat its last one.
    """
    length, long, tile, _ = tiling
    count = torch.tensor([-(-(length - c) // dilation) for c in range(dilation)], device=device)[:, None, None, None]
    query = torch.arange(-(-long // tile) * tile, device=device).view(1, -1, tile, 1)
    query = torch.minimum(query, count - 1)
    key = _starts(tiling, kernel, device)[None, :, None, :]
    start = torch.minimum((query - kernel // 2).clamp(min=0), (count - kernel).clamp(min=0))
    inside = (key >= start) & (key < start + kernel) & (key < count)
    return (key - query + kernel - 1).clamp(0, 2 * kernel - 2), inside


def _to_classes(x: Tensor, rows: Tiling, columns: Tiling, dilation: int) -> Tensor:
    """Part a map by class: `(B, H, W, heads, d)` to `(B, classes, heads, h, w, d)`."""
    below, right = rows[1] * dilation - x.shape[1], columns[1] * dilation - x.shape[2]
    if below or right:
        x = F.pad(x, (0, 0, 0, 0, 0, right, 0, below))
    x = x.unflatten(2, (-1, dilation)).unflatten(1, (-1, dilation))  # (B, h, class, w, class, heads, d)
    return x.permute(0, 2, 4, 5, 1, 3, 6).flatten(1, 2)


def _tiles(x: Tensor, rows: Tiling, columns: Tiling) -> Tensor:
    """Queries by tile: `(B, classes, heads, h, w, d)` to `(B, classes * heads * tiles, queries, d)`."""
    below, right = -x.shape[3] % rows[2], -x.shape[4] % columns[2]
    if below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    x = x.unflatten(4, (-1, columns[2])).unflatten(3, (-1, rows[2]))  # (B, classes, heads, tiles, q, tiles, q, d)
    return x.transpose(4, 5).flatten(5, 6).flatten(1, 4)


def _regions(x: Tensor, rows: Tiling, columns: Tiling, device: torch.device) -> Tensor:
    """Keys or values by tile: `(B, classes, heads, h, w, d)` to `(B, classes * heads * tiles, keys, d)`."""
    if rows[2] < rows[1]:
        index = _starts(rows, rows[3] - rows[2] + 1, device)
        x = x.index_select(3, index.flatten()).unflatten(3, index.shape)
    else:
        x = x[:, :, :, None]
    if columns[2] < columns[1]:
        index = _starts(columns, columns[3] - columns[2] + 1, device)
        x = x.index_select(5, index.flatten()).unflatten(5, index.shape)
    else:
        x = x[:, :, :, :, :, None]
    return x.transpose(4, 5).flatten(5, 6).flatten(1, 4)  # tiles before keys


def _from_tiles(x: Tensor, rows: Tiling, columns: Tiling, dilation: int, heads: int) -> Tensor:
    """Results back on the map, `(B, h * dilation, w * dilation, C)`, padding included."""
    tiles = -(-rows[1] // rows[2]), -(-columns[1] // columns[2])
    x = x.unflatten(2, (rows[2], columns[2])).unflatten(1, (dilation, dilation, heads, *tiles))
    # (B, class, class, heads, tile, tile, q, q, d) to (B, tile, q, class, tile, q, class, heads, d)
    x = x.permute(0, 4, 6, 1, 5, 7, 2, 3, 8).flatten(7)
    x = x.flatten(4, 5).flatten(1, 2)  # (B, h padded, class, w padded, class, C)
    return x[:, : rows[1], :, : columns[1]].flatten(3, 4).flatten(1, 2)
