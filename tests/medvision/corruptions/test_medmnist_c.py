import hashlib
import json
import pickle
import random as python_random
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from medvision.corruptions.images import CORRUPTIONS
from medvision.corruptions.medmnist_c import COLOUR, FOLDS, SETS, augmentation, corrupt
from medvision.corruptions.relative_errors import ALEXNET
from shared_backbones.errors import InputError

CELLS = [(data_set, name) for data_set, names in SETS.items() for name in names]
HOMES = {name: data_set for data_set, name in reversed(CELLS)}  # a data set for each corruption
DETERMINISTIC = [
    *("pixelate", "jpeg_compression", "defocus_blur", "zoom_blur", "gaussian_blur", "black_corner", "saturate"),
    *("brightness_up", "brightness_down", "contrast_up", "contrast_down", "gamma_corr_up", "gamma_corr_down"),
]


def picture(side: int = 224, *, colour: bool = True, seed: int = 0) -> np.ndarray:
    """Structure at all scales over the whole range, `(side, side[, 3])` uint8."""
    random = np.random.default_rng(seed)
    noise = [random.normal(size=(side, side, 3)) for _ in range(3)]
    sizes = (1, side / 50, side / 12)
    layers = [s * ndimage.gaussian_filter(n, (s, s, 0), mode="wrap") for n, s in zip(noise, sizes, strict=True)]
    values = np.sum(layers, 0)
    values = (values - values.min()) / np.ptp(values)
    image = ((1.3 * values - 0.15).clip(0, 1) * 255).astype(np.uint8)
    return image if colour else image[:, :, 0].copy()


def own(data_set: str, side: int = 224, seed: int = 0) -> np.ndarray:
    return picture(side, colour=data_set in COLOUR, seed=seed)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_there_are_the_published_cells():
    assert len(SETS) == 12 and len(CELLS) == 131 and set(HOMES) == set(CORRUPTIONS)
    assert all(len(values) == 5 for names in SETS.values() for values in names.values())
    assert sorted(name for names in FOLDS.values() for name in names) == sorted(CORRUPTIONS)
    assert {data_set: list(errors) for data_set, (_, errors) in ALEXNET.items()} == {
        k: list(v) for k, v in SETS.items()
    }


@pytest.mark.parametrize("data_set", SETS)
def test_every_cell_runs_at_28_pixels_and_keeps_shape_and_pixels(data_set: str):
    image = own(data_set, 28)
    image.setflags(write=False)
    for name, severity, scaled in product(SETS[data_set], range(1, 6), (True, False)):
        found = corrupt(data_set, name, image, severity, seed_key=[0], scaled=scaled)
        assert found.shape == image.shape and found.dtype == np.uint8 and not np.shares_memory(found, image), name
        assert found.flags.writeable
    np.testing.assert_array_equal(image, own(data_set, 28))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_runs_at_224_pixels(name: str):
    image = own(HOMES[name])
    found = corrupt(HOMES[name], name, image, 5, seed_key=[0])
    assert found.shape == image.shape and found.dtype == np.uint8 and (found != image).any()
    np.testing.assert_array_equal(found, corrupt(HOMES[name], name, image, 5, seed_key=[0], scaled=False))


@pytest.mark.parametrize("data_set", SETS)
def test_a_higher_severity_changes_more_at_28_pixels(data_set: str):
    for name in SETS[data_set]:
        steady = name in DETERMINISTIC or "noise" in name
        changes = changes_by_severity(data_set, name, 28, 2 if steady else 40)
        assert changes[4] > changes[0] > 0, (name, changes)
        if name != "pixelate":  # blocks little wider than a pixel lie well or badly; stains of bloodmnist stop rising
            assert (np.diff(changes) > -0.15 * changes[4]).all(), (name, changes)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name in DETERMINISTIC or "noise" in name])
def test_a_higher_severity_changes_more_at_224_pixels(name: str):
    changes = changes_by_severity(HOMES[name], name, 224, 1)
    assert changes[0] > 0 and (np.diff(changes) > 0).all(), changes


