"""A small data set in every layout, made from seeds with the libraries that users make theirs with."""

import csv
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import rasterio
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from PIL import Image
from rasterio.transform import from_origin

SENTINEL2 = [*(f"B{n}" for n in range(1, 9)), "B8A", *(f"B{n}" for n in range(9, 13))]
GALAXIES = ("elliptical", "edge_on", "spiral_acw", "spiral_cw")


# Volumes


def _case(number: int, classes: int, shape: tuple[int, int, int] = (36, 32, 9)) -> tuple[np.ndarray, np.ndarray]:
    """An image in [0, 1] and labels, both with every class somewhere."""
    random = np.random.default_rng(number)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, classes):
        first = 3 * label + number % 3
        labels[first : first + 3, 6:26, 1 : shape[2] - 1] = label
    return (labels / classes + random.random(shape) * 0.2).astype(np.float32), labels


def _save(path: Path, values: np.ndarray, spacing_mm: tuple[float, float, float] = (1.5, 1.5, 8.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(values, np.diag([*spacing_mm, 1])).to_filename(path)


def msd(root: Path) -> None:
    for number in (1, 2, 3, 4, 221, 222):
        image, labels = _case(number, 3)
        _save(root / "imagesTr" / f"hippocampus_{number:03}.nii.gz", image * 300, (1.5, 1.5, 1.5))
        _save(root / "labelsTr" / f"hippocampus_{number:03}.nii.gz", labels, (1.5, 1.5, 1.5))


def pairs(root: Path) -> None:
    for number in range(6):
        image, labels = _case(number, 3)
        _save(root / "scans" / f"patient {number}.nii", image * 300 + 50)
        _save(root / "regions" / f"patient {number}.nii", labels)


def synapse(root: Path) -> None:
    for number in (5, 6, 8):
        image, labels = _case(number, 9)
        _save(root / "img" / f"img{number:04}.nii.gz", image * 400 - 200)
        _save(root / "label" / f"label{number:04}.nii.gz", np.array([0, 8, 4, 3, 2, 6, 11, 1, 7], np.uint8)[labels])


def _arrays(root: Path, train: str, test: str, slices: str, volume: str, classes: int) -> None:
    for folder in (train, test):
        (root / folder).mkdir()
    image, labels = _case(0, classes)
    for z in range(image.shape[2]):
        np.savez(root / train / slices.format(z), image=image[..., z], label=labels[..., z].astype(np.float32))
    image, labels = _case(1, classes)
    with h5py.File(root / test / volume, "w") as file:
        file["image"], file["label"] = np.moveaxis(image, 2, 0), np.moveaxis(labels, 2, 0).astype(np.float32)


def synapse_arrays(root: Path) -> None:
    _arrays(root, "train_npz", "test_vol_h5", "case0005_slice{:03}.npz", "case0008.npy.h5", 9)


def avt(root: Path) -> None:
    _arrays(root, "train", "test", "R2 (AD)_slice_{}.npz", "R1 (AD).h5", 2)


def acdc(root: Path) -> None:
    for number, split in enumerate(("training", "training", "training", "testing"), 1):
        for frame in (1, 12):
            image, labels = _case(10 * number + frame, 4, (36, 32, 6))
            folder = root / split / f"patient{number:03}"
            _save(folder / f"patient{number:03}_frame{frame:02}.nii.gz", image * 500)
            _save(folder / f"patient{number:03}_frame{frame:02}_gt.nii.gz", labels)


def lits(root: Path) -> None:
    for number in range(5):
        image, labels = _case(number, 3)
        folder = root / f"Training Batch {1 + number % 2}"
        _save(folder / f"volume-{number}.nii", image * 400 - 200, (1.5, 1.5, 3.0))
        _save(folder / f"segmentation-{number}.nii", labels, (1.5, 1.5, 3.0))


def heads(root: Path) -> None:
    """Label maps with FreeSurfer's ids inside the skull (507) and the scalp (502)."""
    side = 40
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    for number in range(2):
        labels = np.zeros((side,) * 3, np.int16)
        radius = np.sqrt(x**2 + (y / (1.1 - 0.1 * number)) ** 2 + z**2)
        for outer, structure in ((0.88, 502), (0.8, 507), (0.74, 24), (0.68, 3), (0.48, 2), (0.3, 4), (0.2, 10)):
            labels[radius < outer] = structure
        for left, right in ((2, 41), (3, 42), (4, 43), (10, 49)):
            labels[(labels == left) & (x > 0)] = right
        _save(root / f"head_{number}.nii.gz", labels, (1, 1, 1))


# Scenes and satellite images


def _raster(
    path: Path, values: np.ndarray, bands: list[str] | None = None, edge: float = 10, nodata: float | None = None
) -> None:
    """A GeoTIFF of `(C, H, W)` in EPSG:32633."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs="EPSG:32633",
        transform=from_origin(500_000, 5_100_000, edge, edge), nodata=nodata,
    ) as target:  # fmt: skip
        target.write(values)
        for number, name in enumerate(bands or [], 1):
            target.set_band_description(number, name)


def _spectra(label: int, bands: int, side: int, seed: int) -> np.ndarray:
    """Numbers `(bands, side, side)` that tell a class apart by its spectrum."""
    random = np.random.default_rng(seed)
    spectrum = 900 + 700 * ((np.arange(bands) + label * 3) % 5)[:, None, None]
    return (spectrum + random.integers(0, 200, (bands, side, side))).astype(np.uint16)


def scenes(root: Path) -> None:
    """Three dates of one place with a label raster for all; one corner of each was not seen."""
    labels = np.full((1, 64, 64), 4, np.uint8)
    for row in range(4, 64, 16):
        for column in range(4, 64, 16):
            labels[0, row : row + 8, column : column + 8] = 2
    labels[0, :, :2] = 0
    for number in range(3):
        random = np.random.default_rng(number)
        values = np.where(labels == 2, 3000, 900) + random.integers(0, 300, (3, 64, 64))
        values[:, :10, 50 - 10 * number :] = 0
        _raster(root / "images" / f"date_{number}.tif", values.astype(np.uint16), ["B2", "B3", "B8A"], nodata=0)
    _raster(root / "labels" / "all.tif", labels)


def float_scenes(root: Path) -> None:
    """Two places of reflectances in floating point, not known where NaN, each with its own label raster."""
    for number in range(2):
        random = np.random.default_rng(number)
        labels = (np.indices((64, 64)).sum(0) // 16 % 3).astype(np.uint8)
        values = labels * 0.1 + 0.05 + random.random((6, 64, 64)) * 0.02
        values[:, 20:30, 5 + 30 * number : 20 + 30 * number] = np.nan
        labels[40:44] = 255
        _raster(root / "images" / f"place_{number}.tif", values.astype(np.float32))
        _raster(root / "labels" / f"place_{number}.tif", labels[None])


def rgb_folders(root: Path) -> None:
    """`<class>/<image>` of three classes, with lists of the splits as torchgeo brings them."""
    listed: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(("beach", "forest", "harbor")):
        (root / name).mkdir(parents=True)
        for number in range(8):
            values = (_spectra(label, 3, 24, 10 * label + number) // 16).clip(0, 255).astype(np.uint8)
            Image.fromarray(values.transpose(1, 2, 0)).save(root / name / f"{name}_{number}.png")
            listed["val" if number == 6 else "test" if number == 7 else "train"].append(f"{name}_{number}.png")
    for split, names in listed.items():
        (root / f"uc_merced-{split}.txt").write_text("\n".join(names) + "\n")


def eurosat(root: Path) -> None:
    for label, name in enumerate(("AnnualCrop", "Forest", "River")):
        for number in range(12):  # without names of bands, B8A the last, as the data set has them
            _raster(root / name / f"{name}_{number}.tif", _spectra(label, 13, 16, 100 * label + number))


def bigearthnet(root: Path) -> None:
    """Folders with a file for each band, of three pixel sizes, and the labels of each patch."""
    names = ["Continuous urban fabric", "Rice fields", "Pastures", "Airports", "Sea and ocean"]
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in range(15):
        patch = f"S2A_MSIL2A_2017_{number}"
        splits["test" if number % 5 == 4 else "val" if number % 5 == 3 else "train"].append(patch)
        for band in SENTINEL2:
            if band != "B10":
                edge = 10 if band in {"B2", "B3", "B4", "B8"} else 60 if band in {"B1", "B9"} else 20
                written = band if band == "B8A" else f"B{int(band[1:]):02}"
                _raster(
                    root / patch / f"{patch}_{written}.tif", _spectra(number % 4, 1, 120 // edge, number), edge=edge
                )
        labels = ["Airports", names[number % 3]] if number % 4 == 3 else [names[number % 5], names[(number + 2) % 5]]
        (root / patch / f"{patch}_labels_metadata.json").write_text(json.dumps({"labels": labels}))
    for split, patches in splits.items():
        (root / f"{split}.csv").write_text("\n".join(patches) + "\n")


def fmow_sentinel(root: Path) -> None:
    """Reflectances in floating point; a corner of each image is not known."""
    for table, count in (("train", 8), ("val", 4), ("test_gt", 4)):
        root.mkdir(exist_ok=True)
        with open(root / f"{table}.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["", "category", "location_id", "image_id", "timestamp"])
            for number in range(count):
                name = ("airport", "barn")[number % 2]
                rows.writerow([number, name, number, 3, "2019-01-01T00:00:00Z"])
                path = root / table / name / f"{name}_{number}" / f"{name}_{number}_3.tif"
                values = _spectra(number % 2, 13, 16, number + 100 * len(table)) + np.float32(0.25)
                values[:, :3, : 1 + number] = -1
                _raster(path, values, nodata=-1)


def fmow_rgb(root: Path) -> None:
    """JPEG files, each with the box of what it shows."""
    for table, count in (("train", 8), ("val", 4), ("test_gt", 4)):
        for number in range(count):
            name = ("airport", "barn")[number % 2]
            folder = root / table / name / f"{name}_{number}"
            folder.mkdir(parents=True)
            values = (_spectra(number % 2, 3, 40, number + 100 * len(table)) // 16).clip(0, 255).astype(np.uint8)
            Image.fromarray(values.transpose(1, 2, 0)).save(folder / f"{name}_{number}_0_rgb.jpg", quality=95)
            boxes = [{"box": [4, 6, 24, 20], "category": name}]
            (folder / f"{name}_{number}_0_rgb.json").write_text(json.dumps({"bounding_boxes": boxes}))


# Galaxies


def _galaxy(kind: str, seed: int, side: int = 48) -> np.ndarray:
    """A noisy galaxy `(side, side, 3)` uint8 of a class, turned at random."""
    random = np.random.default_rng(seed)
    y, x = (np.mgrid[:side, :side] - side / 2 + 0.5) / (side / 2)
    turn = random.uniform(0, 2 * np.pi)
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    if kind == "elliptical":
        light = np.exp(-6 * radius)
    elif kind == "edge_on":
        light = np.exp(-6 * np.hypot(x / 2, y * 4))
    else:
        hand = 1 if kind == "spiral_acw" else -1
        light = np.exp(-3 * radius) * (0.55 + 0.45 * np.cos(2 * angle + hand * 9 * radius))
    image = light[..., None] * (0.9, 0.8, 0.6) + random.normal(0, 0.02, (side, side, 3))
    return (image.clip(0, 1) * 255).astype(np.uint8)


def galaxy10(root: Path) -> None:
    random = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    with h5py.File(root / "Galaxy10_DECals.h5", "w") as file:
        labels = np.sort(np.arange(40) % 4)
        file["images"] = np.stack([_galaxy(GALAXIES[label], n, 40) for n, label in enumerate(labels)])
        file["ans"] = labels.astype(np.uint8)
        file["ra"] = random.random(40)


def cutouts(root: Path) -> None:
    """A folder with a table of names of classes, some of which recipes merge or leave out."""
    (root / "images").mkdir(parents=True)
    with open(root / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["objid", "class_name"])
        for label, name in enumerate((*GALAXIES, "edge_on_bulge", "star")):
            for number in range(10):
                key = f"58773{label}{number:03}"
                image = _galaxy("edge_on" if label > 3 else name, 100 * label + number)
                Image.fromarray(image).save(root / "images" / f"{key}.jpg", quality=95)
                rows.writerow([key, name])


def galaxy_folders(root: Path) -> None:
    """`<split>/<class>/<image>`."""
    for seed, (split, count) in enumerate((("train", 8), ("valid", 3), ("test", 3))):
        for label, name in enumerate(GALAXIES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                image = _galaxy(name, 1000 * seed + 100 * label + number)
                Image.fromarray(image).save(root / split / name / f"{number}.png")


def mosaic(root: Path) -> None:
    """A FITS file for each band, and a catalogue of what is there and of sources off the image."""
    side, scale_arcsec = 240, 0.4
    root.mkdir(exist_ok=True)
    sky = WCS(naxis=2)
    sky.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    sky.wcs.crval, sky.wcs.crpix = [150, 2], [side / 2, side / 2]
    sky.wcs.cdelt = [-scale_arcsec / 3600, scale_arcsec / 3600]
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    light = np.zeros((side, side))
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(7)), -1).reshape(-1, 2)
    places = grid * 32 + 24 + random.uniform(-3, 3, grid.shape)
    places[0] = 3, 40  # its cut-out is partly off the image
    for number, (left, top) in enumerate(places):
        turn = random.uniform(0, np.pi)
        along = (x - left) * np.cos(turn) + (y - top) * np.sin(turn)
        across = (y - top) * np.cos(turn) - (x - left) * np.sin(turn)
        width = (4, 4) if number % 2 == 0 else (8, 2)
        light += np.exp(-((along / width[0]) ** 2) - (across / width[1]) ** 2)
    for number, (band, flux) in enumerate(zip("grizy", (2.0, 4.0, 8.0, 3.0, 5.0), strict=True)):
        plane = light * flux + np.random.default_rng(number).normal(0, 0.03, light.shape)
        header = sky.to_header()
        header["FILTER"] = band
        fits.PrimaryHDU(plane.astype(np.float32), header).writeto(root / f"{band}.fits")
    ra, dec = np.transpose(sky.all_pix2world(places, 0))
    labels = ["elliptical" if number % 2 == 0 else "disk" for number in range(len(places))]
    Table({
        "objid": [f"s{number}" for number in range(len(places) + 1)],
        "ra": [*ra, 140.0], "dec": [*dec, 2.0], "col": [*places[:, 0], -600.0], "row": [*places[:, 1], 50.0],
        "label": [*labels, "disk"], "part": [["train", "train", "train", "val", "test"][n % 5] for n in range(50)],
    }).write(root / "sources.fits")  # fmt: skip


def nothing(root: Path) -> None:
    """Images that are drawn need no files."""


# Medical images


def _medmnist(path: Path, classes: int, several: bool) -> None:
    """What shows a class is brightness on the right side."""
    arrays, random = {}, np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 32), ("val", 16), ("test", 16)):
        images = random.integers(0, 60, (count, 28, 28))
        labels = (np.arange(count) % classes)[:, None]
        if several:
            labels = random.integers(0, 2, (count, classes))
            labels[0] = 0
        for image, label in zip(images, labels[:, 0], strict=True):
            image[:, 14:] += 100 * label
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels.astype(np.uint8)}
    np.savez(path, **arrays)


def pneumoniamnist(root: Path) -> None:
    _medmnist(root / "pneumoniamnist.npz", 2, several=False)


def chestmnist(root: Path) -> None:
    _medmnist(root / "chestmnist.npz", 14, several=True)


def _slide(label: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 90, (40, 36, 3))
    values[:, :, label % 3] += 100
    return values.astype(np.uint8)


def tiles(root: Path) -> None:
    """`<class>/<image>`, in colours or, repeated, in grey, of other sides than the network takes."""
    for label, name in enumerate(("stroma", "tumour", "mucus")):
        (root / name).mkdir(parents=True)
        for number in range(10):
            image = _slide(label, 100 * label + number)
            Image.fromarray(image if number % 3 else image[..., 0]).save(root / name / f"{number}.png")


def radiographs(root: Path) -> None:
    """A table with a column of splits, and images in folders below, named by their paths."""
    with_split = ("train", "train", "train", "val", "test")
    (root / "pictures" / "a").mkdir(parents=True)
    with open(root / "findings.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "finding", "part"])
        for number in range(40):
            name = f"a/{number}.png" if number % 2 else f"{number}.png"
            Image.fromarray(_slide(number % 4 // 2, number)[..., 0]).save(root / "pictures" / name)
            rows.writerow([name, ["normal", "unsure", "bacterial", "viral"][number % 4], with_split[number % 5]])
