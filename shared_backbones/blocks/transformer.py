"""The plain transformer: feed-forward, stochastic depth and the pre-norm block."""

import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.blocks.attention import SelfAttention


class Mlp(nn.Module):
    """Two linear layers with exact (erf) GELU between, over the last axis.

    Args:
        dim: channels C in and out.
        hidden: channels between.
        dropout: share of values dropped after the GELU and after the second layer, while training.
    """

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., C)` to `(..., C)`."""
        x = F.dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return F.dropout(self.fc2(x), self.dropout, self.training)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): while training, drop a residual branch for whole samples.

    Args:
        rate: the share of samples dropped, in [0, 1]; the others are scaled so that the mean stays.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, ...)` to the same shape."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0], *[1] * (x.ndim - 1))).bernoulli_(keep)
        return x * (mask / keep if keep else mask)

    def extra_repr(self) -> str:
        """The rate."""
        return f"{self.rate:g}"


class TransformerBlock(nn.Module):
    """Pre-norm block of a vision transformer (arXiv 2010.11929): `x + Attn(LN(x))`, then `x + MLP(LN(x))`.

    Args:
        dim: channels C, a multiple of `num_heads`.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the feed-forward, as a multiple of C.
        eps: constant added to the variance in the layer norms.
        qkv_bias: whether queries, keys and values have a bias.
        attention_dropout: share of attention weights dropped while training.
        projection_dropout: share of values dropped after the attention's projection.
        mlp_dropout: dropout of the feed-forward.
        drop_path: stochastic depth of both branches.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        *,
        eps: float = 1e-6,
        qkv_bias: bool = True,
        attention_dropout: float = 0.0,
        projection_dropout: float = 0.0,
        mlp_dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attention = SelfAttention(
            dim, num_heads, qkv_bias=qkv_bias, attention_dropout=attention_dropout, dropout=projection_dropout
        )
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout=mlp_dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """Map tokens `(..., N, C)` to `(..., N, C)`; with `queries`, to the first so many of them only."""
        attended = self.drop_path(self.attention(self.norm1(x), queries))
        x = (x if queries is None else x[..., :queries, :]) + attended
        return x + self.drop_path(self.mlp(self.norm2(x)))
