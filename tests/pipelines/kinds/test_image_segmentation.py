"""Images with masks through the stages: from the layouts of polyp sets to figures, a report and a registered model."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medvision.datasets.masked_images import POLYP_TESTS
from medvision.image_segmentation import ImageSegmenter
from medvision.metrics.masks import mask_figures
from pipelines.data.augmentation import Augmentation
from pipelines.data.image_files import read_mask
from pipelines.data.masked_images import read_pair
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages
from pipelines.training.tasks.segmentation import make_loss
from shared_backbones import architectures, weights
from shared_backbones.errors import InputError

MARKER = "Mustermann"


def drawn(number: int, height: int = 60, width: int = 72) -> tuple[np.ndarray, np.ndarray]:
    """A pink image with a redder disc, and the disc."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    centre, radius = random.uniform(18, 42, 2), random.uniform(9, 15)
    mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
    image = np.where(mask[..., None], [200, 60, 60], [190, 140, 130]) + random.normal(0, 8, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def save(number: int, image: Path, mask: Path, colours: bool = False) -> None:
    pixels, disc = drawn(number)
    for path, values in ((image, pixels), (mask, disc.astype(np.uint8) * 255)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).convert("RGB" if colours or path == image else "L").save(path, quality=60)


def pairs(root: Path, count: int = 20) -> None:
    for number in range(count):
        save(
            number,
            root / "images" / f"{MARKER}_{number}.png",
            root / "masks" / f"{MARKER}_{number}.jpg",
            number % 2 > 0,
        )


def kvasir_seg(root: Path) -> None:
    for number in range(10):
        folder = root / "Kvasir-SEG"
        save(number, folder / "images" / f"cju{number}.jpg", folder / "masks" / f"cju{number}.jpg", colours=True)


def cvc_clinicdb(root: Path) -> None:
    for number in range(1, 13):
        folder = root / "PNG"
        save(number, folder / "Original" / f"{number}.png", folder / "Ground Truth" / f"{number}.png")
    lines = [f"{number},{(number + 3) // 4}" for number in range(1, 13)]
    (root / "metadata.csv").write_text("\n".join(["frame_id,sequence_id", *lines]))


def clinic_as_downloaded(root: Path) -> None:
    for number in range(1, 11):
        save(number, root / "Original" / f"{number}.tif", root / "Ground Truth" / f"{number}.tif")


def polyps(root: Path) -> None:
    for number in range(8):
        folder = root / "TrainDataset"
        save(number, folder / "image" / f"{number}.png", folder / "mask" / f"{number}.png")
    for number, name in enumerate(POLYP_TESTS):
        folder = root / "TestDataset" / name
        save(20 + number, folder / "images" / "0.png", folder / "masks" / "0.png")


SMALL = [
    "data.size=64", "model.arguments.encoder=resnet10t", "model.arguments.width=8", "model.arguments.branch_groups=2",
    "model.arguments.fusion_groups=3", "train.epochs=null", "train.steps=2", "train.batch_size=4",
    "train.warmup_steps=1", "train.threads=1", "tracking.system_metrics=false", "evaluate.resamples=50",
]  # fmt: skip


def start(root: Path, output: Path, layout: str, *overrides: str, stages: Any = None) -> Job:
    where = [f"data.root={root}", f"output={output}", f"data.layout={layout}"]
    return run_stages(load_recipe("polyp_msrnet", [*where, *SMALL, *overrides]), stages)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> tuple[Path, Job]:
    folder = tmp_path_factory.mktemp("learnt")
    pairs(folder / "data")
    unet = ["model.architecture=smp_unet", "model.arguments={num_classes: 2, encoder: resnet18, "
            "decoder_channels: [32, 16, 8, 8, 8]}", "train.steps=40", "train.learning_rate=3e-3", "train.ema_decay=0.8",
            "data.split={test: 0.25, validation: 0.2}", "train.validate_every=40", "train.backbone_rate=1"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        store = folder / "mlflow.db"
        store.write_bytes(migrated.read_bytes())
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        return folder, start(folder / "data", folder / "out", "pairs", *unet)


def test_a_network_learns_to_mark_what_it_has_not_seen(learnt: tuple[Path, Job]) -> None:
    _, job = learnt
    assert job.summary is not None
    figures = job.summary["figures"]
    assert figures["images"] == 5 and figures["dice"] > 0.8 and figures["iou"] > 0.65 and figures["mae"] < 0.1
    assert figures["dice_low"] <= figures["dice"] <= figures["dice_high"]
    assert 0.6 < figures["weighted_f"] <= 1 and 0.8 < figures["e_measure"] <= 1
    with (job.made["evaluate"] / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["case"] for row in rows}) == 5 and {row["name"] for row in rows} == {"polyp"}
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(figures["dice"])


def test_the_figures_are_of_masks_on_the_images_own_pixels(learnt: tuple[Path, Job]) -> None:
    _, job = learnt
    segmenter = ImageSegmenter(job.model)
    assert segmenter.target["name"] == "polyp"
    scores = []
    for source in find_kind(job.recipe).test_sources():
        for item in source.items:
            image, mask = read_pair(item)
            probabilities = segmenter.probabilities(image)
            assert probabilities.shape == mask.shape == (60, 72)
            scores.append(2 * (mask & (probabilities >= 0.5)).sum() / (mask.sum() + (probabilities >= 0.5).sum()))
    assert job.summary is not None
    assert np.mean(scores) == pytest.approx(job.summary["figures"]["dice"])


def test_no_name_of_a_file_is_kept(learnt: tuple[Path, Job]) -> None:
    _, job = learnt
    made = [path for folder in job.made.values() for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "images_of_lowest_dice.png" for path in made)
    assert not any(MARKER.encode() in path.read_bytes() for path in made)
    page = (job.made["report"] / "report.html").read_text()
    assert page.count("data:image/png") == 1 and "weighted f" in page.lower()
    with Image.open(job.made["evaluate"] / "images_of_lowest_dice.png") as sheet:
        assert sheet.height > 5 * 220


def test_all_images_of_which_nothing_is_found_are_shown(
    learnt: tuple[Path, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, job = learnt
    monkeypatch.setattr(ImageSegmenter, "probabilities", lambda self, image: np.zeros(image.shape[:2], np.float32))
    kind = find_kind(job.recipe)
    kind.evaluate(job.model, kind.test_sources(), tmp_path)
    with Image.open(tmp_path / "images_of_lowest_dice.png") as sheet:
        assert sheet.height > 5 * 220  # each has a Dice of 0


LAYOUTS: dict[str, tuple[str, Callable[[Path], None], dict[str, int]]] = {
    "Kvasir-SEG": ("kvasir_seg", kvasir_seg, {"train": 8, "validation": 1, "test": 1}),
    "CVC-ClinicDB": ("cvc_clinicdb", clinic_as_downloaded, {"train": 8, "validation": 1, "test": 1}),
    "sequences of CVC-ClinicDB": ("cvc_clinicdb", cvc_clinicdb, {"train": 4, "validation": 4, "test": 4}),
    "the form of papers": ("polyps", polyps, {"train": 7, "validation": 1, "test": 5}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_polyp_set_is_read_as_it_lies(name: str, tmp_path: Path, store: str) -> None:
    layout, make, counts = LAYOUTS[name]
    make(tmp_path / "data")
    job = start(tmp_path / "data", tmp_path / "out", layout, stages=["prepare"])
    assert {split: job.kind.count(job.prepared, split) for split in counts} == counts


def test_msrnet_learns_and_is_scored_on_each_test_set(tmp_path: Path, store: str) -> None:
    polyps(tmp_path / "data")
    job = start(tmp_path / "data", tmp_path / "out", "polyps", "data.augmentation.mirrored=false")
    assert job.summary is not None and job.summary["figures"]["images"] == len(POLYP_TESTS)
    (table,) = job.summary["tables"]
    assert [row[:2] for row in table["rows"]] == [[name, 1] for name in sorted(POLYP_TESTS)]
    assert weights.read_card(job.model)["input"]["kind"] == "image" and job.made["register"].is_dir()


def test_frames_of_a_sequence_are_in_one_split(tmp_path: Path) -> None:
    cvc_clinicdb(tmp_path)
    given = [f"data.root={tmp_path}", "data.layout=cvc_clinicdb", "data.split={test: 0.3, validation: 0.3}"]
    sources = find_kind(load_recipe("polyp_msrnet", [*given, *SMALL])).find_sources()
    splits: dict[str, set[str]] = {}
    for source in sources:
        for item in source.items:
            splits.setdefault(item.group, set()).add(source.split)
    assert len(splits) == 3 and all(len(found) == 1 for found in splits.values())


def test_the_published_network_is_what_the_recipe_says_and_its_encoder_takes_published_weights(tmp_path: Path) -> None:
    recipe = load_recipe("polyp_msrnet")
    with torch.device("meta"):
        network: Any = architectures.build(recipe.model.architecture, recipe.model.arguments)
    assert 2.5e7 < sum(part.numel() for part in network.parameters()) < 3.2e7
    pairs(tmp_path / "data", 4)
    small = architectures.build("msrnet", {"encoder": "resnet10t", "width": 8, "branch_groups": 2, "num_classes": 2})
    published = {
        name: torch.full_like(part, 0.25) for name, part in small.get_submodule("backbone.network").state_dict().items()
    }
    torch.save(published, tmp_path / "resnet10t.pth")
    given = [
        f"data.root={tmp_path / 'data'}",
        "data.layout=pairs",
        f"model.backbone_weights={tmp_path / 'resnet10t.pth'}",
    ]
    kind = find_kind(load_recipe("polyp_msrnet", [*given, *SMALL]))
    started: Any = kind.network()
    assert all((part == 0.25).all() for name, part in started.backbone.state_dict().items() if name.endswith("weight"))
    task = kind.task(kind.card(_Nothing()), 1)
    rates = {name.partition(".")[0]: task.rate_of(name) for name in started.state_dict()}
    assert rates["encoder"] == 0.1 and {rate for part, rate in rates.items() if part != "encoder"} == {1.0}


class _Nothing:
    """A preparation without images."""

    def measured_cases(self) -> list[dict[str, Any]]:
        return [{"record": {"pixels": 1, "sums": [0, 0, 0], "squares": [0, 0, 0]}}]


def test_being_unsure_costs_more_towards_the_end() -> None:
    loss, plain = make_loss("ce_uncertainty"), make_loss("ce")
    logits = torch.tensor([0.0, 1.0, -2.0, 8.0])[None, None].expand(1, 2, 4).clone()
    logits[:, 0] = 0
    target = torch.ones(1, 1, 4)
    probabilities = logits[0, 1].sigmoid()
    price = float((1 - (2 * probabilities - 1) ** 2).mean())
    for progress, factor in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        setattr(loss, "progress", progress)  # noqa: B010 - of this loss alone
        assert float(loss(logits, target) - plain(logits, target)) == pytest.approx(factor * price, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "layout", "overrides", "message"),
    [
        (lambda root: (root / "masks").mkdir(), "pairs", [], "has no folder images; expected images and masks"),
        (lambda root: (pairs(root), (root / "masks" / f"{MARKER}_3.jpg").unlink()), "pairs", [],
         r"_3\.png: has no mask in"),
        (lambda root: (pairs(root), save(0, root / "x.png", root / "masks" / f"{MARKER}_0.png")), "pairs", [],
         "expected one image of a name"),
        (lambda root: (polyps(root), (root / "TestDataset/Kvasir").rename(root / "TestDataset/my")), "polyps", [],
         "is none of the test sets CVC-300"),
        (lambda root: (clinic_as_downloaded(root), (root / "metadata.csv").write_text("a,b\n1,2\n")),
         "cvc_clinicdb", [], "expected CSV with the columns frame_id and sequence_id"),
        (pairs, "pairs", ["card.classes=[{id: 0, name: a}]"], "card.classes has 1 classes, expected two"),
        (pairs, "pairs", ["data.split.test=0"], "no test image; raise data.split.test"),
        (pairs, "folders", [], "data.layout 'folders' is unknown; expected one of: pairs, kvasir_seg"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(make, layout: str, overrides, message: str, tmp_path: Path, store: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    with pytest.raises(InputError, match=message) as caught:
        start(root, tmp_path / "out", layout, *overrides)
    assert "\n" not in str(caught.value)


def test_masks_of_another_size_are_refused_or_left_out(tmp_path: Path, store: str, capsys) -> None:
    pairs(tmp_path / "data")
    Image.new("L", (9, 9)).save(tmp_path / "data" / "masks" / f"{MARKER}_2.jpg")
    with pytest.raises(InputError, match=r"_2\.jpg: has 9 x 9 pixels, its image 72 x 60"):
        start(tmp_path / "data", tmp_path / "out", "pairs", stages=["prepare"])


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("1", [0, 255]),
        ("L", [0, 255]),
        ("L", [0, 1]),
        ("L", [90, 140]),
        ("P", [0, 1]),
        ("RGB", [0, 255]),
        ("RGBA", [0, 255]),
    ],
)
def test_a_mask_is_what_is_brighter_than_half(mode: str, values: list[int], tmp_path: Path) -> None:
    disc = drawn(0)[1]
    picture = Image.fromarray(np.where(disc, values[1], values[0]).astype(np.uint8))
    if mode == "P":
        picture.putpalette([0, 0, 0, 128, 0, 0])
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == disc).all()
    if mode in ("L", "RGB") and values == [0, 255]:
        picture.save(tmp_path / "mask.jpg", quality=30)
        assert (read_mask(tmp_path / "mask.jpg") != disc).mean() < 0.02
    empty = Image.fromarray(np.ones((8, 8), np.uint8))
    empty.save(tmp_path / "empty.jpg")
    assert not read_mask(tmp_path / "empty.jpg").any()


def test_an_image_and_its_mask_are_varied_alike() -> None:
    mask = drawn(4, 64, 64)[1]
    bright = np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255
    augment = Augmentation(64, brightness=0, color=0, noise=0)
    for seed in range(8):
        varied, moved = augment.with_mask(bright, mask.astype(np.uint8), seed)
        assert ((varied[..., 0] > 127) != moved.astype(bool)).mean() < 0.02
        assert not np.array_equal(moved, mask) and set(np.unique(moved)) <= {0, 1}


class TestFigures:
    """Figures of a mask."""

    def test_a_perfect_mask(self) -> None:
        _, mask = drawn(0)
        assert mask_figures(mask.astype(float), mask) == pytest.approx(
            {"dice": 1, "iou": 1, "mae": 0, "weighted_f": 1, "e_measure": 1}
        )

    def test_by_hand(self) -> None:
        reference, found = np.zeros((4, 4), bool), np.zeros((4, 4))
        reference[:2], found[1:3] = True, 1.0  # half of each
        row = mask_figures(found, reference)
        assert (row["dice"], row["iou"], row["mae"]) == pytest.approx((0.5, 1 / 3, 0.5))
        # both have the mean 1/2: where they agree the alignment is 1, elsewhere -1
        assert row["e_measure"] == pytest.approx(0.5)

    def test_the_weighted_f_measure_is_its_definition(self) -> None:
        random = np.random.default_rng(0)
        reference, found = np.zeros((24, 30), bool), random.random((24, 30))
        reference[:, 4:13] = True  # so that each pixel has one nearest pixel of it
        assert mask_figures(found, reference)["weighted_f"] == pytest.approx(self.slowly(found, reference), rel=1e-9)

    def slowly(self, found: np.ndarray, reference: np.ndarray) -> float:
        """Pixel by pixel, as the paper writes it."""
        inside = np.argwhere(reference)
        error, spread = abs(found - reference), np.zeros(found.shape)
        distance = np.zeros(found.shape)
        for place in np.ndindex(*found.shape):
            away = np.hypot(*(inside - place).T)
            distance[place] = away.min()
            nearest = {float(error[tuple(p)]) for p in inside[np.isclose(away, away.min())]}
            spread[place] = error[place] if reference[place] else next(iter(nearest))
        offsets = [(i, j) for i in range(-3, 4) for j in range(-3, 4)]
        kernel = {o: np.exp(-(o[0] ** 2 + o[1] ** 2) / 50) for o in offsets}
        weighted = np.zeros(found.shape)
        for row, column in np.ndindex(*found.shape):
            smooth = sum(
                k * spread[row + i, column + j]
                for (i, j), k in kernel.items()
                if 0 <= row + i < found.shape[0] and 0 <= column + j < found.shape[1]
            ) / sum(kernel.values())
            own = error[row, column]
            least = min(own, smooth) if reference[row, column] else own
            weighted[row, column] = least * (1 if reference[row, column] else 2 - 0.5 ** (distance[row, column] / 5))
        hits, false = (1 - weighted)[reference].sum(), weighted[~reference].sum()
        recall, precision = 1 - weighted[reference].mean(), hits / (hits + false)
        return float(2 * recall * precision / (recall + precision))

    def test_what_is_not_there(self) -> None:
        nothing = np.zeros((5, 5), bool)
        assert mask_figures(nothing.astype(float), nothing) == {
            "dice": None, "iou": None, "mae": 0.0, "weighted_f": None, "e_measure": None,
        }  # fmt: skip
        row = mask_figures(np.ones((5, 5)), nothing)
        assert (row["dice"], row["iou"], row["weighted_f"], row["e_measure"]) == (0, 0, 0, 0)
        with pytest.raises(ValueError, match="the reference"):
            mask_figures(np.ones((5, 4)), nothing)


def test_a_model_of_another_kind_marks_no_images(learnt: tuple[Path, Job], tmp_path: Path) -> None:
    _, job = learnt
    content = json.loads((job.model / "model.json").read_text())
    for name, value in (("kind", "volume"), ("bands", ["grey"]), ("std", [0, 1, 1])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes((job.model / "model.safetensors").read_bytes())
        (folder / "model.json").write_text(json.dumps({**content, "input": {**content["input"], name: value}}))
        with pytest.raises(InputError, match="its card cannot be used"):
            ImageSegmenter(folder)
