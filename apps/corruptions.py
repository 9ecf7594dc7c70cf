"""The page of all corruptions, and a sheet of pictures for each kind of image; `make docs` makes both."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from PIL import Image

import astrovision.corruptions as galaxies
import geovision.corruptions as scenes
import medvision.corruptions.images as images
import medvision.corruptions.volumes as volumes
from medvision.corruptions import medmnist_c
from pipelines.report.sheets import picture_sheet

Pictures = Iterator[tuple[str, list[np.ndarray]]]
"""For each corruption its name, the clean picture and those of severities 1 to 5, `(H, W, 3)` uint8."""
SEVERITIES = range(1, 6)
_MEANING = re.compile(r'^- `(\w+)`: (.+?)\.\n(?=- |\n|""")', re.MULTILINE | re.DOTALL)
_MEDMNIST = "pneumoniamnist"
_SEED = [7]
_CELL = 112, 112  # width and height of a picture in a sheet, in pixels
_BRAIN = 94  # side in pixels of 2 mm of the square that is shown of a slice


@dataclass(frozen=True)
class Family:
    """Corruptions of one kind of image.

    Attributes:
        name: What its sheet is called.
        title: Its heading.
        text: What the sheet shows.
        functions: By the corruption's name.
        scales: What is set at severities 1 to 5, by the corruption's name.
        module: Whose text below `SCALES`, if it has one, says what the numbers mean.
        pictures: Makes the pictures of the sheet.
    """

    name: str
    title: str
    text: str
    functions: Mapping[str, Callable[..., object]]
    scales: Mapping[str, Sequence[object]]
    module: ModuleType
    pictures: Callable[[], Pictures]

    def sheet(self) -> Image.Image:
        """The sheet: a row for each corruption, a column for the clean image and for each severity."""
        names, rows = zip(*self.pictures(), strict=True)
        above = ["clean", *(f"severity {severity}" for severity in SEVERITIES)]
        return picture_sheet(rows, size=_CELL, smooth=True, above=above, beside=names)

    def section(self) -> Iterator[str]:
        """Lines of the page: heading, sheet, and a table of what each corruption does."""
        yield from (f"## {self.title}", "", self.text, "")
        yield from (
            f"![A row for each corruption, without it and at severities 1 to 5](../reports/{self.name}.webp)",
            "",
        )
        yield from ("| corruption | what happens | at severities 1 to 5 |", "|---|---|---|")
        meanings = dict(_MEANING.findall(inspect.getsource(self.module)))
        for name, numbers in self.scales.items():
            what = (inspect.getdoc(self.functions[name]) or "").partition("\n\n")[0]
            meaning = f"; {meanings[name]}" if name in meanings else ""
            yield " ".join(f"| `{name}` | {what} | {', '.join(map(str, numbers))}{meaning} |".split())
        yield ""


def _of_brains() -> Pictures:
    volume, spacing = _average_brain()
    for name in volumes.SCALES["mr"]:
        corrupted = (
            volumes.corrupt_volume(name, volume, severity, spacing_mm=spacing, modality="mr", seed_key=_SEED)
            for severity in SEVERITIES
        )
        yield name, [_slice(value) for value in (volume, *corrupted)]


def _of_medical_images() -> Pictures:
    clean = np.asarray(Image.fromarray(_slice(_average_brain()[0])).resize((224, 224), Image.Resampling.BICUBIC))
    for name in medmnist_c.SETS[_MEDMNIST]:
        yield name, [clean, *(medmnist_c.corrupt(_MEDMNIST, name, clean, n, seed_key=_SEED) for n in SEVERITIES)]


def _of_scenes() -> Pictures:
    from geovision.pictures import limits, shown_bands, stretched
    from geovision.spectra.drawing import SceneDrawer
    from geovision.spectra.responses import HALF_POWER

    sensor = "sentinel2_l2a"
    bands = list(HALF_POWER[sensor])
    drawn = SceneDrawer("test").landscape(sensor, 128, np.random.default_rng(_SEED)).images * 10_000
    spectrum = scenes.Spectrum.of(drawn, sensor, bands)
    shown = [bands.index(band) for band in shown_bands(bands)]
    between = limits(drawn[0][shown])
    for name in scenes.SCALES:
        row = [drawn[0], *(scenes.corrupt(name, drawn[0], n, spectrum, seed_key=_SEED) for n in SEVERITIES)]
        yield name, [stretched(image[shown], between) for image in row]


def _of_galaxies() -> Pictures:
    from astrovision.datasets.phantoms import phantom

    clean = phantom("spiral_cw", np.random.default_rng(_SEED), 92).transpose(2, 0, 1).astype(np.float32) / 255
    for name in galaxies.SCALES:
        row = [clean, *(galaxies.corrupt(name, clean, n, seed_key=_SEED) for n in SEVERITIES)]
        yield name, [(255 * image).round().astype(np.uint8).transpose(1, 2, 0) for image in row]


def _average_brain() -> tuple[np.ndarray, list[float]]:
    """Every second voxel of the average brain `(X, Y, Z)`, and the spacing in mm."""
    import nibabel as nib

    from apps.demo import average_brain

    scan = nib.Nifti1Image.from_filename(average_brain())
    spacing = [2 * float(size) for size in scan.header.get_zooms()[:3]]
    return np.asarray(scan.dataobj, np.float32)[::2, ::2, ::2], spacing


def _slice(volume: np.ndarray) -> np.ndarray:
    """A square around the brain in the middle axial slice, the front above: `(H, W, 3)` uint8."""
    plane = np.rot90(volume[:, :, volume.shape[2] // 2])
    top, left = ((length - _BRAIN) // 2 for length in plane.shape)
    square = plane[top : top + _BRAIN, left : left + _BRAIN]
    return np.repeat(square.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


FAMILIES = (
    Family(
        "corruptions_volumes",
        "Volumes",
        "`medvision robustness` of a segmenter. These are of MR, on every second voxel of the ICBM152 average brain; "
        "CT has `noise`, `blur`, `anisotropy` and `contrast`, with numbers of its own.",
        volumes.CORRUPTIONS["mr"],
        volumes.SCALES["mr"],
        volumes,
        _of_brains,
    ),
    Family(
        "corruptions_images",
        "Medical images",
        "`medvision robustness` of a classifier. Each data set of MedMNIST-C has its own corruptions, with numbers for "
        f"images of 224 pixels. These are those of `{_MEDMNIST}`, on a slice of the same brain.",
        images.CORRUPTIONS,
        medmnist_c.SETS[_MEDMNIST],
        images,
        _of_medical_images,
    ),
    Family(
        "corruptions_scenes",
        "Satellite images",
        "`geovision robustness`, here on a drawn scene.",
        scenes.CORRUPTIONS,
        scenes.SCALES,
        scenes,
        _of_scenes,
    ),
    Family(
        "corruptions_galaxies",
        "Galaxies",
        "`astrovision robustness`, here on a drawn galaxy.",
        galaxies.CORRUPTIONS,
        galaxies.SCALES,
        galaxies,
        _of_galaxies,
    ),
)
