"""Kolmogorov-Arnold layers with the reflectional-switch basis (FasterKAN), as MedViTV2 uses them."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

GRID = (-2.0, 2.0, 8)  # first and last centre of the basis, and their number
DENOMINATOR = 0.33  # width of a bump; not the spacing of the centres


class KanLayer(nn.Module):
    """Layer norm, then a linear map of sech² bumps of every input: `y = W vec(1 - tanh²((LN(x) - g) / 0.33))`.

    There is no bias and no other branch.

    Args:
        in_features: width I of the input.
        out_features: width O of the output.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        low, high, count = GRID
        self.norm = nn.LayerNorm(in_features)
        self.register_buffer("grid", torch.linspace(low, high, count))
        self.linear = nn.Linear(in_features * count, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., I)` to `(..., O)`; in float32 under autocast, since narrow bumps amplify rounding."""
        device = x.device.type
        if device != "meta" and torch.is_autocast_enabled(device):  # nothing is computed on the meta device
            with torch.autocast(device, enabled=False):
                return self(x.float())
        # sech²(u) = 4 s (1 - s) with s = sigmoid(2u): one exponential instead of a tanh, and it cannot overflow.
        s = torch.sigmoid((self.norm(x)[..., None] - self.grid) * (2 / DENOMINATOR))
        return 4 * self.linear(torch.addcmul(s, s, s, value=-1).flatten(-2))


class Kan(nn.Sequential):
    """KAN layers of the given widths, one after another."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(*(KanLayer(*pair) for pair in pairwise(widths)))
