"""Thick slices made thinner: where the voxels lie, what they agree with, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medvision.enhancing import Enhancer, Thinning, finer
from medvision.volumes.files import read_labels, read_volume
from medvision.volumes.geometry import Grid
from medvision.volumes.headers import ENHANCED
from medvision.volumes.writing import write_volume
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.networks.drsformer import DRSformer
from tests.medvision.phantoms import make_affine, write_scan


def model(folder: Path, in_chans: int = 1, **card: Any) -> Path:
    """A network that adds nothing to its input: slices are enlarged, then made to agree with what was measured."""
    torch.manual_seed(0)
    network = DRSformer(in_chans, dim=8, num_blocks=[1, 1, 1, 1], heads=[1, 1, 1, 1], mixture=False)
    torch.nn.init.zeros_(network.last.weight)
    entries = {"name": "thin", "license": "CC0-1.0", "input": {}, "thinning": {"ratio": 2, "mtf": 0.25}}
    weights.save(folder, network, {**entries, **card})
    return folder


def scan(path: Path, axis: int = 2, spacing: float = 3.0, **header: Any) -> Path:
    """Smooth structures in slices that lie across an axis."""
    shape, sides = [24, 20, 22], [1.0, 1.1, 0.9]
    shape[axis], sides[axis] = 12, spacing
    places = np.meshgrid(*(np.arange(length) for length in shape), indexing="ij")
    waves = sum(np.sin(place / (3 + number)) for number, place in enumerate(places))
    noise = np.random.default_rng(0).normal(0, 5, shape)
    return write_scan(path, (200 + 60 * waves + noise).astype(np.int16), make_affine(spacing=sides), **header)


@given(axis=st.integers(0, 2), ratio=st.integers(2, 8), tilt=st.floats(-30, 30), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_finer_grid_has_the_same_borders(axis: int, ratio: int, tilt: float, seed: int) -> None:
    sides = np.random.default_rng(seed).uniform(0.5, 4, 3)
    coarse = Grid.from_affine((8, 9, 10), make_affine(spacing=tuple(sides), angles_deg=(tilt, 0, tilt / 2)))
    fine = finer(coarse, axis, ratio)
    expected = list(coarse.spacing_mm)
    expected[axis] /= ratio
    np.testing.assert_allclose(fine.spacing_mm, expected, rtol=1e-6)
    for end in (0.0, 1.0):
        corners = [
            grid.affine @ [*(end * np.array(grid.shape) - 0.5), 1] for grid in (coarse, fine)
        ]  # of the first voxel's outer corner, and of the last one's
        np.testing.assert_allclose(corners[0], corners[1], atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_agree_with_those_that_were_given_and_only_their_axis_changes(tmp_path: Path, axis: int) -> None:
    volume = read_volume(scan(tmp_path / "scan.nii", axis))
    enhancer = Enhancer(model(tmp_path / "model"), threads=1)
    calls: list[tuple[int, int]] = []
    result = enhancer.enhance(volume, lambda done, count: calls.append((done, count)))
    shape = list(volume.data.shape)
    shape[axis] *= 2
    assert list(result.data.shape) == shape == list(result.grid.shape) and result.axis == axis
    assert result.rms < 0.01 and calls[-1][0] == calls[-1][1]
    native = torch.from_numpy(np.moveaxis(result.data, axis, 2).copy())[:, None]
    again = np.moveaxis(Thinning(2, 0.25).thick(native)[:, 0].numpy(), 2, axis)
    np.testing.assert_allclose(again, volume.data, atol=0.02 * volume.data.std())
    assert np.abs(np.diff(result.data, axis=axis)).max() > 0


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "another name.NII.GZ"])
def test_a_file_says_that_it_was_enhanced_under_any_name(tmp_path: Path, name: str) -> None:
    volume = read_volume(scan(tmp_path / "given.nii"))
    assert volume.warnings == []
    write_volume(tmp_path / "a.nii.gz" if "gz" in name.lower() else tmp_path / "a.nii", volume.data, volume.grid,
                 description=ENHANCED)  # fmt: skip
    next(tmp_path.glob("a.nii*")).rename(tmp_path / name)
    again = read_volume(tmp_path / name)
    assert [warning for warning in again.warnings if "was enhanced" in warning and "not for diagnosis" in warning]
    write_volume(tmp_path / "labels.nii", np.zeros(again.data.shape, np.uint8), again.grid)
    assert read_labels(tmp_path / "labels.nii").warnings == []  # what is made of it is not enhanced itself


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"thinning": {"ratio": 1, "mtf": 0.25}}, "makes slices thinner"),
        ({"thinning": {"ratio": 2}}, "makes slices thinner"),
        ({"thinning": 3}, "makes slices thinner"),
    ],
)
def test_a_card_that_says_nothing_usable_is_refused(tmp_path: Path, card: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Enhancer(model(tmp_path / "model", **card))


def test_networks_of_several_channels_and_thin_slices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not take slices of one channel"):
        Enhancer(model(tmp_path / "three", in_chans=3))
    volume = read_volume(scan(tmp_path / "scan.nii", spacing=1.2))
    with pytest.raises(InputError, match="there are no thick slices"):
        Enhancer(model(tmp_path / "model")).enhance(volume)
