"""Resampling against known answers, scipy and torch, and what it costs in memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medvision.volumes.resampling import blocks, linear_weights, resize_linear


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@given(
    n_in=st.integers(1, 40), n_out=st.integers(1, 40), ratio=st.floats(0.05, 20, allow_nan=False, allow_infinity=False)
)
def test_weights_are_means_and_symmetric(n_in, n_out, ratio):
    matrix = linear_weights(n_in, n_out, ratio)
    assert matrix.shape == (n_out, n_in)
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones(n_out))
    # a flipped volume gives the flipped result
    torch.testing.assert_close(matrix, matrix.flip(0, 1))


@given(n_in=st.integers(2, 40), n_out=st.integers(2, 40), ratio=st.floats(0.1, 1.0))
def test_finer_grids_of_the_same_centre_are_exact_on_ramps(n_in, n_out, ratio):
    ramp = torch.arange(n_in, dtype=torch.float32) - (n_in - 1) / 2
    positions = (torch.arange(n_out) - (n_out - 1) / 2) * ratio
    expected = positions.clamp(-(n_in - 1) / 2, (n_in - 1) / 2)  # beyond the edge its value goes on
    torch.testing.assert_close(linear_weights(n_in, n_out, ratio) @ ramp, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.3])
def test_coarser_grids_are_exact_on_ramps_away_from_the_edge(ratio):
    ramp = torch.arange(60.0)
    out = linear_weights(60, 60, ratio) @ ramp
    positions = 29.5 + (torch.arange(60) - 29.5) * ratio
    inner = (positions > ratio) & (positions < 59 - ratio)
    # between voxels a triangle's samples are not quite balanced
    torch.testing.assert_close(out[inner], positions[inner], atol=0.15, rtol=0)


def test_ramps_in_a_volume_keep_their_place_in_mm():
    spacing, target = (1.0, 0.8, 2.0), (0.7, 0.5, 1.1)
    mm = [(torch.arange(n) - (n - 1) / 2) * s for n, s in zip((20, 24, 15), spacing, strict=True)]
    x, y, z = torch.meshgrid(*mm, indexing="ij")
    out = resize_linear(2 * x - 3 * y + 0.5 * z, spacing, target)
    assert out.shape == tuple(round(n * s / t) for n, s, t in zip((20, 24, 15), spacing, target, strict=True))
    mm = [(torch.arange(n) - (n - 1) / 2) * t for n, t in zip(out.shape, target, strict=True)]
    x, y, z = torch.meshgrid(*mm, indexing="ij")
    inner = (slice(2, -2),) * 3
    torch.testing.assert_close(out[inner], (2 * x - 3 * y + 0.5 * z)[inner], atol=1e-4, rtol=0)


def test_a_checkerboard_vanishes_and_a_constant_stays():
    board = (torch.stack(torch.meshgrid(*[torch.arange(24)] * 3, indexing="ij")).sum(0) % 2).float()
    out = resize_linear(board, (1.0,) * 3, (2.0,) * 3)
    assert out.shape == (12, 12, 12)
    torch.testing.assert_close(out[1:-1, 1:-1, 1:-1], torch.full((10, 10, 10), 0.5))
    constant = torch.full((9, 10, 11), 7.25)
    for target in (0.3, 1.0, 1.7, 30.0):
        out = resize_linear(constant, (1.0,) * 3, (target,) * 3)
        torch.testing.assert_close(out, torch.full_like(out, 7.25))


def test_the_same_spacing_changes_nothing(rng):
    volume = torch.randn((7, 8, 9), generator=rng)
    assert torch.equal(resize_linear(volume, (1.2, 0.9, 3.0), (1.2, 0.9, 3.0)), volume)


@pytest.mark.parametrize("factor", [2, 3])
def test_finer_grids_agree_with_torch_and_scipy(rng, factor):
    volume = torch.randn((10, 11, 12), generator=rng)
    ours = resize_linear(volume, (1.0,) * 3, (1 / factor,) * 3)
    theirs = F.interpolate(volume[None, None], scale_factor=factor, mode="trilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    scipys = ndimage.zoom(volume.numpy(), factor, order=1, mode="nearest", grid_mode=True)
    torch.testing.assert_close(ours, torch.from_numpy(scipys), atol=1e-5, rtol=0)


def test_coarser_planes_agree_with_torchs_antialiasing(rng):
    plane = torch.randn((30, 40), generator=rng)
    ours = resize_linear(plane[..., None], (1.0,) * 3, (2.5, 2.5, 1.0))[..., 0]
    theirs = F.interpolate(plane[None, None], size=(12, 16), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(ours[1:-1, 1:-1], theirs[0, 0, 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_there_and_back_keeps_what_the_coarse_grid_can_hold():
    mm = torch.arange(40.0)
    x, y, z = torch.meshgrid(mm, mm, mm, indexing="ij")
    smooth = torch.sin(x / 8) + torch.cos(y / 9) * torch.sin(z / 10)
    coarse = resize_linear(smooth, (1.0,) * 3, (1.5,) * 3)
    back = resize_linear(coarse, (1.5,) * 3, (1.0,) * 3, shape=(40, 40, 40))
    inner = (slice(3, -3),) * 3
    assert (back - smooth)[inner].abs().max() < 0.03


def test_any_strides_and_many_slabs_give_the_same_to_the_bit(rng):
    # 300 x 300 planes: a slab holds 46 of them
    volume = torch.randn((300, 300, 60), generator=rng)
    row = resize_linear(volume, (1.0,) * 3, (4.0, 5.0, 2.0))
    column_major = volume.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    flipped = np.ascontiguousarray(volume.numpy()[::-1, :, ::-1])[::-1, :, ::-1]
    for other in (column_major, flipped):
        assert torch.equal(resize_linear(other, (1.0,) * 3, (4.0, 5.0, 2.0)), row)
    wx, wy, wz = (linear_weights(n, m, r) for n, m, r in zip((300, 300, 60), row.shape, (4, 5, 2), strict=True))
    torch.testing.assert_close(torch.einsum("xyz,ax,by,cz->abc", volume, wx, wy, wz), row, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_scores_by_blocks_equal_the_dense_computation(rng, dtype):
    scores = torch.randint(0, 256, (5, 9, 30, 11), generator=rng).to(dtype)
    weights = [linear_weights(9, 100, 0.1), linear_weights(30, 64, 0.3), linear_weights(11, 5, 2.1)]
    dense = torch.einsum("kxyz,ax,by,cz->kabc", scores.float(), *weights)
    filled = torch.full_like(dense, float("nan"))
    cut = list(blocks(weights, side=48))
    for block in cut:
        support = scores[:, *block.support]
        filled[:, *block.where] = block.resize(support)
    assert len(cut) == 3 * 2 * 1
    torch.testing.assert_close(filled, dense, atol=1e-2, rtol=0)
    # a block looks at what it needs, not at all
    assert cut[0].support == (slice(0, 5), slice(5, 21), slice(0, 11))


def test_resampling_holds_no_second_volume():
    # its own process, for the high-water mark is the process's
    program = """
import resource, torch
from medvision.volumes.resampling import resize_linear
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
resize_linear(torch.zeros(16, 16, 16), (1.0,) * 3, (2.0,) * 3)
volume = torch.ones(320, 320, 300)
before = peak()
out = resize_linear(volume, (1.0,) * 3, (2.0,) * 3)
assert out.shape == (160, 160, 150)
print(peak() - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    volume, output, planes = 320 * 320 * 300 * 4, 160 * 160 * 150 * 4, 160 * 160 * 300 * 4
    # the volume with two axes done, the output, and a few slabs of 16 MiB
    assert int(run.stdout) < output + planes + 80 * 2**20 < volume + 10 * 2**20