def changes_by_severity(data_set: str, name: str, side: int, draws: int) -> list[float]:
    image = own(data_set, side)
    found = [
        float(
            np.mean(
                [
                    np.abs(corrupt(data_set, name, image, severity, seed_key=[draw]).astype(int) - image).mean()
                    for draw in range(draws)
                ]
            )
        )
        for severity in range(1, 6)
    ]
    return [*found[:3], found[4], found[3]] if name == "black_corner" else found  # as published


def test_every_cell_can_be_made_alone():
    image = picture(28)
    for name, data_set in HOMES.items():
        alone = corrupt(data_set, name, image, 3, seed_key=["run", 7])
        corrupt(data_set, name, image, 3, seed_key=["run", 8])
        np.testing.assert_array_equal(corrupt(data_set, name, image, 3, seed_key=("run", 7)), alone)
    digest = hashlib.sha256(json.dumps(["dermamnist", "gaussian_noise", 3, "run", 7]).encode()).digest()
    seeded = CORRUPTIONS["gaussian_noise"](image, 0.12, 28 / 224, generator(int.from_bytes(digest, "big")))
    np.testing.assert_array_equal(corrupt("dermamnist", "gaussian_noise", image, 3, seed_key=["run", 7]), seeded)


def test_the_key_and_the_data_set_decide_the_draw():
    image = picture(28)
    draws = [corrupt("dermamnist", "speckle_noise", image, 3, seed_key=key).tobytes() for key in ([1], ["1"], [1, 1])]
    organs = [corrupt(f"organ{view}mnist", "shot_noise", image, 3, seed_key=[1]).tobytes() for view in "acs"]
    assert len(set(draws)) == 3 and len(set(organs)) == 3


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_what_has_no_random_part_has_none(name: str):
    image = own(HOMES[name], 48)
    found = {corrupt(HOMES[name], name, image, 2, seed_key=[key]).tobytes() for key in range(3)}
    assert len(found) == 1


def test_grey_is_corrupted_in_rgb_and_converted_back():
    grey = picture(32, colour=False)
    colour = np.repeat(grey[:, :, None], 3, 2)
    found = corrupt("chestmnist", "impulse_noise", grey, 5, seed_key=[0])
    rgb = corrupt("chestmnist", "impulse_noise", colour, 5, seed_key=[0])
    np.testing.assert_array_equal(rgb, np.repeat(found[:, :, None], 3, 2))
    changed = found[found != grey].astype(int)
    assert len(np.unique(changed)) > 20  # of one channel of three, so not black and white alone
    assert (np.ptp(corrupt("dermamnist", "impulse_noise", colour, 5, seed_key=[0]), axis=2) > 0).any()


def test_what_a_user_can_get_wrong_is_said_in_one_line():
    image = picture(28)
    with pytest.raises(InputError, match="data set 'brainmnist' has no corruptions; expected one of: pathmnist, chest"):
        corrupt("brainmnist", "pixelate", image, 1, seed_key=[])
    with pytest.raises(
        InputError, match="'saturate' is unknown for octmnist; expected one of: pixelate, jpeg_compress"
    ):
        corrupt("octmnist", "saturate", image, 1, seed_key=[])
    for severity in (0, 6, -1, 2.5):
        with pytest.raises(InputError, match=f"severity of pixelate is {severity}, expected 1 to 5"):
            corrupt("octmnist", "pixelate", image, severity, seed_key=[])  # type: ignore[arg-type]
    for wrong in (image / 255, image[0, 0], image[..., :2], image[:0], np.stack([image, image])):
        with pytest.raises(
            InputError, match=r"image is \w+ of shape .*, expected uint8 of shape \(H, W\) or \(H, W, 3"
        ):
            corrupt("octmnist", "pixelate", wrong, 1, seed_key=[])
    for wrong in ("saturate", "clouds"):
        with pytest.raises(InputError, match="is unknown for octmnist"):
            augmentation("octmnist", exclude=[wrong])
    with pytest.raises(InputError, match="has no corruptions"):
        augmentation("brainmnist")


