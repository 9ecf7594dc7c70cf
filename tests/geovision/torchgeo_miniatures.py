"""Data sets of torchgeo in miniature: files as the publishers lay them out, with values made up here."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from rasterio.transform import from_origin
from scipy.io import wavfile

from tests.geovision.rasters import write_scene

S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
SPLITS = {"train": 4, "val": 2, "test": 2}


@dataclass(frozen=True)
class Miniature:
    """A data set in miniature.

    Attributes:
        write: Writes it into a folder.
        splits: Torchgeo's names of its splits with labels, by ours.
        classes: Names, or values in masks, of its classes.
        sensor: Sensor of the recipe.
        bands: Bands of the recipe, in an order that is not the files'.
        places: Places of those bands in torchgeo's images.
        side: Side of its images in pixels.
        options: `data.options`.
        settings: Further settings of `data`.
    """

    write: Callable[[Path], None]
    splits: dict[str, str]
    classes: Sequence[Any]
    sensor: str = "rgb"
    bands: tuple[str, ...] = ("blue", "red", "green")
    places: tuple[int, ...] = (2, 0, 1)
    side: int = 16
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def numbers(seed: int, *shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def picture(path: Path, seed: int, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers(seed, side, side, 3).astype(np.uint8)).save(path)


def mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def listed(root: Path, prefix: str, classes: Sequence[str], write: Callable[[str, str, int], str]) -> None:
    """Images of each class and split, and a list of the names in each split."""
    for start, (split, count) in enumerate(SPLITS.items()):
        names = [
            write(name, f"{name}_{100 * start + n}", 1000 * start + 10 * label + n)
            for label, name in enumerate(classes)
            for n in range(count)
        ]
        (root / f"{prefix}-{split}.txt").write_text("\n".join(names) + "\n")


def eurosat(root: Path) -> None:
    home = root / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"

    def write(folder: str, stem: str, seed: int) -> str:
        write_scene(home / folder / f"{stem}.tif", (numbers(seed, 13, 16, 16, high=4000) + 1).astype(np.uint16))
        return f"{stem}.jpg"

    listed(root, "eurosat", ["Forest", "River", "SeaLake"], write)


def resisc45(root: Path) -> None:
    def write(folder: str, stem: str, seed: int) -> str:
        picture(root / "NWPU-RESISC45" / folder / f"{stem}.jpg", seed)
        return f"{stem}.jpg"

    listed(root, "resisc45", ["airplane", "beach"], write)


def ucmerced(root: Path) -> None:
    def write(folder: str, stem: str, seed: int) -> str:
        picture(root / "UCMerced_LandUse" / "Images" / folder / f"{stem}.tif", seed)
        return f"{stem}.tif"

    listed(root, "uc_merced", ["forest", "harbor"], write)


def patternnet(root: Path) -> None:
    for label, name in enumerate(["bridge", "coastal_mansion"]):
        for n in range(6):
            picture(root / "PatternNet" / "images" / name / f"{name}{n:03}.jpg", 10 * label + n)


def fire_risk(root: Path) -> None:
    for start, split in enumerate(("train", "val")):
        for label, name in enumerate(["High", "Low", "Water"]):
            for n in range(4):
                picture(root / "FireRisk" / split / name / f"{n}.png", 100 * start + 10 * label + n)


def millionaid(root: Path) -> None:
    for start, split in enumerate(("train", "test")):
        for label, place in enumerate(["water_area/beach", "transportation_land/airport_area/helipad"]):
            for n in range(3):
                picture(root / split / place / f"P{100 * start + 10 * label + n:07}.jpg", 100 * start + 10 * label + n)


def bigearthnet(root: Path) -> None:
    names = ["Continuous urban fabric", "Rice fields", "Pastures", "Airports", "Sea and ocean"]
    for start, (split, count) in enumerate(SPLITS.items()):
        rows = []
        for number in range(count):
            patch = f"S2A_MSIL2A_2017_{start}_{number}"
            for place, band in enumerate(S2):
                side = 120 if band in {"B02", "B03", "B04", "B08"} else 20 if band in {"B01", "B09"} else 60
                values = numbers(100 * start + 20 * number + place, 1, side, side, high=3000).astype(np.uint16)
                grid = from_origin(500_000, 5_100_000, 1200 / side, 1200 / side)
                write_scene(root / "BigEarthNet-v1.0" / patch / f"{patch}_{band}.tif", values, transform=grid)
            labels = [names[number % 5], "Pastures"] if number != 3 else ["Airports", "Rice fields"]
            about = root / "BigEarthNet-v1.0" / patch / f"{patch}_labels_metadata.json"
            about.write_text(json.dumps({"labels": labels}))
            rows.append(f"{patch},S1A_{number}")
        (root / f"bigearthnet-{split}.csv").write_text("\n".join(rows) + "\n")


def so2sat(root: Path) -> None:
    for start, (name, count) in enumerate({"training": 6, "validation": 4, "testing": 4}.items()):
        with h5py.File(root / f"{name}.h5", "w") as file:
            file["sen1"] = numbers(start, count, 16, 16, 8) / 1000 - 0.1
            file["sen2"] = numbers(start + 50, count, 16, 16, 10, high=2800) / 10000
            file["label"] = np.eye(17)[np.arange(count) * 3 % 17]


def advance(root: Path) -> None:
    for label, name in enumerate(["airport", "lake"]):
        for n in range(4):
            picture(root / "vision" / name / f"{label}{n}.jpg", 10 * label + n)
            (root / "sound" / name).mkdir(parents=True, exist_ok=True)
            wavfile.write(root / "sound" / name / f"{label}{n}.wav", 8000, np.zeros(8, np.int16))


def cowc(root: Path) -> None:
    places = ("Toronto_ISPRS", "Selwyn_LINZ", "Potsdam_ISPRS", "Vaihingen_ISPRS", "Columbus_CSUAV_AFRL", "Utah_AGRC")
    lists = ("COWC_train_list_detection.txt.bz2", "COWC_test_list_detection.txt.bz2")
    archives = [*lists, *(f"COWC_Detection_{place}.tbz" for place in places)]
    for name in archives:  # which torchgeo looks for, unpacked as they are
        (root / name).touch()
    for start, split in enumerate(("train", "test")):
        rows = []
        for n in range(5):
            picture(root / "Toronto" / f"{split}_{n}.png", 100 * start + n)
            rows.append(f"Toronto/{split}_{n}.png {n % 2}")
        (root / f"COWC_{split}_list_detection.txt").write_text("\n".join(rows) + "\n")


def loveda(root: Path) -> None:
    for start, split in enumerate(("Train", "Val", "Test")):
        for place, scene in enumerate(("Rural", "Urban")):
            for n in range(3):
                seed = 100 * start + 10 * place + n
                picture(root / split / scene / "images_png" / f"{seed}.png", seed, 32)
                if split != "Test":
                    mask(root / split / scene / "masks_png" / f"{seed}.png", numbers(seed + 7, 32, 32, high=8))


def landcoverai(root: Path) -> None:
    for start, (split, count) in enumerate(SPLITS.items()):
        ids = [f"M-33-{start}_{n}" for n in range(count)]
        for n, name in enumerate(ids):
            picture(root / "output" / f"{name}.jpg", 100 * start + n, 32)
            mask(root / "output" / f"{name}_m.png", numbers(100 * start + n, 32, 32, high=5))
        (root / f"{split}.txt").write_text("\n".join(ids) + "\n")


def gid15(root: Path) -> None:
    for start, split in enumerate(("train", "val", "test")):
        for n in range(3):
            seed = 100 * start + n
            picture(root / "GID" / "img_dir" / split / f"{seed}.tif", seed, 32)
            if split != "test":
                mask(root / "GID" / "ann_dir" / split / f"{seed}_15label.png", numbers(seed, 32, 32, high=16))


def deepglobe(root: Path) -> None:
    colors = np.array([[0, 255, 255], [255, 255, 0], [255, 0, 255], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3])
    for start, split in enumerate(("training_data", "test_data")):
        for n in range(4):
            seed = 100 * start + n
            picture(root / "data" / split / "images" / f"{seed}_sat.jpg", seed, 32)
            mask(root / "data" / split / "masks" / f"{seed}_mask.png", colors[numbers(seed, 32, 32, high=7)])


ALL = {"train": "train", "validation": "val", "test": "test"}
TEN = ("B12", "B2", "B8A", "B3")
CORINE = [
    "Urban fabric", "Industrial or commercial units", "Arable land", "Permanent crops", "Pastures",
    "Complex cultivation patterns", "Agriculture with natural vegetation", "Agro-forestry areas",
    "Broad-leaved forest", "Coniferous forest", "Mixed forest", "Natural grassland", "Moors and heathland",
    "Transitional woodland", "Beaches", "Inland wetlands", "Coastal wetlands", "Inland waters", "Marine waters",
]  # fmt: skip
LABELS = {
    "EuroSAT": Miniature(eurosat, ALL, ["Forest", "River", "SeaLake"], "sentinel2_l1c", TEN, (11, 1, 12, 2)),
    "RESISC45": Miniature(resisc45, ALL, ["airplane", "beach"]),
    "UCMerced": Miniature(ucmerced, ALL, ["forest", "harbor"], side=256),
    "PatternNet": Miniature(patternnet, {}, ["bridge", "coastal_mansion"]),
    "FireRisk": Miniature(fire_risk, {"train": "train", "validation": "val"}, ["High", "Low", "Water"]),
    "MillionAID": Miniature(millionaid, {"train": "train", "test": "test"}, ["beach", "helipad"]),
    "BigEarthNet": Miniature(
        bigearthnet, ALL, CORINE, "sentinel2_l2a", TEN, (11, 1, 8, 2), 120, {"bands": "s2"}, {"file_bands": S2}
    ),
    "So2Sat": Miniature(
        so2sat, {"train": "train", "validation": "validation", "test": "test"}, [f"zone {n}" for n in range(17)],
        "sentinel2_l2a", TEN, (17, 8, 15, 9), settings={"scale": 1.0},
    ),
    "COWCDetection": Miniature(cowc, {"train": "train", "test": "test"}, ["no car", "car"]),
    "ADVANCE": Miniature(advance, {}, ["airport", "lake"]),
}  # fmt: skip
MASKS = {
    "LoveDA": Miniature(loveda, {"train": "train", "validation": "val"}, range(8), side=32),
    "LandCoverAI": Miniature(landcoverai, ALL, range(5), side=32),
    "GID15": Miniature(gid15, {"train": "train", "validation": "val"}, range(16), side=32),
    "DeepGlobeLandCover": Miniature(deepglobe, {"train": "train", "test": "test"}, range(7), side=32),
}
