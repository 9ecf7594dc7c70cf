"""Data sets of torchgeo: which are read, and that they come as torchgeo's own readers give them."""

import dataclasses
import inspect
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchgeo.datasets

from geovision.datasets.images import read_images
from geovision.datasets.layouts import SatelliteItem
from geovision.datasets.patches import Cutting, cut
from geovision.datasets.torchgeo import SampleItem, TorchGeoImages, TorchGeoMasks
from geovision.datasets.torchgeo_classes import Target, options_of, reason_against
from geovision.sensors import find_sensor
from shared_backbones.errors import InputError
from shared_backbones.labelled_images import find_images, find_items, labels_of
from tests.geovision.torchgeo_miniatures import LABELS, MASKS, Miniature

CLASSES = {
    name: getattr(torchgeo.datasets, name)
    for name in torchgeo.datasets.__all__
    if inspect.isclass(getattr(torchgeo.datasets, name))
}
TARGETS: tuple[Target, ...] = ("label", "mask")
REASONS = (
    "is sampled by coordinates", "is no data set", "is a base of other classes", "reads pickles", "labels boxes",
    "has samples without 'image'", "has samples without 'label'", "has samples without 'mask'",
)  # fmt: skip


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("torchgeo")
    made = {}
    for name, miniature in (LABELS | MASKS).items():
        made[name] = folder / name
        made[name].mkdir()
        miniature.write(made[name])
    return made


def cutting(miniature: Miniature, **changes: Any) -> Cutting:
    sensor = find_sensor(miniature.sensor)
    how = Cutting(
        miniature.sensor, tuple(sensor.band(band).name for band in miniature.bands), sensor.scale or 1.0,
        miniature.side, miniature.side, 0.0,
        {"bands": miniature.settings.get("file_bands"), "scale": miniature.settings.get("scale")},
        tuple(range(len(miniature.classes))),
    )  # fmt: skip
    return dataclasses.replace(how, **changes)


def own_reader(name: str, root: Path, split: str, miniature: Miniature) -> Any:
    return CLASSES[name](str(root), **({"split": split} if split else {}), **miniature.options)


@pytest.mark.parametrize("name", LABELS)
def test_images_labels_bands_and_splits_are_those_of_torchgeos_own_reader(name: str, roots: dict[str, Path]):
    miniature, layout = LABELS[name], TorchGeoImages(name)
    how = cutting(miniature)
    sources = find_images(
        layout, roots[name], miniature.classes, test=0, validation=0, seed=1, options=miniature.options
    )
    splits = miniature.splits or {"train": ""}
    expected = {split: own_reader(name, roots[name], own, miniature) for split, own in splits.items()}
    assert {source.split for source in sources} == {*expected}
    for source in sources:
        arrays, record = read_images(source, how, len(miniature.classes))
        reader = expected[source.split]
        assert record["images"] == len(source.items) == len(reader) == len({item.key for item in source.items})
        unit = how.scale if miniature.settings.get("scale") is None else 1.0
        for item, image, target in zip(source.items, arrays["image"], arrays["targets"], strict=True):
            assert isinstance(item, SampleItem)
            sample = reader[item.number]
            seen = np.asarray(sample["image"])[list(miniature.places)] * (unit / how.scale)
            np.testing.assert_allclose(image, seen, rtol=1e-6, atol=1e-4 * (unit / how.scale))
            label = np.atleast_1d(np.asarray(sample["label"]))
            np.testing.assert_array_equal(np.flatnonzero(target), np.flatnonzero(label) if len(label) > 1 else label)
        assert arrays["valid"].all()


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_those_of_torchgeos_own_reader(name: str, roots: dict[str, Path]):
    miniature, layout = MASKS[name], TorchGeoMasks(name)
    how = cutting(miniature)
    items = find_items(layout, roots[name], [str(value) for value in miniature.classes])
    assert Counter(item.split for item in items) == {
        split: len(own_reader(name, roots[name], own, miniature)) for split, own in miniature.splits.items()
    }
    for item in items:
        assert isinstance(item, SampleItem)
        sample = own_reader(name, roots[name], item.part, miniature)[item.number]
        with layout.whole(item, item.split, how) as part:
            arrays, _ = cut(part, how)
            files = [part.scene, part.labels]
        assert not any(path is not None and path.exists() for path in files)
        np.testing.assert_array_equal(arrays["image"][0], np.asarray(sample["image"])[list(miniature.places)])
        np.testing.assert_array_equal(arrays["labels"][0], np.asarray(sample["mask"]))


