"""Outliers: usual features score about 1, strange ones more, and a file that fits no network is a line."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared_backbones.classification.outliers import FILE, Outliers
from shared_backbones.errors import InputError

WIDTH = 24


def usual(count: int, seed: int = 0) -> np.ndarray:
    """Features that vary along five directions, and little along the others."""
    mixing = np.random.default_rng(99).normal(0, 1, (5, WIDTH))
    random = np.random.default_rng(seed)
    return (random.normal(0, 1, (count, 5)) @ mixing + random.normal(3, 0.1, (count, WIDTH))).astype(np.float32)


@pytest.mark.parametrize("count", [10, 20, 400])
def test_blank_and_starry_images_score_above_usual_ones(count: int):
    outliers = Outliers.fit(usual(count)).with_threshold(usual(500, 1))
    assert (outliers.score(usual(500, 2)) > outliers.threshold).mean() < 0.06
    blank = np.zeros((1, WIDTH), np.float32)
    stars = usual(5, 3) + np.random.default_rng(4).normal(0, 4, (5, WIDTH)).astype(np.float32)
    assert (outliers.score(np.concatenate([blank, stars])) > outliers.threshold).all()


def test_the_score_is_the_mahalanobis_distance_where_there_are_images_enough():
    features = np.random.default_rng(0).normal(0, [1, 2, 3], (5000, 3))
    outliers = Outliers.fit(features)
    assert len(outliers.axes) == 3  # no axis is small enough to be left out
    inverse = np.linalg.inv(np.cov(features.T))
    centred = features[:50] - features.mean(0)
    np.testing.assert_allclose(outliers.score(features[:50]), np.einsum("ni,ij,nj->n", centred, inverse, centred) / 3)
    assert outliers.score(features).mean() == pytest.approx(1, abs=0.01)


def test_the_threshold_has_the_false_alarms_that_were_asked_for():
    outliers = Outliers.fit(usual(300))
    held = usual(1000, 1)
    assert outliers.threshold == np.inf
    for share in (0.01, 0.1):
        found = outliers.with_threshold(held, share)
        assert (found.score(held) > found.threshold).mean() == pytest.approx(share, abs=0.002)
    assert outliers.with_threshold(held).threshold == outliers.with_threshold(held, 0.01).threshold


def test_what_is_saved_is_loaded(tmp_path: Path):
    outliers = Outliers.fit(usual(10)).with_threshold(usual(50, 1))
    assert Outliers.load(tmp_path) is None
    outliers.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    for width in (None, WIDTH):
        found = Outliers.load(tmp_path, width)
        assert found is not None and found.threshold == pytest.approx(outliers.threshold)
        np.testing.assert_allclose(found.score(usual(9, 2)), outliers.score(usual(9, 2)), rtol=1e-3)
    with pytest.raises(InputError, match="does not fit the network's 25 features"):
        Outliers.load(tmp_path, WIDTH + 1)


@pytest.mark.parametrize("features", [usual(1), usual(0), usual(4)[0], np.full((4, 3), np.nan)])
def test_what_cannot_be_fitted_is_a_bug(features: np.ndarray):
    with pytest.raises(ValueError, match="expected finite ones of two or more images"):
        Outliers.fit(features)


def test_images_that_are_all_alike_leave_finite_scores():
    outliers = Outliers.fit(np.ones((5, 4)))
    assert np.isfinite(outliers.score(np.zeros((2, 4)))).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": np.zeros(3)}, "does not fit"),
        ({"mean": np.zeros((4, 1))}, "does not fit"),
        ({"axes": np.zeros((2, 3))}, "does not fit"),
        ({"axes": np.zeros(4)}, "does not fit"),
        ({"axes": np.zeros((5, 4)), "variances": np.ones(5)}, "does not fit"),
        ({"variances": np.ones(3)}, "does not fit"),
        ({"threshold": np.ones(2)}, "does not fit"),
        ({"rest": np.array(1.0)}, "does not fit"),
        ({"variances": np.array([1.0, 0.0])}, "holds values"),
        ({"rest": np.array([-1.0])}, "holds values"),
        ({"mean": np.full(4, np.nan)}, "holds values"),
        ({"axes": np.full((2, 4), np.inf)}, "holds values"),
        ({"threshold": np.array([np.nan])}, "holds values"),
        ({"rest": None}, "cannot be read"),
    ],
)
def test_hostile_files_are_one_line(tmp_path: Path, changes: dict, message: str):
    parts = {
        "mean": np.zeros(4), "axes": np.eye(4)[:2], "variances": np.ones(2), "rest": np.ones(1), "threshold": np.ones(1)
    }  # fmt: skip
    parts = {name: value for name, value in (parts | changes).items() if value is not None}
    save_file({name: np.asarray(value, np.float32) for name, value in parts.items()}, tmp_path / FILE)
    if message != "does not fit" or "mean" not in changes:
        with pytest.raises(InputError, match=message):
            Outliers.load(tmp_path)
    with pytest.raises(InputError, match=message):
        Outliers.load(tmp_path, 4)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100])
def test_what_is_no_safetensors_file_is_one_line(tmp_path: Path, content: bytes):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as caught:
        Outliers.load(tmp_path, 4)
    assert "\n" not in str(caught.value)


def test_an_image_with_nothing_in_its_middle_is_an_outlier_however_usual_its_features(tmp_path: Path):
    contrasts = np.linspace(5, 50, 1001)
    outliers = Outliers.fit(usual(200)).with_threshold(usual(500, 1)).with_faintest(contrasts)
    assert outliers.faintest == pytest.approx(5.045)
    features = usual(4, 2)
    plain = outliers.score(features)
    scores = outliers.score(features, np.array([20.0, 2.5, 0.0, -3.0]))
    assert scores[0] == plain[0] and (scores[1:] > outliers.threshold).all()
    assert scores[1] < scores[2] == scores[3] == pytest.approx(100 * outliers.threshold)
    outliers.save(tmp_path)
    again = Outliers.load(tmp_path, WIDTH)
    assert again is not None and again.faintest == pytest.approx(outliers.faintest)
    np.testing.assert_allclose(again.score(features, np.zeros(4)), outliers.score(features, np.zeros(4)), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_a_least_contrast_that_none_can_have_is_refused(tmp_path: Path, value: float):
    outliers = Outliers.fit(usual(200)).with_threshold(usual(500, 1))
    parts = {name: np.atleast_1d(getattr(outliers, name)).astype(np.float32) for name in ("mean", "axes", "variances")}
    numbers = {"rest": outliers.rest, "threshold": outliers.threshold, "faintest": value}
    rest = {name: np.array([number], np.float32) for name, number in numbers.items()}
    save_file({**parts, **rest}, tmp_path / FILE)
    with pytest.raises(InputError, match="holds values that no features have"):
        Outliers.load(tmp_path, WIDTH)
