"""Multi-head self-attention: over all tokens, and over windows of a 2-D map with learned relative position bias."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.blocks.attention_dropout import attend

P = ParamSpec("P")

SHIFT_MASK_VALUE = -100.0  # what Swin adds, not -inf: scores of foreign tokens stay finite


class SelfAttention(nn.Module):
    """Multi-head self-attention among all tokens (arXiv 1706.03762), in fused form.

    Args:
        dim: channels C, a multiple of `num_heads`; the outputs of `qkv` are ordered (3, heads, C / heads).
        num_heads: attention heads.
        qkv_bias: whether queries, keys and values have a bias; the output projection always has.
        attention_dropout: share of attention weights dropped while training.
        dropout: share of values dropped after the projection while training.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.projection: nn.Module = nn.Linear(dim, dim)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """Attend: tokens `(..., N, C)` to `(..., N, C)`; leading axes are batch.

        With `queries`, only the first so many tokens attend (to all), and only theirs are returned.
        """
        if queries is None:
            qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(-2, -4)  # (..., heads, 3, N, C / heads)
            query, key, value = qkv.unbind(-3)
        else:
            channels = x.shape[-1]
            bias = self.qkv.bias
            first = F.linear(x[..., :queries, :], self.qkv.weight[:channels], None if bias is None else bias[:channels])
            query = first.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)
            rest = F.linear(x, self.qkv.weight[channels:], None if bias is None else bias[channels:])
            key, value = rest.unflatten(-1, (2, self.num_heads, -1)).transpose(-2, -4).unbind(-3)
        rate = self.attention_dropout if self.training else 0.0
        x = attend(query, key, value, rate)
        return F.dropout(self.projection(x.transpose(-2, -3).flatten(-2)), self.dropout, self.training)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside (shifted) windows of a map (Swin Transformer, arXiv 2103.14030, section 3.2).

    Maps of every size are accepted. One that the window does not tile is padded with zero tokens at the bottom and
    right, after the shift; they take part in attention as in the reference implementations. On an axis no longer than
    the window, the window shrinks to that axis, is not shifted, and uses the matching offsets of the bias table.

    Args:
        dim: channels C of the map; a multiple of `num_heads`.
        num_heads: attention heads, each a run of C / num_heads channels.
        window_size: window height and width in tokens; fixes the size of the bias table.
        shifted: move the windows by half a window, as every second block of a Swin stage does.
        shrinks: whether the window shrinks to a short axis; else the axis is padded, and shifted if it fits exactly.
    """

    def __init__(
        self, dim: int, num_heads: int, window_size: tuple[int, int], *, shifted: bool = False, shrinks: bool = True
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.window_size = window_size
        self.shifted, self.shrinks = shifted, shrinks
        self.bias_cache: dict[tuple, Tensor] | None = None
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.zeros((2 * window_size[0] - 1) * (2 * window_size[1] - 1), num_heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows: `(B, H, W, C)` to `(B, H, W, C)`."""
        batch, height, width, _ = x.shape
        window = self.window_size
        shift = (window[0] // 2, window[1] // 2) if self.shifted else (0, 0)
        if self.shrinks:
            window = min(window[0], height), min(window[1], width)
            shift = shift[0] if height > window[0] else 0, shift[1] if width > window[1] else 0
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        below, right = -height % window[0], -width % window[1]
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        padded = x.shape[1], x.shape[2]

        qkv = self.qkv(window_partition(x, window))  # (B, windows, tokens, 3C)
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        # Windows join the axis along which the bias repeats, so that it broadcasts and is never copied per sample.
        query, key, value = qkv.flatten(2, 3) if any(shift) else qkv.flatten(1, 2)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=self._bias(padded, window, shift))
        x = x.view(batch, -1, self.num_heads, *x.shape[2:]).transpose(2, 3).flatten(3)
        x = window_reverse(self.projection(x), window, padded)

        if below or right:
            x = x[:, :height, :width]
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x

    def fold_(self) -> None:
        """Keep the gathered bias (and shift mask) of each map size met from now on."""
        self.bias_cache = {}

    def _bias(self, padded: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
        """Additive scores: `(1, heads, N, N)` unshifted, `(1, windows * heads, N, N)` shifted."""
        table = self.bias_table
        key = (padded if any(shift) else (), window, table.dtype, table.device)
        cache = None if torch.compiler.is_compiling() else self.bias_cache  # a traced tensor ends with its graph
        kept = cache.get(key) if cache is not None else None
        if kept is not None:
            return kept
        index = relative_position_index(window, self.window_size, table.device)
        tokens = window[0] * window[1]
        bias = table[index].view(tokens, tokens, -1).permute(2, 0, 1)[None]
        if any(shift):
            bias = (bias + shift_mask(padded, window, shift, table.dtype, table.device)[:, None]).flatten(0, 1)[None]
        if cache is not None:
            if len(cache) >= 8:  # a long-lived process may meet many sizes
                cache.clear()
            cache[key] = bias.contiguous()
        return bias


class RelativeAttention(nn.Module):
    """Multi-head self-attention over a whole map, with a learned bias for every offset (CoAtNet, arXiv 2106.04803).

    Args:
        dim: channels of the tokens.
        dim_out: channels of the result, a multiple of `num_heads`.
        num_heads: attention heads.
        size: height and width of the map in tokens, which fix the size of the bias table.
    """

    def __init__(self, dim: int, dim_out: int, num_heads: int, size: tuple[int, int]) -> None:
        super().__init__()
        if dim_out % num_heads:
            raise ValueError(f"dim_out {dim_out} is not a multiple of num_heads {num_heads}")
        self.num_heads, self.size = num_heads, size
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.projection = nn.Linear(dim_out, dim_out)
        self.bias_table = nn.Parameter(torch.zeros((2 * size[0] - 1) * (2 * size[1] - 1), num_heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.bias: Tensor | None  # gathered from the table, in the inference form
        self.register_buffer("bias", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among all tokens: `(B, N, dim)` to `(B, N, dim_out)`, N = H W in raster order."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3).unbind(2)
        bias = self._gather() if self.bias is None else self.bias
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self.projection(x.transpose(1, 2).flatten(2))

    def fold_(self) -> None:
        """Gather the bias once and for all."""
        self.bias = self._gather()

    def _gather(self) -> Tensor:
        """Additive scores `(1, heads, N, N)`."""
        tokens = self.size[0] * self.size[1]
        index = relative_position_index(self.size, self.size, self.bias_table.device)
        return self.bias_table[index].view(tokens, tokens, -1).permute(2, 0, 1)[None].contiguous()


def resample_bias_table(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Bias table for another map size: bicubic over the plane of offsets, head by head.

    Args:
        table: `((2 h - 1) (2 w - 1), heads)` for a map of `source` (h, w) tokens.
        source: map size it was made for.
        target: map size wanted.
    """
    if source == target:
        return table
    plane = table.T.unflatten(1, (2 * source[0] - 1, 2 * source[1] - 1))[None]
    plane = F.interpolate(plane, (2 * target[0] - 1, 2 * target[1] - 1), mode="bicubic", align_corners=False)
    return plane[0].flatten(1).T.contiguous()


def window_partition(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut a map into windows, row-major: `(B, H, W, C)` to `(B, windows, tokens, C)`; the window must tile it."""
    x = x.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def window_reverse(windows: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Put windows back into a map of `size` (H, W): `(B, windows, tokens, C)` to `(B, H, W, C)`."""
    grid = size[0] // window[0], size[1] // window[1]
    x = windows.unflatten(2, window).unflatten(1, grid)
    return x.transpose(2, 3).reshape(windows.shape[0], *size, windows.shape[-1])


def kept_table(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep the constant tensors a function makes, by its arguments; not while a graph is traced, whose tensors end."""
    kept = lru_cache(maxsize=64)(torch.inference_mode(False)(function))  # what is kept must serve training too

    @wraps(function)
    def table(*arguments: P.args, **named: P.kwargs) -> Tensor:
        return function(*arguments, **named) if torch.compiler.is_compiling() else kept(*arguments, **named)

    return table


@kept_table
def relative_position_index(window: tuple[int, int], table: tuple[int, int], device: torch.device) -> Tensor:
    """Row of the bias table for every (query, key) pair of a window, flattened to `(tokens * tokens,)` int64.

    Args:
        window: the window in use, at most `table` along each axis.
        table: the window the table was made for; its rows are the offsets (2 h - 1) x (2 w - 1), row-major.
        device: where the index is needed.
    """
    rows, columns = (torch.arange(length, device=device) for length in window)
    row = (rows[:, None] - rows + table[0] - 1)[:, None, :, None]
    column = (columns[:, None] - columns + table[1] - 1)[None, :, None, :]
    return (row * (2 * table[1] - 1) + column).flatten()


@kept_table
def shift_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Scores that part the tokens which the cyclic shift made neighbours: 0 or -100, `(windows, tokens, tokens)`.

    Args:
        size: padded height and width of the map.
        window: window height and width.
        shift: shift along each axis; 0 leaves that axis whole.
        dtype: floating type of the scores.
        device: where they are needed.
    """
    bands = []
    for length, extent, offset in zip(size, window, shift, strict=True):
        position = torch.arange(length, device=device)
        moved = (position >= length - extent).int() + (position >= length - offset).int()
        bands.append(moved if offset else torch.zeros_like(moved))
    label = bands[0][:, None] * 3 + bands[1]
    label = window_partition(label[None, ..., None], window)[0, ..., 0]
    return (label[:, :, None] != label[:, None, :]).to(dtype) * SHIFT_MASK_VALUE