def test_every_public_class_is_read_or_has_a_reason():
    said = {name: {target: reason_against(cls, target) for target in TARGETS} for name, cls in CLASSES.items()}
    for name, reasons in said.items():
        for reason in reasons.values():
            assert reason is None or reason.startswith(REASONS), f"{name}: {reason}"
    served = {target: {name for name, reasons in said.items() if reasons[target] is None} for target in TARGETS}
    assert {*LABELS} < served["label"] and {*MASKS} < served["mask"]
    assert len(served["label"]) > 20 and len(served["mask"]) > 40
    coordinates = {name for name, reasons in said.items() if "sampled by" in str(reasons["label"])}
    assert coordinates == {name for name, cls in CLASSES.items() if issubclass(cls, torchgeo.datasets.GeoDataset)}
    assert "reads pickles" in str(said["SKIPPD"]["label"])
    for name in served["label"] | served["mask"]:  # nothing in a recipe decides what is fetched or checked
        assert not {"root", "download", "checksum", "transforms"} & {*options_of(CLASSES[name])}


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("Eurosat", "data.layout torchgeo:Eurosat is unknown to torchgeo; did you mean EuroSAT"),
        ("SKIPPD", "data.layout torchgeo:SKIPPD: reads pickles"),
        ("Sentinel2", "data.layout torchgeo:Sentinel2: is sampled by coordinates"),
        ("stack_samples", "is unknown to torchgeo"),
    ],
)
def test_a_class_that_cannot_be_read_is_refused_by_name(member: str, said: str):
    with pytest.raises(InputError, match=re.escape(said)):
        TorchGeoImages(member)


