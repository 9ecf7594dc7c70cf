"""Labelled images of a layout that needs no files: options, draws, parts and what names them."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_backbones.errors import InputError
from shared_backbones.labelled_files import Relabelling, class_number, labelled, only_file, split_folders
from shared_backbones.labelled_images import (
    Item,
    Layout,
    find_images,
    find_items,
    labels_of,
    split_digest,
    targets_of,
    with_bands,
)

CLASSES = ["a", "b", "c"]


class Listed(Layout[Item]):
    """Images that a test lists."""

    name = "listed"
    options = ("file", "merge")

    def __init__(self, *items: Item, from_all: bool = False, every_class: bool = True) -> None:
        self.items = items
        self.draws_from_all, self.needs_every_class = from_all, every_class  # type: ignore[misc]

    def find(self, root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
        return list(self.items)


def items_of(count: int, **changes: Any) -> list[Item]:
    return [Item(Path(f"{n}.png"), n % 3, f"k{n}", **changes) for n in range(count)]


def splits_of(layout: Layout[Item], test: float = 0.2, validation: float = 0.25, seed: int = 0) -> dict[str, str]:
    sources = find_images(layout, Path("root"), CLASSES, test=test, validation=validation, seed=seed)
    return {item.key: item.split for source in sources for item in source.items}


@given(st.integers(3, 60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_a_draw_takes_shares_of_each_class_by_hash(count: int, test: float, validation: float, seed: int):
    items = items_of(count)
    splits = splits_of(Listed(*items), test, validation, seed)
    for label in range(3):
        keys = [item.key for item in items if item.label == label]
        keys.sort(key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).hexdigest())
        tested = round(len(keys) * test)
        validated = round((len(keys) - tested) * validation)
        expected = ["test"] * tested + ["validation"] * validated + ["train"] * (len(keys) - tested - validated)
        assert [splits[key] for key in keys] == expected


def test_splits_of_the_data_set_stay_and_others_are_drawn():
    own = items_of(12, split="test") + [Item(Path("x"), n % 3, f"x{n}", "train") for n in range(24)]
    splits = splits_of(Listed(*own))
    assert Counter(splits.values()) == {"test": 12, "validation": 6, "train": 18}  # a quarter of 8 in each class
    assert all((split == "test") == key.startswith("k") for key, split in splits.items())
    counted = Counter(splits_of(Listed(*own, from_all=True)).values())
    assert counted["test"] == 12 and counted["validation"] <= 9  # a quarter of 12, less those of the test split


def test_groups_are_drawn_as_wholes():
    items = [Item(Path("m"), n % 3, f"k{n}", group=f"g{n // 9}") for n in range(90)]
    splits = splits_of(Listed(*items))
    assert {len({splits[item.key] for item in items if item.group == f"g{n}"}) for n in range(10)} == {1}
    assert Counter(splits.values()) == {"test": 18, "validation": 18, "train": 54}


def test_images_with_several_classes_are_drawn_together():
    several = [Item(Path("x"), 0, f"k{n}", labels=(0, 1 + n % 2)) for n in range(20)]
    assert Counter(splits_of(Listed(*several)).values()) == {"test": 4, "validation": 4, "train": 12}
    assert targets_of(several[:2], 3).tolist() == [[1, 1, 0], [1, 0, 1]] and labels_of(several[1]) == (0, 2)


def test_parts_have_one_split_at_most_256_images_and_mixed_classes():
    items = items_of(1200)
    sources = find_images(Listed(*items), Path("root"), CLASSES, test=0.5, validation=0, seed=0)
    assert [(source.split, len(source.items)) for source in sources] == [
        ("test", 256), ("test", 256), ("test", 88), ("train", 256), ("train", 256), ("train", 88)
    ]  # fmt: skip
    hashes = [hashlib.sha256(item.key.encode()).hexdigest() for source in sources[:3] for item in source.items]
    assert hashes == sorted(hashes)
    assert len({source.digest for source in sources}) == 6 and sources[0].files[0] == sources[0].items[0].path


def test_a_draw_stays_the_same_from_release_to_release():
    drawn = find_images(Listed(*items_of(30)), Path("root"), CLASSES, test=0.2, validation=0.25, seed=3)
    items = [item for source in drawn for item in source.items]
    assert (
        split_digest(items)
        == split_digest(reversed(items))
        == ("a83eae7bea2b0253ce38df0303332a0d02ae16eff922cc164c0d95c4fc8e6df8")
    )
    assert [source.digest[:16] for source in drawn] == ["c26895b4cca3a4fe", "7d5e667b3fd43b6a", "b510ba9ed33e11da"]


def test_what_a_layout_lacks_is_said_in_one_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"root: holds no image in the layout listed"):
        find_images(Listed(), Path("root"), CLASSES, test=0, validation=0, seed=0)
    with pytest.raises(InputError, match=r"root: class b has no image; give images of it"):
        find_images(Listed(items_of(1)[0]), Path("root"), CLASSES, test=0, validation=0, seed=0)
    assert len(splits_of(Listed(items_of(1)[0], every_class=False), 0, 0)) == 1
    with pytest.raises(InputError, match=r"data.options.drop is unknown to the layout listed; expected: file, merge"):
        find_items(Listed(), Path("root"), CLASSES, {"drop": []})
    assert only_file(tmp_path, {"file": "../x.h5"}, (".h5",), "HDF5") == tmp_path / "x.h5"
    with pytest.raises(InputError, match=r"holds 0 HDF5 files, expected one; give data.options.file"):
        only_file(tmp_path, {}, (".h5",), "HDF5")


def test_labels_are_renamed_dropped_and_numbered():
    renamed = Relabelling({"merge": {"x": "a", "y": "z"}, "drop": ["z", "w"]})
    assert [renamed(name) for name in ("x", "y", "z", "w", "b")] == ["a", None, None, None, "b"]
    assert [class_number(name, CLASSES, Path("t")) for name in ("b", "2")] == [1, 2]
    with pytest.raises(InputError, match=r"t.csv: class 3 is none of the recipe's 3; add it to card.classes"):
        class_number("3", CLASSES, Path("t.csv"))
    named = [(Item(Path("x"), -1, f"k{n}", ("", "VAL")[n % 2]), "abx"[n % 3]) for n in range(20)]
    rule = {"hash": "md5", "modulo": 5, "equals": [1]}
    items = labelled(named, Path("t.csv"), CLASSES, {"merge": {"x": "c"}, "test_rule": rule})
    assert [item.label for item in items] == [n % 3 for n in range(20)]
    for number, item in enumerate(items):
        ruled = int(hashlib.md5(item.key.encode(), usedforsecurity=False).hexdigest(), 16) % 5 == 1
        assert item.split == ("test" if ruled else ("", "validation")[number % 2])
    with pytest.raises(InputError, match=r"t.csv: names k0 twice; leave one of them out"):
        labelled([named[0], named[0]], Path("t.csv"), CLASSES, {})


def test_folders_of_splits_are_told_from_those_of_classes(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert split_folders(tmp_path) == [(tmp_path, "")]
    (tmp_path / "val").mkdir()
    (tmp_path / "test").mkdir()
    assert split_folders(tmp_path) == [(tmp_path / "test", "test"), (tmp_path / "val", "validation")]


def test_images_get_the_bands_that_are_asked_for():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colours = with_bands(grey, ("red", "green", "blue"), Path("x"))
    assert colours.shape == (2, 3, 3) and (colours == grey[..., None]).all()
    np.testing.assert_array_equal(with_bands(colours, ("grey",), Path("x")), grey[..., None])
    colours[0, 0, 0] += 1
    with pytest.raises(InputError, match=r"x.png: has colours, the network takes grey images"):
        with_bands(colours, ("grey",), Path("x.png"))


def test_parts_are_called_the_same_in_every_process():
    """A preparation that was interrupted goes on where its parts are those it began with."""
    items = [Item(Path("a.png"), 0, "a"), Item(Path("b.png"), 1, "b"), Item(Path("c.png"), 2, "c")]
    parts = [find_images(Listed(*items), Path(), CLASSES, test=0, validation=0, seed=0) for _ in range(2)]
    assert repr(parts[0]) == repr(parts[1]) and "layout listed" in repr(parts[0])
