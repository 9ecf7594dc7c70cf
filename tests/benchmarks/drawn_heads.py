"""Heads drawn once from label maps that nothing is trained on: what networks for the brain are chosen by.

python -m tests.benchmarks.drawn_heads MAPS OUTPUT
"""

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medvision.datasets.brain_labels import PART_IDS
from medvision.datasets.synthetic import LabelMapSynthesizer, SynthesisSettings
from shared_backbones.files import replacing

COUNT = 40
SEED = 1719

TRAINING = SynthesisSettings(
    t1_share=0.65,
    stripped_share=0.35,
    thick_slices_share=0.15,
    coarse_share=0.2,
    coarsest_mm=3.0,
)
"""What networks for the brain are trained on: whole heads and stripped ones, of every contrast and resolution."""

NORMALISATION = {"name": "rescale_intensity", "version": 2}


@dataclass(frozen=True)
class DrawnHead:
    """A drawn volume.

    Attributes:
        name: `head_00` and so on.
        stripped: whether it is without skull and scalp.
        t1: whether its contrast is that of T1-weighted MRI; else it is any.
        image: `(X, Y, Z)` float32 in [0, 1], axes RAS, at 1.5 mm.
        parts: `(X, Y, Z)` uint8, FreeSurfer ids.
    """

    name: str
    stripped: bool
    t1: bool
    image: Tensor
    parts: Tensor


def draw(maps: Path, folder: Path) -> None:
    """Draw the heads that `folder` lacks; each depends on its number alone."""
    folder.mkdir(parents=True, exist_ok=True)
    synthesizer = LabelMapSynthesizer(maps, targets=PART_IDS, normalisation=NORMALISATION)
    for number in range(COUNT):
        path = folder / f"head_{number:02}.safetensors"
        if path.exists():
            continue
        stripped, t1 = _kind(number)
        synthesizer.settings = dataclasses.replace(TRAINING, stripped_share=float(stripped), t1_share=float(t1))
        image, parts = synthesizer(torch.Generator().manual_seed((SEED << 32) + number))
        with replacing(path) as temporary:
            save_file({"image": image.half(), "parts": parts.contiguous()}, temporary)


def read(folder: Path) -> Iterator[DrawnHead]:
    """The heads, one after the other."""
    for number in range(COUNT):
        name = f"head_{number:02}"
        tensors = load_file(folder / f"{name}.safetensors")
        yield DrawnHead(name, *_kind(number), tensors["image"].float(), tensors["parts"])


def _kind(number: int) -> tuple[bool, bool]:
    """Whether the head of that number is stripped, and whether it is T1-weighted."""
    return number % 2 == 1, number % 4 < 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    draw(given.maps, given.output)