def refused(name: str, root: Path, options: dict[str, Any] | None = None, classes: Any = None) -> str:
    with pytest.raises(InputError) as raised:
        find_items(TorchGeoImages(name), root, classes or LABELS[name].classes, options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def unopened(layout: TorchGeoImages, item: SatelliteItem, how: Cutting) -> str:
    with pytest.raises(InputError) as raised, layout.opened(item, how):
        pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_not_there_is_said_with_the_way_out(roots: dict[str, Path], tmp_path: Path):
    said = refused("EuroSAT", tmp_path)
    assert said.startswith(f"{tmp_path}: torchgeo:EuroSAT train: torchgeo finds no such data set there; give the fol")
    assert "torchgeo.datasets.EuroSAT(root, download=True)" in said and not [*tmp_path.iterdir()]
    said = refused("FireRisk", roots["FireRisk"], {"splits": {"train": "train", "test": "test"}})
    assert said == "data.options.splits: torchgeo:FireRisk has no split test; it has train, val"
    assert "expected torchgeo's names by train" in refused("FireRisk", roots["FireRisk"], {"splits": {"fit": "train"}})
    assert "unknown to the layout torchgeo:EuroSAT; expected: splits, bands" in refused(
        "EuroSAT", roots["EuroSAT"], {"download": True}
    )
    assert "data.options.bands of torchgeo:EuroSAT is '/etc/passwd'; expected plain" in refused(
        "EuroSAT", roots["EuroSAT"], {"bands": "/etc/passwd"}
    )
    assert "'B77' is an invalid band name" in refused("EuroSAT", roots["EuroSAT"], {"bands": ["B77"]})
    assert "has 3 classes (Forest, River, SeaLake), the recipe 2" in refused(
        "EuroSAT", roots["EuroSAT"], classes=["a", "b"]
    )
    assert "has samples without 'label'" in refused("LoveDA", roots["LoveDA"], classes=["a"])


def test_a_split_that_the_recipe_names_differently_is_taken(roots: dict[str, Path]):
    items = find_items(
        TorchGeoImages("FireRisk"), roots["FireRisk"], LABELS["FireRisk"].classes,
        {"splits": {"train": "train", "test": "val"}},
    )  # fmt: skip
    assert Counter(item.split for item in items) == {"train": 12, "test": 12}


def test_a_split_without_masks_is_left_out_unless_it_is_asked_for(roots: dict[str, Path]):
    layout, classes = TorchGeoMasks("LoveDA"), list("abcdefgh")
    assert layout.split_origin(roots["LoveDA"], classes, {}) == "torchgeo:LoveDA, train, val"
    with pytest.raises(InputError, match=r"test/0: has no mask; leave the split out of data\.options"):
        find_items(layout, roots["LoveDA"], classes, {"splits": {"train": "train", "test": "test"}})


def test_classes_are_told_by_name_whatever_their_order(roots: dict[str, Path]):
    items = find_items(TorchGeoImages("EuroSAT"), roots["EuroSAT"], ["Sea Lake", "forest", "River"])
    assert [labels_of(item)[0] for item in items if item.split == "validation"] == [1, 1, 2, 2, 0, 0]


def test_archives_are_not_unpacked_and_nothing_is_written(tmp_path: Path):
    (tmp_path / "UCMerced_LandUse.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    assert "its archives are not unpacked; unpack them" in refused("UCMerced", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["UCMerced_LandUse.zip"]
    module = sys.modules["torchgeo.datasets.ucmerced"]
    assert vars(module)["extract_archive"].__module__ == "torchvision.datasets.utils"


def test_a_changed_file_changes_what_the_samples_are_known_by(roots: dict[str, Path], tmp_path: Path):
    LABELS["PatternNet"].write(tmp_path)

    def digest() -> str:
        layout = TorchGeoImages("PatternNet")
        return find_images(layout, tmp_path, LABELS["PatternNet"].classes, test=0, validation=0, seed=1)[0].digest

    before = digest()
    assert digest() == before
    next(tmp_path.rglob("*.jpg")).write_bytes(b"another")
    assert digest() != before


def test_a_damaged_image_and_a_label_that_is_no_class_are_one_line_each(roots: dict[str, Path], tmp_path: Path):
    miniature = LABELS["COWCDetection"]
    layout = TorchGeoImages("COWCDetection")
    items = find_items(layout, roots["COWCDetection"], ["car"])
    said = [unopened(layout, item, cutting(miniature)) for item in items[:2] if item.key == "train/1"]
    assert said == ["torchgeo:COWCDetection train/1: its class is 1; the recipe has 1: add them to card.classes"]
    LABELS["PatternNet"].write(tmp_path)
    layout = TorchGeoImages("PatternNet")
    items = find_items(layout, tmp_path, LABELS["PatternNet"].classes)
    damaged = tmp_path / "PatternNet" / "images" / "bridge" / "bridge003.jpg"
    damaged.write_bytes(b"no picture")
    said = unopened(layout, items[3], cutting(LABELS["PatternNet"]))
    assert re.match("torchgeo:PatternNet sample/3: .*cannot identify", said)


def test_bands_without_names_are_asked_for_and_a_missing_one_is_named(roots: dict[str, Path]):
    miniature = LABELS["BigEarthNet"]
    layout = TorchGeoImages("BigEarthNet")
    [item, *_] = find_items(layout, roots["BigEarthNet"], miniature.classes, miniature.options)
    said = unopened(layout, item, dataclasses.replace(cutting(miniature), options={}))
    assert "has 12 bands, torchgeo does not name them; name them in order with data.file_bands" in said
    eurosat = TorchGeoImages("EuroSAT")
    [item, *_] = find_items(eurosat, roots["EuroSAT"], LABELS["EuroSAT"].classes, {"bands": ["B04", "B03"]})
    said = unopened(eurosat, item, cutting(LABELS["EuroSAT"]))
    assert said.startswith("torchgeo:EuroSAT train/0: lacks B12, B2, B8A of sentinel2_l1c; found B4, B3")
