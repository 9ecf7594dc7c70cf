"""The grid of MONAI's `Spacingd`, and volumes on it, beside MONAI itself."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import io_orientation

from medvision.volumes.geometry import Grid, ras_axes, to_ras
from medvision.volumes.monai_spacing import monai_grid, why_not_monais
from medvision.volumes.resampling import linear_weights, resize_linear
from tests.medvision.phantoms import ORIENTATIONS, make_affine

STEPS = st.sampled_from([0.5, 0.7, 0.75, 1.0, 1.1, 1.5, 1.9, 2.0, 3.0])
TILTS = st.tuples(*[st.sampled_from([0.0, 0.0, 3.0, -11.0, 25.0])] * 3)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(2, 14)] * 3),
    spacing=st.tuples(STEPS, STEPS, STEPS),
    target=st.tuples(STEPS, STEPS, STEPS),
    orientation=st.sampled_from(ORIENTATIONS),
    tilt=TILTS,
)
def test_volumes_and_their_scores_are_resampled_as_monai_does(
    shape: tuple, spacing: tuple, target: tuple, orientation: str, tilt: tuple
):
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import Orientation, Spacing

    grid = Grid.from_affine(shape, make_affine(orientation, spacing, tilt))
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ras, own, _ = to_ras(data, grid)
    kept = tuple(step if abs(step - wanted) < 1e-3 else wanted for step, wanted in zip(own, target, strict=True))
    sizes, starts = monai_grid(ras_axes(grid), ras.shape, kept)
    given = MetaTensor(torch.from_numpy(data)[None], affine=torch.from_numpy(grid.affine))
    spacing_transform = Spacing(target)
    turned = Orientation("RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))(given)
    expected = spacing_transform(turned)
    found = resize_linear(ras, own, kept, sizes, starts=starts)
    assert found.shape == expected.shape[1:]
    torch.testing.assert_close(found, torch.as_tensor(expected[0].numpy()), rtol=1e-4, atol=1e-4)
    back = torch.as_tensor(spacing_transform.inverse(expected)[0].numpy())
    ratios = [step / wanted for step, wanted in zip(own, kept, strict=True)]
    x, y, z = (
        linear_weights(n, m, ratio, start=-start * ratio)
        for n, m, ratio, start in zip(sizes, ras.shape, ratios, starts, strict=True)
    )
    ours = torch.einsum("ax,by,cz,xyz->abc", x, y, z, found)
    torch.testing.assert_close(ours, back, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR", "IPR"])
def test_axes_are_those_of_the_turned_volume(orientation: str):
    grid = Grid.from_affine((3, 4, 5), make_affine(orientation, (1.0, 2.0, 3.0), (10, -7, 4)))
    axes, (_, spacing, _) = ras_axes(grid), to_ras(np.zeros((3, 4, 5)), grid)
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0), spacing)
    assert (np.diag(axes) > 0).all()


def test_it_is_known_where_axes_are_not_monais():
    sheared = np.eye(3)
    sheared[0, 1] = 0.01
    assert "not at right angles" in str(why_not_monais(sheared))
    for tilt in itertools.product((0, 30), repeat=3):
        assert why_not_monais(make_affine("RAS", (1, 2, 3), tilt)[:3, :3]) is None
    random, differing = np.random.default_rng(0), 0
    for _ in range(200):
        affine = make_affine("RAS", random.uniform(0.5, 3, 3), random.uniform(-45, 45, 3))
        axes = ras_axes(Grid.from_affine((3, 4, 5), affine))
        ours = np.linalg.solve(affine[:3, :3], axes).round()  # 1 or -1 where a stored axis becomes that one
        place, sign = np.abs(ours).argmax(1), ours.sum(1)
        alike = (io_orientation(affine) == np.stack([place, sign], 1)).all()
        assert (why_not_monais(axes) is None) == alike
        differing += not alike
    assert 0 < differing < 40