def test_pixels_of_small_cases():
    def apply(name: str, image: Any, parameter: Any, scale: float = 1.0) -> np.ndarray:
        return CORRUPTIONS[name](np.array(image, np.uint8), parameter, scale, generator())

    grey = np.repeat(np.array([[[0], [100]], [[200], [100]]]), 3, 2)
    np.testing.assert_array_equal(apply("pixelate", grey, 0.5), np.full((2, 2, 3), 100))
    np.testing.assert_array_equal(apply("brightness_up", grey, 1.5), np.minimum(grey * 1.5, 255))
    np.testing.assert_array_equal(apply("contrast_down", grey, 0.5), 50 + grey * 0.5)  # about a mean of 100
    np.testing.assert_array_equal(apply("gamma_corr_up", grey, 2)[..., 0], [[0, 39], [157, 39]])
    np.testing.assert_array_equal(apply("saturate", [[[200, 100, 150]]], 0.25), [[[200, 50, 125]]])
    np.testing.assert_array_equal(apply("saturate", [[[200, 200, 200], [0, 0, 0]]], 0.5), [[[200, 100, 100], [0] * 3]])
    square = np.full((8, 8, 3), 9)
    seen = apply("black_corner", square, 1.0)[..., 0] == 9
    assert seen[4, 0] and seen[0, 4] and not seen[0, 0] and not seen[1, 1] and seen.sum() == 47
    assert (apply("black_corner", square, 2.0) == 9).all()
    point = np.zeros((41, 41, 3))
    point[20, 20] = 255
    disc = apply("defocus_blur", point, (3, 0.1))[..., 0]
    assert (disc > 0).sum() == 29 and set(np.unique(disc)) == {0, 255 // 29}
    blurred = apply("gaussian_blur", point, 3)  # sigma 0.8: weights 0.239, 0.522, 0.239
    assert blurred[20, 19:22, 0].tolist() == [32, 69, 32] and blurred[19, 19:22, 0].tolist() == [15, 32, 15]
    zoomed = apply("zoom_blur", np.full((9, 9, 3), 77), (1.31, 0.03))
    np.testing.assert_array_equal(zoomed, 77)


def test_motion_is_half_a_gaussian_along_a_line():
    point = np.zeros((61, 61, 3), np.uint8)
    point[30, 30] = 255
    along = np.arange(11)
    weights = np.exp(-(along**2) / 50)
    weights /= weights.sum()
    for seed in range(6):
        found = CORRUPTIONS["motion_blur"](point, (5, 5), 1.0, generator(seed))[..., 0].astype(float)
        angle = np.radians(generator(seed).uniform(-45, 45))
        rows, columns = 30 - np.array(np.nonzero(found))
        assert found.sum() == pytest.approx(255, abs=11)
        assert (np.abs(rows * np.cos(angle) - columns * np.sin(angle)) < 0.75).all() and columns.min() == 0
        centre = [(found[found > 0] * places).sum() / found.sum() for places in (rows, columns)]
        assert centre == pytest.approx((weights * along).sum() * np.array([np.sin(angle), np.cos(angle)]), abs=0.3)


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "gaussian_blur"])
def test_lengths_follow_the_side(name: str):
    """A small image that is blurred is about the large one, blurred by as much of the patient and then reduced."""
    data_set = "dermamnist" if name != "gaussian_blur" else "tissuemnist"
    large = ndimage.gaussian_filter(picture(448), (6, 6, 0))[112:336, 112:336]
    small = np.asarray(Image.fromarray(large).resize((56, 56), Image.Resampling.BOX))
    parameter = SETS[data_set][name][4]
    reduced = Image.fromarray(np.asarray(CORRUPTIONS[name](large, parameter, 1.0, generator())))
    expected = np.asarray(reduced.resize((56, 56), Image.Resampling.BOX)).astype(int)
    change = np.abs(expected - small).mean()
    scaled = np.abs(CORRUPTIONS[name](small, parameter, 0.25, generator()).astype(int) - expected).mean()
    unscaled = np.abs(CORRUPTIONS[name](small, parameter, 1.0, generator()).astype(int) - expected).mean()
    assert scaled < 0.5 * min(unscaled, change), (scaled, unscaled, change)


def test_blocks_follow_the_side():
    ramp = np.repeat(np.arange(28, dtype=np.uint8)[None, :, None], 28, 0).repeat(3, 2)
    for share, blocks in ((0.1, 13), (0.4, 23), (0.8, 27)):  # 1 + (1 / share - 1) / 8 pixels wide
        found = CORRUPTIONS["pixelate"](ramp, share, 28 / 224, generator())
        assert len(np.unique(found[0, :, 0])) == blocks
    assert len(np.unique(CORRUPTIONS["pixelate"](ramp, 0.1, 1.0, generator()))) == 2


