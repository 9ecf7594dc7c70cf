"""`python -m apps.gallery SITE`: a report of each kind for the documentation, with its picture; all links are checked.

The reports are made of what the demo draws and of the average brain that it segments, two at a time.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from apps import demo
from apps.corruptions import FAMILIES
from shared_backbones.errors import InputError
from shared_backbones.files import replacing

if TYPE_CHECKING:
    from PIL import Image

WORK = demo.OUTPUT / "reports"
PICTURES = Path(__file__).parent.parent / "docs" / "reports"
WIDTH, HEIGHT = 1366, 900  # of the browser's window, in pixels
SIDE_BY_SIDE = ("segmentation", "map", "galaxies")  # in the picture of the README
SEED = 7
_SAME = 2.0  # of 255: pictures that differ by less show nothing new but a date
_SETTLED_MS = 1500  # until a page has drawn what it draws by scripts
_PATIENCE_MS = 180_000  # with a browser on a busy machine
_SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-compositing")
_VIEWER = """new Promise((done) => {
    const panel = document.getElementById("viewer-panel");
    if (!panel) return done(false);
    document.getElementById("open-viewer").click();
    let left = 300;
    const wait = setInterval(() => {
        if (panel.hidden && left-- > 0) return;
        clearInterval(wait);
        panel.scrollIntoView();
        done(!panel.hidden);
    }, 100);
})"""


@dataclass(frozen=True)
class Report:
    """A report that was made.

    Attributes:
        name: What its page and its picture are called.
        page: Its HTML file.
        look: JavaScript that brings the page into the state that the picture shows.
        folder: Whether the page leads to others below its folder, which go along.
        states: JavaScript for each further picture of the page, by the picture's name; where it gives `false`, the
            page has nothing of the kind, and no picture is taken.
    """

    name: str
    page: Path
    look: str = ""
    folder: bool = False
    states: Mapping[str, str] = field(default_factory=dict)

    def put(self, site: Path) -> Path:
        """Copy it into the reports of the built pages; returns its place there."""
        if not self.folder:
            return Path(shutil.copyfile(self.page, site / f"{self.name}.html"))
        below = site / self.name
        for page in [self.page, *self.page.parent.glob("*/*.html")]:
            target = below / page.relative_to(self.page.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, target)
        return below / self.page.name


def brains() -> list[Report]:
    """Segment the average brain, and copies of it as they come out of a scanner when something goes wrong."""
    import nibabel as nib
    import numpy as np

    from medvision.corruptions.volumes import corrupt_volume

    scan = nib.Nifti1Image.from_filename(demo.average_brain())
    spacing = [float(size) for size in scan.header.get_zooms()[:3]]
    average = np.asarray(scan.dataobj, np.float32)
    scans, pairs = WORK / "scans", WORK / "pairs"

    def write(path: Path, volume: np.ndarray, step: int = 1) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = scan.affine @ np.diag([step, step, step, 1])
        values = np.clip(np.rint(volume), 0, 255).astype(np.uint8)[::step, ::step, ::step]
        nib.Nifti1Image(values, affine).to_filename(path)

    def corrupted(name: str, severity: int) -> np.ndarray:
        return corrupt_volume(name, average, severity, spacing_mm=spacing, modality="mr", seed_key=[SEED])

    write(scans / "average.nii.gz", average)
    write(scans / "motion.nii.gz", corrupted("motion", 5))
    write(scans / "spike.nii.gz", corrupted("spike", 4))
    demo.run("medvision", "segment", "--input", scans, "--output", WORK / "brains", "--overwrite")
    result = nib.Nifti1Image.from_filename(WORK / "brains" / "average_seg.nii.gz")
    tissues = np.array([0, 1, 2, 2, 2, 0, 0, 1, 1, 2])[np.asarray(result.dataobj)]
    for name in ("bias_field", "noise", "blur", "anisotropy", "motion", "ghosting"):
        write(pairs / "images" / f"{name}.nii.gz", corrupted(name, 3), 2)
        write(pairs / "labels" / f"{name}.nii.gz", tissues, 2)
    return [
        Report("segmentation", WORK / "brains" / "average_report.html", states={"viewer": _VIEWER}),
        Report("batch", WORK / "brains" / "index.html", folder=True),
    ]


def training() -> list[Report]:
    """Train a small 3-D network to tell white from grey matter, on copies of one brain."""
    recipe = {
        "name": "tissues", "output": str(WORK / "tissues"), "seed": 1,
        "data": {
            "kind": "volume_patches", "layout": "pairs", "root": str(WORK / "pairs"), "options": {"test_share": 0.3},
            "validation": 0.25, "spacing_mm": [4, 4, 4], "normalisation": "zscore", "patch": [32, 32, 32],
        },
        "model": {
            "architecture": "monai",
            "arguments": {"network": "BasicUNet", "num_classes": 3, "in_chans": 1, "features": [8, 8, 8, 16, 16, 8]},
        },
        "train": {
            "steps": 60, "batch_size": 2, "learning_rate": 0.01, "warmup_steps": 5, "ema_decay": 0.9,
            "validate_every": 10, "log_every": 10, "threads": 1,
        },
        "evaluate": {"resamples": 200},
        "tracking": {"system_metrics": False},
        "card": {
            "name": "tissues", "version": "1.0.0", "license": "Apache-2.0",
            "description": "White and grey matter of one brain; a miniature, of no use for another",
            "classes": [
                {"id": 0, "name": "background", "color": [0, 0, 0]},
                {"id": 1, "name": "white_matter", "color": [238, 221, 136]},
                {"id": 2, "name": "grey_matter", "color": [238, 136, 102]},
            ],
            "input": {"modality": "T1-weighted MRI", "orientation": "RAS"},
        },
    }  # fmt: skip
    with replacing(WORK / "tissues.yaml") as place:
        place.write_text(json.dumps(recipe))  # JSON is YAML
    demo.run("medvision", "run", WORK / "tissues.yaml")
    return [Report("training", _newest(WORK / "tissues", "report"))]


def classification() -> list[Report]:
    """Train a small network on drawn galaxies, under two learning rates and two seeds."""
    small = [
        "galaxy_morphology_phantoms", f"output={WORK / 'galaxies'}", "data.options.count=240", "data.size=32",
        "data.stored=46", "data.split={test: 0.2, validation: 0.2}", "model.arguments.img_size=32",
        "model.arguments.embed_dim=[16, 32, 64, 128]", "model.arguments.stem_width=16", "train.steps=60",
        "model.arguments.depths=[1, 1, 2, 1]", "train.warmup_steps=10", "train.validate_every=15",
        "train.ema_decay=0.9", "train.log_every=5", "train.threads=1", "tracking.system_metrics=false",
    ]  # fmt: skip
    demo.run("astrovision", "run", *small, "data.corruption_images=60")
    one = _newest(WORK / "galaxies", "report")
    demo.run("astrovision", "run", *small, "--sweep", "train.learning_rate=1e-3,1e-4", "--seeds", "1-2")
    return [
        Report("classification", one),
        Report("sweep", _newest(WORK / "galaxies", "sweeps")),
    ]


def robustness() -> list[Report]:
    """Measure the bundled classifier of galaxies on drawn ones under corruption."""
    import numpy as np
    from PIL import Image

    from astrovision.datasets.phantoms import PHANTOMS, phantom

    random = np.random.default_rng(SEED)
    for kind in PHANTOMS:
        (WORK / "drawn" / kind).mkdir(parents=True, exist_ok=True)
        for number in range(6):
            Image.fromarray(phantom(kind, random, 92)).save(WORK / "drawn" / kind / f"{number}.png")
    shutil.rmtree(WORK / "robustness", ignore_errors=True)  # a measurement wants a new folder
    demo.run(
        "astrovision", "robustness", "--model", "galaxy-morphology", "--data", WORK / "drawn",
        "--output", WORK / "robustness", "--quiet",
    )  # fmt: skip
    return [Report("robustness", WORK / "robustness" / "report.html")]


def maps_and_skies() -> list[Report]:
    """Do what the demo does for a scene and for a sky."""
    demo.earth()
    demo.sky()
    halved = "const s = document.getElementById('map-swipe'); s.value = 50; s.dispatchEvent(new Event('input'))"
    return [
        Report("map", demo.OUTPUT / "scene_map_report.html", halved),
        Report("galaxies", demo.OUTPUT / "galaxies_gallery.html"),
    ]


CHAINS: tuple[tuple[Callable[[], list[Report]], ...], ...] = (
    (classification,), (brains, training), (maps_and_skies,), (robustness,)
)  # fmt: skip
"""What is made one after the other, as it needs what came before; the slowest first."""


def _of_chain(kinds: Sequence[Callable[[], list[Report]]]) -> list[Report]:
    return [report for kind in kinds for report in kind()]


def photograph(pages: Sequence[tuple[Report, Path]], site: Path) -> str:
    """Take the picture of each page, and one of three side by side, in the documentation and in the built pages.

    Args:
        pages: Reports with their pages in the built documentation.
        site: Folder of the built documentation.

    Returns:
        What was done, in a line.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        return "no Chromium on this machine; the committed pictures are kept"
    from PIL import Image
    from playwright.sync_api import sync_playwright

    pictures: dict[str, Image.Image] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", *_SOFTWARE_GL])
        window = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        window.set_default_timeout(_PATIENCE_MS)
        for report, page in pages:
            window.goto(page.resolve().as_uri())
            for name, look in {report.name: report.look, **report.states}.items():
                if window.evaluate(look) is False:
                    continue
                window.wait_for_timeout(_SETTLED_MS)
                pictures[name] = Image.open(BytesIO(window.screenshot())).convert("RGB")
        browser.close()
    pictures["three-reports"] = _beside([pictures[name] for name in SIDE_BY_SIDE])
    kept = [name for name, picture in pictures.items() if not _save(picture, PICTURES / f"{name}.webp")]
    for name in pictures:
        shutil.copyfile(PICTURES / f"{name}.webp", site / "reports" / f"{name}.webp")
    return f"{len(pictures) - len(kept)} of {len(pictures)} pictures are new; the others show the same as before"


