"""Folds in every domain: each case outside the test in one of them, with all of its subject or group."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geovision.datasets.patches import divide
from medvision.datasets.layouts import find_cases
from medvision.datasets.medmnist import MedMnist
from pipelines.recipe.loading import load_recipe
from shared_backbones.errors import InputError
from shared_backbones.folds import fold_name, split_of
from shared_backbones.labelled_images import Item, Layout, find_images
from tests.pipelines.balls import MARKER, write_raw, write_recipe
from tests.pipelines.kinds.test_medical_images import npz

FOLDS = [fold_name(number) for number in (1, 2, 3)]


class Listed(Layout[Item]):
    """Images that are given."""

    name = "listed"

    def __init__(self, items: list[Item]) -> None:
        self.items = items

    def find(self, root, classes, options):
        return self.items


def splits(items: list[Item], classes: int, folds: int | None, seed: int = 0) -> dict[str, str]:
    names = [f"class{number}" for number in range(classes)]
    sources = find_images(
        Listed(items), Path("."), names, test=0.2, validation=0.2, seed=seed, folds=folds
    )  # fmt: skip
    return {item.key: item.split for source in sources for item in source.items}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["", "", "train", "validation", "test"])), min_size=30),
    st.integers(0, 9),
)
def test_images_outside_the_test_are_in_one_fold_each(facts: list[tuple[int, str]], seed: int):
    facts += [(label, "") for label in range(3) for _ in range(4)]
    items = [Item(Path("x"), label, f"image{number}", split) for number, (label, split) in enumerate(facts)]
    plain, folded = splits(items, 3, None, seed), splits(items, 3, 3, seed)
    assert plain.keys() == folded.keys()
    for key, split in folded.items():
        assert (split == "test") == (plain[key] == "test")  # the test is what it was
    for label in range(3):
        counts = Counter(folded[item.key] for item in items if item.label == label and folded[item.key] != "test")
        assert set(counts) <= set(FOLDS) and max(counts.values()) - min(counts[fold] for fold in FOLDS) <= 1
    totals = Counter(split for split in folded.values() if split != "test")
    assert max(totals.values()) - min(totals[fold] for fold in FOLDS) <= 1


def test_folds_are_read_from_a_file_that_has_splits_of_its_own(tmp_path: Path):
    npz(tmp_path / "pneumoniamnist.npz", counts=(12, 8, 4))
    names = ["normal", "pneumonia"]
    sources = find_images(MedMnist(), tmp_path, names, test=0.1, validation=0.1, seed=0, folds=3)
    arrays, read = np.load(tmp_path / "pneumoniamnist.npz"), 0
    for source in sources:
        assert source.split == "test" or source.split in FOLDS
        for number, image in source.layout.read(source, 28):
            split, _, row = source.items[number].key.partition("-")
            np.testing.assert_array_equal(image[..., 0], arrays[f"{split}_images"][int(row)])
            assert (split == "test") == (source.split == "test")
            read += 1
    assert read == 24


def test_groups_of_images_stay_together():
    items = [Item(Path("x"), number % 2, f"image{number}", group=f"block{number // 5}") for number in range(100)]
    folded = splits(items, 2, 3)
    for block in range(20):
        assert len({folded[f"image{number}"] for number in range(5 * block, 5 * block + 5)}) == 1
    assert set(folded.values()) == {"test", *FOLDS}


def test_a_split_is_chosen_when_it_is_read():
    assert [split_of(name, 2) for name in ("fold-1", "fold-2", "fold-12", "test")] == [
        "train", "validation", "train", "test"
    ]  # fmt: skip
    assert split_of("validation", None) == "validation"


@pytest.mark.parametrize("by", ["scenes", "last", "blocks"])
def test_parts_of_scenes_outside_the_test_are_in_folds(by: str):
    pairs = [(Path(f"{number}.tif"), None) for number in range(12)]
    options = {"by": by, "test": 0.25, "validation": 0.2, "block": 64, "seed": 3}
    plain, folded = (divide(pairs, [(640, 640)] * 12, **options, folds=folds) for folds in (None, 3))

    def tested(parts):
        return {(part.scene, region) for part in parts if part.split == "test" for region in part.regions}

    def area(parts, split):
        return sum(region[2] * region[3] for part in parts if part.split == split for region in part.regions)

    assert tested(plain) == tested(folded)
    sizes = [area(folded, fold) for fold in FOLDS]
    assert sum(sizes) == area(plain, "train") + area(plain, "validation")
    assert min(sizes) > 0.2 * sum(sizes)
    if by != "blocks":
        assert len(set(sizes)) == 1


def test_subjects_of_volumes_are_in_one_fold_each(tmp_path: Path):
    write_raw(tmp_path)
    test = [f"{MARKER}_005", f"{MARKER}_006"]
    folded = find_cases("msd", tmp_path, validation=0.25, seed=1, folds=2, test=test)
    assert Counter(case.split for case in folded) == {"test": 2, "fold-1": 2, "fold-2": 2}
    assert {case.subject for case in folded if case.split == "test"} == set(test)
    with pytest.raises(InputError, match="there are 4 subjects outside the test; give fewer folds"):
        find_cases("msd", tmp_path, folds=5, test=test)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fold.number=3", "fold.of=2"], "number is 3, expected 1 to 2"),
        (["fold.number=1"], "fold.of"),
        (["fold.number=0", "fold.of=2"], "greater than 0"),
    ],
)
def test_a_fold_that_is_none_is_refused(overrides: list[str], message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        load_recipe(write_recipe(tmp_path / "ball.yaml", tmp_path, tmp_path), overrides)


def test_the_number_of_the_fold_is_no_input_of_the_preparation(tmp_path: Path):
    from pipelines.kinds.kind import find_kind

    write_raw(tmp_path)
    path = write_recipe(tmp_path / "ball.yaml", tmp_path, tmp_path / "run")
    kinds = [find_kind(load_recipe(path, [f"fold.number={number}", "fold.of=2"])) for number in (1, 2)]
    made = [[kind.preparation_settings(), kind.identify(kind.find_sources())] for kind in kinds]
    assert made[0] == made[1]
    plain = load_recipe(path)
    assert "fold" not in plain.model_dump() and "search" not in plain.model_dump()  # old recipes keep their digests