@pytest.mark.parametrize("name", ["stain_deposit", "bubble", "characters"])
def test_marks_follow_the_side(name: str):
    changes = []
    for side in (28, 56, 224, 448):
        image = np.full((side, side, 3), 90, np.uint8)
        found = [corrupt(HOMES[name], name, image, 5, seed_key=[key]).astype(int) for key in range(4)]
        changes.append(np.mean([np.abs(one - 90).mean() for one in found]))
    assert max(changes) < 1.2 * min(changes)  # the same draws, on finer pixels


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise", "impulse_noise", "shot_noise"])
def test_noise_has_its_size(name: str):
    image = np.full((128, 128, 3), 102, np.uint8)  # 0.4
    found = CORRUPTIONS[name](image, 40 if name == "shot_noise" else 0.1, 1.0, generator()) / 255
    if name == "impulse_noise":
        assert (found == 0).mean() == pytest.approx(0.05, abs=0.005) and (found == 1).mean() == pytest.approx(
            0.05, abs=0.005
        )
        assert (found == 0.4).mean() == pytest.approx(0.9, abs=0.01)
    else:
        expected = {"gaussian_noise": 0.1, "speckle_noise": 0.04, "shot_noise": 0.1}[name]
        assert found.std() == pytest.approx(expected, rel=0.03) and found.mean() == pytest.approx(0.398, abs=0.003)


@given(
    st.sampled_from(CELLS),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 255),
    st.booleans(),
)
def test_flat_images_of_any_shape_are_taken(
    cell: tuple[str, str], severity: int, height: int, width: int, value: int, colour: bool
):
    image = np.full((height, width, 3) if colour else (height, width), value, np.uint8)
    for scaled in (True, False):
        found = corrupt(*cell, image, severity, seed_key=["flat"], scaled=scaled)
        assert found.shape == image.shape and found.dtype == np.uint8
        if cell[1] in ("pixelate", "motion_blur", "zoom_blur", "gaussian_blur", "contrast_up", "contrast_down"):
            np.testing.assert_array_equal(found, image)


# ---- training


def test_augmentation_draws_every_corruption_and_none():
    image = picture(32)
    augment = augmentation("pathmnist", exclude=["saturate"])
    pickle.loads(pickle.dumps(augment))  # noqa: S301  a loader's workers get it so
    found = [augment(image, seed) for seed in range(120)]
    same = sum((one == image).all() for one in found)
    assert 2 <= same < 40 and all(one.shape == image.shape and one.dtype == np.uint8 for one in found)
    np.testing.assert_array_equal(augment(image, 5), found[5])
    stream = generator(3)
    assert (augment(image, stream) != augment(image, stream)).any() or (augment(image, stream) != image).any()
    grey = picture(28, colour=False)
    for data_set, continuous in product(SETS, (True, False)):
        augment = augmentation(data_set, continuous=continuous)
        for seed in range(30):
            assert augment(grey, seed).shape == (28, 28) and augment(image, seed).shape == (32, 32, 3)
    with pytest.raises(InputError, match="image is float64"):
        augment(grey / 255, 0)


def test_augmentation_leaves_out_what_is_excluded_and_stays_within_the_severities():
    image = np.full((16, 16), 100, np.uint8)
    names = [name for name in SETS["octmnist"] if name != "speckle_noise"]
    noise = augmentation("octmnist", exclude=names)
    deviations = [noise(image, seed).std() / 100 for seed in range(60)]
    assert min(deviations) == 0 and 0.3 < max(deviations) < 0.6
    dark = augmentation("breastmnist", exclude=[name for name in SETS["breastmnist"] if name != "brightness_down"])
    steps = augmentation(
        "breastmnist", [name for name in SETS["breastmnist"] if name != "brightness_down"], continuous=False
    )
    values = {int(dark(image, seed)[0, 0]) for seed in range(200)}
    assert values <= {*range(29, 56), 100} and len(values) > 15
    assert {int(steps(image, seed)[0, 0]) for seed in range(200)} == {30, 40, 45, 50, 55, 100}
    assert (augmentation("octmnist", exclude=list(SETS["octmnist"]))(image, 0) == image).all()


