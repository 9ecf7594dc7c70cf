"""Intensities as a network sees them, at any scale and whatever a few voxels and slices hold."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from medvision.contract import Normalisation
from medvision.volumes.intensities import (
    Plausible,
    normalise,
    rescale_intensity,
    rescale_robustly,
    robust_range,
    to_network,
)
from medvision.volumes.resampling import resize_linear

ROBUST = {"name": "rescale_intensity", "version": 2}


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_intensities_end_at_the_percentiles():
    values = torch.cat([torch.zeros(6000), torch.linspace(100, 200, 4001)]).view(73, 137, 1)
    out = rescale_intensity(values)
    assert out.min() == 0 and out.max() == 1
    # of the voxels above the mean (60), the 99.5th percentile is 199.5
    torch.testing.assert_close(out.flatten()[6000 + 2000], torch.tensor(150 / 199.5), atol=1e-3, rtol=0)


def test_intensities_do_not_depend_on_scale_offset_or_empty_margin(rng):
    image = torch.rand((20, 21, 22), generator=rng) + 2
    image[:10] = 0
    torch.testing.assert_close(rescale_intensity(image * 37 + 0), rescale_intensity(image), atol=1e-5, rtol=0)
    torch.testing.assert_close(rescale_intensity(image * 2 - 500), rescale_intensity(image), atol=1e-4, rtol=0)
    wider = F.pad(image, (5,) * 6)
    torch.testing.assert_close(rescale_intensity(wider)[5:-5, 5:-5, 5:-5], rescale_intensity(image), atol=1e-3, rtol=0)


def test_a_constant_image_becomes_zero():
    assert (rescale_intensity(torch.full((8, 8, 8), 5.0)) == 0).all()


def test_intensities_leave_their_input_alone(rng):
    image = torch.rand((8, 8, 8), generator=rng)
    before = image.clone()
    rescale_intensity(image)
    assert torch.equal(image, before)


def make_head(side: int = 50) -> torch.Tensor:
    """A bright, uneven ball with a dark core in an empty volume; its profiles rise and fall like a head's."""
    axes = torch.meshgrid(*[torch.linspace(-1.2, 1.2, side)] * 3, indexing="ij")
    radius = torch.stack(axes).square().sum(0).sqrt()
    values = 1 + 0.3 * torch.sin(5 * axes[0]) * torch.cos(4 * axes[1]) + 0.2 * axes[2]
    return torch.where(radius < 1, values, 0) * torch.where(radius < 0.3, 0.4, 1.0)


def test_robust_rescaling_equals_the_plain_one_where_nothing_stands_out():
    head = make_head()
    torch.testing.assert_close(rescale_robustly(head), rescale_intensity(head), atol=0.005, rtol=0)
    assert torch.equal(normalise(head, {"name": "rescale_intensity", "version": 2}), rescale_robustly(head))
    assert torch.equal(normalise(head, {"name": "rescale_intensity", "version": 1}), rescale_intensity(head))
    with pytest.raises(ValueError, match="no version 3"):
        normalise(head, {"name": "rescale_intensity", "version": 3})


@given(exponent=st.floats(-12, 9), offset=st.floats(-3, 3))
def test_robust_rescaling_does_not_depend_on_scale_or_offset(exponent, offset):
    head = make_head(24)
    out = rescale_robustly((head + offset) * 10**exponent)
    torch.testing.assert_close(out, rescale_robustly(head), atol=1e-3, rtol=0)
    assert out.max() == 1


@settings(max_examples=40)
@given(axis=st.integers(0, 2), place=st.integers(0, 49), value=st.floats(-1e9, 1e9), thick=st.booleans())
def test_a_spoilt_slice_does_not_move_the_range(axis, place, value, thick):
    head = make_head(100 if thick else 50)
    spoilt = head.clone()
    spoilt.narrow(axis, place, 2 if thick else 1).fill_(value)  # one slice in fifty
    for found, expected in zip(robust_range(spoilt), robust_range(head), strict=True):
        assert float(found) == pytest.approx(float(expected), abs=0.03)


