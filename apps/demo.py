"""`python -m apps.demo [medical] [earth] [sky]`: each domain does its main job, and one page leads to the results."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared_backbones.errors import InputError

OUTPUT = Path("demo-output")
SCAN = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SEED = 7  # of the drawn scene and of the drawn sky
SIDE = 512  # of the scene, in pixels of 10 m
GALAXIES = 4  # along each side of the sky
APART, WIDE, AROUND = 130, 92, 45  # pixels of 0.396 arcsec from one to the next, of each, and around all of them


@dataclass(frozen=True)
class Shown:
    """What the page says of a domain.

    Attributes:
        title: What was done.
        text: To what.
        command: The command that did it.
        files: Files that it made, and what each is.
        picture: One of them that is a picture, if there is one.
    """

    title: str
    text: str
    command: str
    files: list[tuple[Path, str]]
    picture: Path | None = None


def average_brain() -> Path:
    """Find the average T1-weighted brain of 152 people (ICBM 2009a, 1 mm, skull-stripped) in the nilearn package.

    Nothing of nilearn is imported.

    Raises:
        InputError: nilearn is not installed, or does not hold the scan.
    """
    package = importlib.util.find_spec("nilearn")
    if package is None or package.origin is None:
        raise InputError('nilearn, which holds the demo scan, is not installed; run: pip install "domain-vision[demo]"')
    scan = Path(package.origin).parent / SCAN
    if not scan.is_file():
        raise InputError(f'this nilearn does not hold {SCAN}; run: pip install "nilearn==0.14.1"')
    return scan


def medical() -> Shown:
    """Segment the average brain."""
    command = run("medvision", "segment", "--input", average_brain(), "--output", OUTPUT)
    stem = SCAN.rpartition("/")[2].removesuffix(".nii.gz")
    return Shown(
        "medvision: brain structures",
        "The average T1-weighted brain of 152 people (ICBM 2009a), which the package nilearn holds.",
        command,
        [
            (OUTPUT / f"{stem}_report.html", "report: pictures, flags, volumes, a viewer, a form for a verdict"),
            (OUTPUT / f"{stem}_seg.nii.gz", "label map on the scan's own grid"),
            (OUTPUT / f"{stem}_volumes.csv", "volumes"),
            (OUTPUT / f"{stem}_seg.json", "side-car: figures, hashes, settings"),
        ],
    )


def draw_scene(path: Path) -> None:
    """Draw a Sentinel-2 scene of 5 km with fields, woods, a lake, a town, and a cloud with its shadow.

    Args:
        path: The GeoTIFF to write: reflectance x 10000 in 10 m pixels, with the bands' names.

    Raises:
        InputError: rasterio or earthlib is not installed.
    """
    import numpy as np

    from geovision.spectra.drawing import SceneDrawer
    from geovision.spectra.responses import HALF_POWER
    from shared_backbones.errors import require
    from shared_backbones.files import replacing

    rasterio = require("rasterio", "demo")
    scene = SceneDrawer("test").landscape("sentinel2_l2a", SIDE, np.random.default_rng(SEED))
    bands = list(HALF_POWER["sentinel2_l2a"])
    profile = {
        "driver": "GTiff", "count": len(bands), "height": SIDE, "width": SIDE, "dtype": "uint16", "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_300_000), "compress": "deflate",
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as place, rasterio.open(place, "w", **profile) as target:
        target.write(np.clip(np.rint(scene.images[0] * 10_000), 0, 65_535).astype(np.uint16))
        for number, band in enumerate(bands, 1):
            target.set_band_description(number, band)


def earth() -> Shown:
    """Map a drawn scene."""
    scene, target = OUTPUT / "scene.tif", OUTPUT / "scene_map.tif"
    draw_scene(scene)
    command = run("geovision", "map", "--input", scene, "--output", target)
    return Shown(
        "geovision: types of surfaces",
        f"A scene of 5 km as Sentinel-2 would see it, drawn from spectra with seed {SEED}; no satellite took it.",
        command,
        [
            (
                OUTPUT / "scene_map_report.html",
                "report: scene, classes and confidence on one canvas, areas, a form for a verdict",
            ),
            (target, "map on the scene's own grid, a cloud-optimised GeoTIFF"),
            (target.with_suffix(".json"), "side-car: areas, hashes, settings"),
            (scene, "the scene"),
        ],
        target.with_suffix(".png"),
    )


def draw_sky(image: Path, catalogue: Path) -> None:
    """Draw a field of galaxies as SDSS would see it, and list them.

    Args:
        image: The FITS file to write: fluxes of i, r and g in nanomaggies, with a WCS.
        catalogue: The table to write: number, position and what was drawn.

    Raises:
        InputError: astropy is not installed.
    """
    import numpy as np
    from scipy.signal.windows import tukey

    from astrovision.datasets.phantoms import PHANTOMS, phantom
    from astrovision.stretches import SDSS_BANDS, Stretch
    from shared_backbones.errors import require
    from shared_backbones.files import replacing

    fits, wcs, table = (require(f"astropy.{name}", "demo") for name in ("io.fits", "wcs", "table"))
    random, side = np.random.default_rng(SEED), GALAXIES * APART + 2 * AROUND
    sky = random.normal(0, 0.004, (3, side, side)).astype(np.float32)
    fade = np.outer(tukey(WIDE, 0.3), tukey(WIDE, 0.3)).astype(np.float32)
    kinds = [str(kind) for kind in random.permutation(np.resize(list(PHANTOMS), GALAXIES**2))]
    places = np.indices((GALAXIES, GALAXIES)).reshape(2, -1).T * APART + (APART - WIDE) // 2 + AROUND
    for kind, (top, left) in zip(kinds, places, strict=True):
        seen = Stretch("sdss", {}).invert(phantom(kind, random, WIDE).transpose(2, 0, 1).astype(np.float32) / 255)
        light = seen - np.median(seen[:, fade < 0.1], -1)[:, None, None]  # without the sky around it
        sky[:, top : top + WIDE, left : left + WIDE] += fade * light
    frame = wcs.WCS(naxis=2)
    frame.wcs.ctype, frame.wcs.crval, frame.wcs.crpix = ["RA---TAN", "DEC--TAN"], [180, 30], [side / 2 + 0.5] * 2
    frame.wcs.cdelt = np.array([-0.396, 0.396]) / 3600
    header = frame.to_header()
    header.update({"BANDS": "".join(SDSS_BANDS), "BUNIT": "nanomaggy"})
    # a picture's first row is above, that of FITS below
    ra, dec = frame.all_pix2world((places + (WIDE - 1) / 2) @ [[0, -1], [1, 0]] + [0, side - 1], 0).T
    rows = table.Table({"id": np.arange(1, len(kinds) + 1), "ra": ra, "dec": dec, "drawn": kinds})
    image.parent.mkdir(parents=True, exist_ok=True)
    with replacing(image) as place:
        fits.PrimaryHDU(sky[:, ::-1], header).writeto(place, overwrite=True)
    with replacing(catalogue) as place:
        rows.write(place, format="ascii.csv", overwrite=True)


def sky() -> Shown:
    """Classify drawn galaxies."""
    image, catalogue, target = OUTPUT / "sky.fits", OUTPUT / "sky_catalogue.csv", OUTPUT / "galaxies.vot"
    draw_sky(image, catalogue)
    command = run(
        "astrovision", "classify", "--input", image, "--catalogue", catalogue, "--output", target,
        "--keep-columns", "drawn", "--gallery", str(GALAXIES**2),
    )  # fmt: skip
    return Shown(
        "astrovision: shapes of galaxies",
        f"A field of {GALAXIES**2} galaxies as SDSS would see it, drawn with seed {SEED}; no telescope took it. "
        "The model, which knows real ones, calls them outliers.",
        command,
        [
            (OUTPUT / "galaxies_gallery.html", "gallery: the doubtful ones first, a key for each label"),
            (target, "table of classes, probabilities and positions, and of what was drawn"),
            (target.with_suffix(".json"), "side-car: hashes, settings"),
            (image, "the sky, with its WCS"),
            (catalogue, "its galaxies"),
        ],
    )


DOMAINS: dict[str, Callable[[], Shown]] = {"medical": medical, "earth": earth, "sky": sky}


def write_page(shown: list[Shown]) -> Path:
    """Write the page that leads to what was made; returns its path."""
    from pipelines.report.page import render_page
    from pipelines.report.sections import Cell, Column, Page, Picture, Section, Table, Text
    from shared_backbones.files import replacing

    sections = []
    for number, part in enumerate(shown):
        rows = [[Cell(path.name, link=path.name), Cell(what)] for path, what in part.files]
        pictures = [Picture.of(part.picture)] if part.picture is not None else []
        blocks = [Text(part.text), Text(part.command, small=True), *pictures]
        table = Table([Column("File"), Column("What it is", wide=True)], rows)
        sections.append(Section(f"part-{number}", part.title, [*blocks, table], part.title))
    page = Page(
        "domain-vision: demo", "Demo", "What each program makes of a file", "Files lie beside this page.", sections,
        "Made by python -m apps.demo.",
    )  # fmt: skip
    with replacing(OUTPUT / "index.html") as path:
        path.write_text(render_page(page), encoding="utf-8")
    return OUTPUT / "index.html"


class Failed(Exception):
    """A program ended with an exit code other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run(program: str, *arguments: str | Path) -> str:
    """Run one of our programs, which says what it does; returns the command as a user types it.

    Raises:
        Failed: it failed.
    """
    command = " ".join([program, *(str(part) if part == OUTPUT else Path(part).name for part in map(str, arguments))])
    print(f"$ {command}", flush=True)
    done = subprocess.run([Path(sys.executable).with_name(program), *arguments])  # noqa: S603 - our own program
    if done.returncode:
        raise Failed(done.returncode)
    return command


def main(names: list[str]) -> int:
    """Run the demo of some domains, by default of all; returns the exit code of the first that fails."""
    unknown = [name for name in names if name not in DOMAINS]
    if unknown:
        print(f"demo {unknown[0]}: is unknown; expected one of: {', '.join(DOMAINS)}", file=sys.stderr)
        return 2
    try:
        page = write_page([DOMAINS[name]() for name in names or DOMAINS])
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except Failed as failed:
        return failed.code
    print(f"demo: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