def test_augmentation_fits_into_albumentations():
    import albumentations as a

    augment, random = augmentation("dermamnist"), generator(0)
    pipeline = a.Compose([a.Lambda(image=partial(augment, seed=random), p=1), a.HorizontalFlip(p=1)])
    image = picture(32)
    assert pipeline(image=image)["image"].shape == image.shape


# ---- the official package


@pytest.fixture(scope="module")
def official():
    """medmnistc 0.1.0's registry, which wants the system's ImageMagick, OpenCV 4 and scikit-image."""
    reason = "medmnistc is not installed, or cannot be imported without the system's ImageMagick"
    return pytest.importorskip("medmnistc.corruptions.registry", reason=reason, exc_type=ImportError)


def test_parameters_are_the_official_ones(official):
    from medmnistc.utils.baselines import BASELINES  # type: ignore[import-not-found]

    assert {k: list(v) for k, v in official.CORRUPTIONS_DS.items()} == {
        k: list(SETS[k]) for k in official.CORRUPTIONS_DS
    }
    assert {COLOUR.__contains__(k) == v for k, v in official.DATASET_RGB.items()} == {True}
    assert list(FOLDS.values()) == [tuple(names) for names in official.CORRUPTIONS_DS_FOLDS.values()]
    for data_set, name in CELLS:
        expected = official.CORRUPTIONS_DS[data_set][name].severity_params[:5]
        for mine, theirs in zip(SETS[data_set][name], expected, strict=True):
            if name == "zoom_blur":
                np.testing.assert_array_equal(np.arange(1, *mine), theirs)
            else:
                assert (mine[0] if name == "stain_deposit" else mine) == theirs
        clean, errors = ALEXNET[data_set]
        assert clean == pytest.approx(BASELINES[data_set]["clean_score"], abs=1e-6)
        assert errors == pytest.approx(BASELINES[data_set]["raw_scores"], abs=1e-6)


@pytest.mark.parametrize("name", [*DETERMINISTIC, "motion_blur"])
def test_pixels_are_the_official_ones(official, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(np, "fromstring", np.frombuffer)  # numpy 2.4 removed what medmnistc calls
    share = {"defocus_blur": 0.05, "saturate": 0.05, "motion_blur": 0.01, "zoom_blur": 1e-3, "gaussian_blur": 1e-3}
    for data_set, severity in product((d for d, n in CELLS if n == name), range(5)):
        image = own(data_set, seed=severity)
        image = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, 2)
        angle = generator(severity).uniform(-45, 45)
        with monkeypatch.context() as patch:
            patch.setattr(np.random, "uniform", lambda *_, angle=angle: angle)
            expected = official.CORRUPTIONS_DS[data_set][name].apply(Image.fromarray(image), severity)
        found = CORRUPTIONS[name](image, SETS[data_set][name][severity], 1.0, generator(severity))
        differences = np.abs(found.astype(int) - expected)
        assert differences.max() <= (name in share) and (differences > 0).mean() <= share.get(name, 0), (
            data_set,
            severity,
        )


RANDOM = ("gaussian_noise", "speckle_noise", "impulse_noise", "shot_noise", "stain_deposit", "bubble", "characters")


@pytest.mark.parametrize("name", RANDOM)
def test_draws_are_distributed_as_the_official_ones(official, name: str):
    data_set, draws = HOMES[name], 2 if "noise" in name else 200
    image = own(data_set)
    whole = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, 2)
    reference = official.CORRUPTIONS_DS[data_set][name]
    reference.rng = generator()
    np.random.seed(0)
    python_random.seed(0)
    for severity in (0, 2, 4):
        theirs = [reference.apply(Image.fromarray(whole), severity) for _ in range(draws)]
        theirs = [
            np.asarray(Image.fromarray(np.asarray(one)).convert("RGB" if image.ndim == 3 else "L")) for one in theirs
        ]
        mine = [corrupt(data_set, name, image, severity + 1, seed_key=[draw]) for draw in range(draws)]
        sizes = [np.mean([np.abs(one.astype(int) - image).mean() for one in both]) for both in (theirs, mine)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.04 if "noise" in name else 0.25), severity