def dead_links(site: Path) -> list[str]:
    """Links of built pages, to pages, pictures and scripts below the site, that lead to no file.

    Args:
        site: Folder of the built documentation.

    Returns:
        Each with its page, in a line.
    """
    dead = []
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":  # its links are those of a server's root
            continue
        links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
        for link in sorted(links.targets):
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc and parts.path:
                target = page.parent / unquote(parts.path)
                if not (target / "index.html" if target.is_dir() else target).exists():
                    dead.append(f"{page.relative_to(site)}: {link}")
    return dead


class _Links(HTMLParser):
    """Collects what a page links to or shows."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the target of a tag."""
        self.targets |= {value for name, value in attrs if name in ("href", "src") and value}


def _newest(output: Path, stage: str) -> Path:
    """The page that a stage of the last run wrote."""
    return max((output / stage).glob("*/report.html"), key=lambda path: path.stat().st_mtime)


def _beside(pictures: "Sequence[Image.Image]") -> "Image.Image":
    """Pictures side by side, each at half its size, on white."""
    from PIL import Image

    width, height, gap = WIDTH // 2, HEIGHT // 2, 12
    whole = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for number, picture in enumerate(pictures):
        whole.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (number * (width + gap), 0))
    return whole


def _save(picture: "Image.Image", path: Path) -> bool:
    """Save a picture unless the one that is there shows the same; returns whether it was saved."""
    from PIL import Image, ImageChops, ImageStat

    if path.exists():
        with Image.open(path) as before:
            if before.size == picture.size:
                difference = ImageChops.difference(before.convert("RGB").reduce(4), picture.reduce(4))
                if max(ImageStat.Stat(difference).rms) < _SAME:
                    return False
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as place:
        picture.save(place, "WEBP", quality=80, method=6)
    return True


def main(site: Path) -> int:
    """Make the reports, put them into the built pages, take their pictures, draw corruptions, and check all links."""
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{(WORK / 'mlflow.db').resolve()}"
    try:
        with ThreadPoolExecutor(2) as pool:
            reports = [report for chain in pool.map(_of_chain, CHAINS) for report in chain]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except demo.Failed as failed:
        return failed.code
    (site / "reports").mkdir(exist_ok=True)
    pages = [(report, report.put(site / "reports")) for report in reports]
    print(f"gallery: {photograph(pages, site)}")
    for family in FAMILIES:
        _save(family.sheet(), PICTURES / f"{family.name}.webp")
        shutil.copyfile(PICTURES / f"{family.name}.webp", site / "reports" / f"{family.name}.webp")
    dead = dead_links(site)
    print("\n".join([*dead, f"gallery: {len(reports)} reports, {len(dead)} dead links"]))
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