@given(axis=st.integers(0, 2), place=st.integers(0, 49), factor=st.floats(0, 100))
def test_a_slice_of_another_gain_hardly_moves_the_range(axis, place, factor):
    head = make_head()
    spoilt = head.clone()
    spoilt.narrow(axis, place, 1).mul_(factor)
    low, high = (float(value) for value in robust_range(spoilt))
    expected = float(robust_range(head)[1])
    assert low == pytest.approx(0, abs=0.01)
    assert 0.98 < high / expected < 1.25


@given(value=st.sampled_from([-1e9, -3.0, 5.0, 1e9]), seed=st.integers(0, 99))
def test_hot_voxels_do_not_move_the_range(value, seed):
    head = make_head()
    spoilt = head.clone().view(-1)
    spoilt[torch.randperm(len(spoilt), generator=torch.Generator().manual_seed(seed))[: len(spoilt) // 10_000]] = value
    for found, expected in zip(robust_range(spoilt.view(head.shape)), robust_range(head), strict=True):
        assert float(found) == pytest.approx(float(expected), abs=0.01)


def test_robust_rescaling_takes_constant_flat_and_large_volumes():
    assert (rescale_robustly(torch.full((8, 9, 7), 5.0)) == 0).all()
    flat = torch.linspace(0, 1, 400).view(20, 20, 1)
    assert 0 < rescale_robustly(flat).mean() < 1
    head = make_head()
    large = head.repeat_interleave(3, 0).repeat_interleave(3, 1).repeat_interleave(2, 2)
    for found, expected in zip(robust_range(large), robust_range(head), strict=True):
        assert float(found) == pytest.approx(float(expected), abs=0.01)


def test_the_robust_range_waits_for_no_device():
    # what a device holds is not there to be read on "meta"
    low, high = robust_range(torch.empty((40, 50, 60), device="meta"))
    assert low.device.type == high.device.type == "meta"
    with pytest.raises(RuntimeError):
        float(high)


@pytest.mark.parametrize("how", ["rescale_intensity", "zscore", ROBUST])
@given(exponent=st.floats(-12, 9), offset=st.floats(-3, 3))
def test_no_scaling_has_a_scale_of_its_own(how: Normalisation, exponent: float, offset: float):
    head = make_head(24)
    out = normalise((head + offset) * 10**exponent, how)
    torch.testing.assert_close(out, normalise(head, how), atol=2e-3, rtol=0)


def seen(head: np.ndarray) -> np.ndarray:
    """A head as a network sees it that works at one and a half of its spacing."""
    return to_network(head, (1.0,) * 3, (1.5,) * 3, ROBUST)[0].numpy()


@functools.cache
def large_head() -> tuple[np.ndarray, np.ndarray]:
    """A head, and what a network sees of it."""
    head = make_head(100).numpy()
    return head, seen(head)


def test_an_unspoilt_head_is_resampled_and_scaled_as_ever():
    head = make_head(100)
    image, notes = to_network(head.numpy(), (1.0,) * 3, (1.5,) * 3, ROBUST)
    assert torch.equal(image, rescale_robustly(resize_linear(head, (1.0,) * 3, (1.5,) * 3))) and notes == []
    assert Plausible.of(head.numpy()).spoilt == ((), (), ())


@settings(max_examples=30)
@given(
    exponent=st.floats(-12, 9), offset=st.floats(-2, 2), hot=st.sampled_from([None, -1e6, -30.0, 30.0, 1e6]),
    slices=st.none() | st.tuples(st.integers(0, 2), st.integers(10, 88), st.integers(1, 2)),
    value=st.sampled_from([-1e6, -20.0, 5.0, 20.0, 2e4]) | st.floats(3, 1e6), seed=st.integers(0, 99),
)  # fmt: skip
def test_what_a_few_voxels_and_slices_hold_stays_with_them(exponent, offset, hot, slices, value, seed):
    """Scale x offset x outliers: elsewhere, the network sees what it sees of the head unspoilt."""
    head, expected = large_head()
    spoilt = head.copy()
    here = np.zeros(head.shape, bool)
    if hot is not None:
        places = np.random.default_rng(seed).choice(head.size, head.size // 10_000, replace=False)
        spoilt.ravel()[places], here.ravel()[places] = hot, True
    if slices is not None:
        axis, first, count = slices
        band = tuple(slice(first, first + count) if other == axis else slice(None) for other in range(3))
        spoilt[band], here[band] = value, True
    out = seen(((spoilt + offset) * 10**exponent).astype(np.float32))
    near = resize_linear(here.astype(np.float32), (1.0,) * 3, (1.5,) * 3).numpy() > 0
    assert np.abs(out - expected)[~near].max() < 0.03
    if slices is not None and hot is None:  # and there, what lies beside them
        assert np.abs(out - expected).mean(where=near) < 0.1


@pytest.mark.parametrize(("place", "expected"), [(50, 50.0), (0, 1.0), (99, 98.0)])
def test_neighbours_stand_for_a_spoilt_slice(place: int, expected: float):
    ramp = np.broadcast_to(np.arange(100, dtype=np.float32)[:, None, None], (100, 9, 9)).copy()
    spoilt = ramp.copy()
    spoilt[place] = 1e6
    out = resize_linear(spoilt, (1.0,) * 3, (1.0,) * 3, bridged=((place,), (), ())).numpy()
    assert np.allclose(out[place], expected)
    assert np.array_equal(np.delete(out, place, 0), np.delete(ramp, place, 0))


def test_spoilt_slices_are_named():
    head = make_head(100).numpy()
    head[40], head[:, :, 7] = 99, -99
    assert to_network(head, (1.0,) * 3, (1.5,) * 3, ROBUST)[1] == [
        "1 sagittal slices stand out from their neighbours (40, counted from 0 at the left): the network was given the "
        "neighbours' mean instead",
        "1 axial slices stand out from their neighbours (7, counted from 0 at the bottom): the network was given the "
        "neighbours' mean instead",
    ]


@settings(max_examples=15)
@given(axis=st.integers(0, 2), place=st.integers(30, 70), value=st.floats(-2, 3))
def test_a_slice_of_one_value_inside_the_head_is_bridged(axis: int, place: int, value: float):
    head = large_head()[0].copy()
    head[tuple(place if other == axis else slice(None) for other in range(3))] = value
    assert Plausible.of(head).spoilt == tuple((place,) if other == axis else () for other in range(3))


def test_more_spoilt_slices_than_one_in_fifty_are_taken_as_they_are():
    head = make_head(100).numpy()
    head[20:80:15] *= 30
    assert Plausible.of(head).spoilt == ((), (), ())


def test_volumes_without_a_range_are_taken_as_they_are():
    flat = np.zeros((20, 20, 20), np.float32)
    flat[3, 3, 3] = 1
    assert not Plausible.of(flat).spoilt[0]
    assert to_network(flat, (1.0,) * 3, (1.0,) * 3, ROBUST)[0].max() <= 1
    small = np.zeros((60, 60, 60), np.float32)
    small[25:35, 25:35, 25:35] = make_head(10)  # less than 3 % of the volume
    image = to_network(small, (1.0,) * 3, (1.0,) * 3, ROBUST)[0].numpy()
    assert np.allclose(image, rescale_robustly(torch.from_numpy(small)).numpy(), atol=0.02)


@pytest.mark.parametrize("image", [make_head(12) - 0.3, make_head(12).round() * 7, torch.full((4, 4, 4), 3.0)])
@pytest.mark.parametrize(
    ("how", "name", "arguments"),
    [
        ({"name": "zscore", "nonzero": True}, "NormalizeIntensity", {"nonzero": True}),
        ({"name": "minmax"}, "ScaleIntensity", {}),
        ({"name": "minmax", "out_low": -1, "out_high": 3}, "ScaleIntensity", {"minv": -1, "maxv": 3}),
        ({"name": "window", "low": 0.5, "high": 1.5, "clip": False}, "NormalizeIntensity", {"subtrahend": 0.5}),
        (
            {"name": "window", "low": 0.2, "high": 0.9, "out_low": -1, "out_high": 1},
            "ScaleIntensityRange",
            {"a_min": 0.2, "a_max": 0.9, "b_min": -1, "b_max": 1, "clip": True},
        ),
    ],
)
def test_scalings_of_bundles_are_monais(image, how, name, arguments):
    from monai.transforms.intensity import array

    if "subtrahend" in arguments:
        arguments = {**arguments, "divisor": 1.0}
    before = image.clone()
    expected = torch.as_tensor(getattr(array, name)(**arguments)(image[None].clone()))[0]
    torch.testing.assert_close(normalise(image, how), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(image, before)
