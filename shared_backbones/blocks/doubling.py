"""Maps and volumes at twice their resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared_backbones.inference import is_plain_inference

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


def doubled(x: Tensor) -> Tensor:
    """Values between neighbours, linearly, at twice the resolution: `(B, C, ...)` to `(B, C, 2 ...)`.

    As `torch.nn.functional.interpolate` with `scale_factor=2`, to rounding. For inference in float32 on the CPU axis
    after axis is doubled, which takes a ninth of the time for volumes (torch 2.14).
    """
    if not is_plain_inference(x):
        return F.interpolate(x, scale_factor=2, mode=_LINEAR[x.ndim])
    for axis in range(x.ndim - 1, 1, -1):
        count = x.shape[axis]
        out = x.new_empty([*x.shape[: axis + 1], 2, *x.shape[axis + 1 :]])
        # a new value lies a quarter of the way to the next old one on its side; beyond the border is the border
        for side, (own, beside) in enumerate(((1, 0), (0, 1))):
            made = out.select(axis + 1, side)
            torch.lerp(
                x.narrow(axis, own, count - 1), x.narrow(axis, beside, count - 1), 0.25,
                out=made.narrow(axis, own, count - 1),
            )  # fmt: skip
            border = side * (count - 1)
            made.select(axis, border).copy_(x.select(axis, border))
        x = out.flatten(axis, axis + 1)
    return x
