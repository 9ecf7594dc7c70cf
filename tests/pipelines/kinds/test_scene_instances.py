"""Scenes with labelled objects through the stages, from polygons to panoptic quality, and back to polygons."""

import json
import re
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from rasterio.features import rasterize
from shapely.geometry import Polygon, box
from torchmetrics.detection import PanopticQuality as Reference

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.coco import coco
from geovision.datasets.instance_labels import split_codes
from geovision.instances import Objects, _Joined, _Part
from geovision.polygons import write_objects
from geovision.scenes import open_scene
from pipelines.evaluation.panoptic import PanopticQuality
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages
from pipelines.training.tasks.instances import InstanceTask, targets_of
from shared_backbones import weights
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError
from shared_backbones.networks.mask_queries import MaskQueries
from tests.geovision.rasters import TRANSFORM, write_scene

BANDS = ["B2", "B3", "B4", "B8"]
MARKER = "Mustermann"
SIDE = 192


def drawn(number: int) -> np.ndarray:
    """Numbers of fields, 0 between them: rectangles on a jittered lattice."""
    random = np.random.default_rng(number)
    fields = np.zeros((SIDE, SIDE), np.uint16)
    for row in range(0, SIDE, 32):
        for column in range(0, SIDE, 32):
            top, left = row + random.integers(2, 8), column + random.integers(2, 8)
            fields[top : top + random.integers(16, 24), left : left + random.integers(16, 24)] = fields.max() + 1
    return fields


def make_scenes(root: Path, labels: str = "raster", count: int = 2) -> None:
    """Bright fields on dark ground; labels are rasters, or polygons without a column that is known."""
    for number in range(count):
        fields, random = drawn(number), np.random.default_rng(100 + number)
        values = np.where(fields > 0, 3000, 900) + random.integers(0, 200, (len(BANDS), SIDE, SIDE))
        write_scene(root / "images" / f"{MARKER}_{number}.tif", values.astype(np.uint16), BANDS)
        path = root / "labels" / f"{MARKER}_{number}"
        if labels == "raster":
            write_scene(path.with_suffix(".tif"), fields[None])
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        outlines = geopandas.GeoDataFrame(
            {"owner": ["x"] * int(fields.max()), "kind": np.arange(fields.max()) % 2},
            geometry=[outline(fields == field) for field in range(1, fields.max() + 1)],
            crs="EPSG:32633",
        )
        outlines.to_crs("EPSG:4326" if labels == ".geojson" else "EPSG:32633").to_file(path.with_suffix(labels))


def outline(mask: np.ndarray) -> Any:
    rows, columns = np.nonzero(mask)
    left, top = TRANSFORM @ (columns.min(), rows.min())
    right, bottom = TRANSFORM @ (columns.max() + 1, rows.max() + 1)
    return box(left, bottom, right, top)


SMALL = [
    "data.patch=64", "data.stride=32", "data.split={by: halves, validation: 0}",
    "model.arguments={num_classes: 1, in_chans: 4, base: 16, layers: [1, 1, 1], conv_dim: 32, mask_dim: 32, "
    "hidden_dim: 32, num_queries: 16, nheads: 2, dim_feedforward: 64, dec_layers: 3}",
    "train.batch_size=4", "train.warmup_steps=5", "train.ema_decay=0.9", "train.gradient_clip=1", "train.threads=1",
    "train.learning_rate=3e-3", "train.validate_every=null", "tracking.system_metrics=false", "evaluate.resamples=20",
]  # fmt: skip


def start(root: Path, output: Path, *overrides: str, stages: Any = None) -> Job:
    where = [f"data.root={root}", f"output={output}"]
    return run_stages(load_recipe("scenes_pem", [*where, *SMALL, *overrides]), stages)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> tuple[Path, Job]:
    folder = tmp_path_factory.mktemp("learnt")
    make_scenes(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        store = folder / "mlflow.db"
        store.write_bytes(migrated.read_bytes())
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        return folder, start(folder / "data", folder / "out", "data.stride=16", "train.steps=320")


def mapping(learnt: tuple[Path, Job], number: int, output: Path) -> list[str]:
    """Arguments of `geovision map` for a scene and the model."""
    folder, job = learnt
    scene = folder / "data" / "images" / f"{MARKER}_{number}.tif"
    return ["map", "-i", str(scene), "-o", str(output), "--model", str(job.model), "--sensor", "sentinel2_l1c"]


def test_a_network_learns_to_find_fields_that_it_has_not_seen(learnt: tuple[Path, Job]) -> None:
    _, job = learnt
    assert job.summary is not None
    figures = job.summary["figures"]
    matched, false = figures["matched"], figures["false"]
    assert figures["objects"] == 36 and matched > 24 and figures["pq"] > 0.5 and figures["sq"] > 0.75
    assert figures["rq"] == pytest.approx(matched / (matched + (false + 36 - matched) / 2))
    assert job.summary["tables"][0]["rows"][0][:2] == ["field", 36]
    page = (job.made["report"] / "report.html").read_text()
    assert page.count("data:image/png") == 1 and "Panoptic quality" in page and MARKER not in page
    assert dict(weights.read_card(job.model))["instances"] == {"threshold": 0.5, "overlap": 0.5}


def test_the_figures_are_torchmetrics_of_what_the_program_writes(learnt: tuple[Path, Job], tmp_path: Path) -> None:
    reference = Reference(things={0}, stuffs={1}, return_sq_and_rq=True, return_per_class=True)
    for number in range(2):
        output = tmp_path / f"{number}.tif"
        assert run(app, mapping(learnt, number, output)) == 0
        with rasterio.open(output) as source:
            assert source.dtypes == ("uint32",) and source.crs.to_epsg() == 32633 and source.transform == TRANSFORM
            mapped = source.read(1)[SIDE // 2 :].astype(np.int64)
        truth = drawn(number)[SIDE // 2 :].astype(np.int64)
        pair = [np.stack([np.where(numbers > 0, 0, 1), numbers], -1)[None] for numbers in (mapped, truth)]
        reference.update(*map(torch.from_numpy, pair))
    summary = learnt[1].summary
    assert summary is not None
    expected = reference.compute()[0].tolist()
    assert [summary["figures"][name] for name in ("pq", "sq", "rq")] == pytest.approx(expected, abs=1e-6)


def test_polygons_and_coco_are_the_objects_of_the_raster(learnt: tuple[Path, Job], tmp_path: Path, capsys) -> None:
    output, polygons, listed = tmp_path / "map.tif", tmp_path / "fields.gpkg", tmp_path / "fields.json"
    arguments = mapping(learnt, 0, output)
    assert run(app, [*arguments, "--polygons", str(polygons), "--coco", str(listed)]) == 0
    assert re.search(r"field +\d+ objects +\d", capsys.readouterr().out)
    with rasterio.open(output) as source:
        numbers = source.read(1)
    count = int(numbers.max())
    frame: Any = geopandas.read_file(polygons)
    assert len(frame) == count and frame.crs.to_epsg() == 32633 and set(frame["class"]) == {"field"}
    again = rasterize(zip(frame.geometry, frame["object"], strict=True), numbers.shape, transform=TRANSFORM)
    assert (again == numbers).all()
    assert frame.geometry.area.to_numpy() == pytest.approx(frame["pixels"].to_numpy() * 100)
    assert frame["area_m2"].to_numpy() == pytest.approx(frame.geometry.area.to_numpy(), rel=0.01)
    assert frame["score"].between(0.5, 1).all()
    content = json.loads(listed.read_text())
    assert content["images"][0]["width"] == SIDE and MARKER not in listed.read_text()
    assert [entry["area"] for entry in content["annotations"]] == np.bincount(numbers.ravel())[1:].tolist()
    for entry in content["annotations"]:
        assert (decoded(entry, numbers.shape) == (numbers == entry["id"])).all()
    about = json.loads(output.with_suffix(".json").read_text())
    assert about["classes"][0]["objects"] == count and about["outputs"].keys() >= {"polygons", "coco", "map"}
    assert MARKER not in output.with_suffix(".json").read_text()
    degrees = tmp_path / "fields.geojson"
    assert run(app, [*mapping(learnt, 0, tmp_path / "again.tif"), "--polygons", str(degrees)]) == 0
    moved: Any = geopandas.read_file(degrees).to_crs("EPSG:32633")
    assert moved.geometry.area.to_numpy() == pytest.approx(frame.geometry.area.to_numpy(), rel=1e-3)


def decoded(entry: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """The mask of an annotation, as COCO defines its two forms."""
    code = entry["segmentation"]
    if isinstance(code, dict):
        runs = np.repeat(np.arange(len(code["counts"])) % 2, code["counts"])
        return runs.reshape(shape[::-1]).T.astype(bool)
    return np.asarray(rasterize([(Polygon(np.reshape(ring, (-1, 2))), 1) for ring in code], shape)) > 0


def test_an_object_with_a_hole_is_a_run_length_code(tmp_path: Path) -> None:
    numbers = np.zeros((20, 30), np.uint32)
    numbers[3:12, 5:17], numbers[6:9, 8:12] = 1, 0
    numbers[14:, 26:], numbers[7, 9] = 2, 2  # in two parts, one of them in the hole
    path = write_scene(tmp_path / "n.tif", numbers[None])
    objects = Objects(np.array([1, 0]), np.array([0.9, 0.75]), np.bincount(numbers.ravel())[1:], None)
    classes: list[ClassEntry] = [{"name": "field"}, {"name": "lake"}]
    content = coco(path, objects, classes, "case-1")
    first, second = content["annotations"]
    assert isinstance(first["segmentation"], dict) and len(second["segmentation"]) == 2
    assert first["category_id"] == 2 and first["bbox"] == [5, 3, 12, 9] and second["score"] == 0.75
    for entry in content["annotations"]:
        assert (decoded(entry, numbers.shape) == (numbers == entry["id"])).all()
    written = tmp_path / "o.gpkg"
    assert write_objects(written, path, objects, classes) == 2
    frame: Any = geopandas.read_file(written)
    assert list(frame["class"]) == ["lake", "field"] and frame["area_m2"].isna().all()
    assert [len(shape.geoms) for shape in frame.geometry] == [1, 2]


@pytest.mark.parametrize("labels", ["raster", ".gpkg", ".geojson"])
def test_rasters_and_polygons_are_the_same_objects(labels: str, tmp_path: Path) -> None:
    make_scenes(tmp_path, labels, 1)
    codes = read_codes(tmp_path)
    numbers, classes = split_codes(codes, 1)
    assert (numbers == drawn(0)).all() and classes == [0] * int(drawn(0).max())


def read_codes(root: Path, *overrides: str) -> np.ndarray:
    """Labels of the first scene, as a recipe reads them."""
    kind = find_kind(load_recipe("scenes_pem", [f"data.root={root}", *SMALL, *overrides]))
    with (
        open_scene(root / "images" / f"{MARKER}_0.tif", sensor="sentinel2_l1c", wanted=BANDS) as scene,
        kind.cutting.labels(kind.sources[0].labels, scene) as raster,
    ):
        return raster.read(0, 0, SIDE, SIDE)


def test_polygons_of_several_classes_keep_them(tmp_path: Path) -> None:
    make_scenes(tmp_path, ".gpkg", 1)
    two = ["card.classes=[{id: 0, name: field}, {id: 1, name: lake}]", "model.arguments.num_classes=2"]
    codes = read_codes(tmp_path, *two, "data.label_column=kind")
    numbers, classes = split_codes(codes, 2)
    assert (numbers == drawn(0)).all() and classes == [n % 2 for n in range(36)]
    (target,) = targets_of(torch.from_numpy(codes[None].astype(np.int64)), 2)
    assert target.classes.tolist() == classes
    assert all((mask.numpy() == (drawn(0) == n)).all() for n, mask in enumerate(target.masks, 1))


class Answers(torch.nn.Module):
    """A network that always says the same."""

    def __init__(self, queries: MaskQueries) -> None:
        super().__init__()
        self.queries = queries

    def predict(self, x: torch.Tensor) -> list[MaskQueries]:
        return [self.queries]


def test_the_quality_of_a_validation_is_that_of_an_evaluation(tmp_path: Path) -> None:
    make_scenes(tmp_path, ".gpkg", 1)
    two = ["card.classes=[{id: 0, name: field}, {id: 1, name: lake}]", "model.arguments.num_classes=2"]
    kind: Any = find_kind(load_recipe("scenes_pem", [f"data.root={tmp_path}", *SMALL, *two, "data.label_column=kind"]))
    section = {"mean": [0.0] * 4, "std": [1.0] * 4}
    task: InstanceTask = kind.task({**kind.recipe.card, "input": {**kind.input_section(None), **section}}, 1)
    codes = torch.zeros(1, 32, 32, dtype=torch.int64)
    codes[:, :8, :8], codes[:, 16:, :8], codes[:, :8, 16:] = 1, 3, 2  # two fields and a lake
    sure = [codes[0] == 1, codes[0] == 3, codes[0, :, :] * 0 == 1]
    masks = torch.stack([mask.float() for mask in sure]) * 24 - 12
    masks[1, 20:] = -12  # of the second field a quarter
    classes = torch.tensor([[[12.0, 0, 0], [12.0, 0, 0], [0, 0, 12.0]]])
    task.model = Answers(MaskQueries(classes, masks[None]))
    logged: dict[str, float] = {}
    task.log = lambda name, value, **_: logged.update({name: float(value)})  # pyright: ignore
    task.on_validation_epoch_start()
    batch = {"image": torch.zeros(1, 4, 32, 32), "valid": torch.ones(1, 32, 32, dtype=torch.bool), "labels": codes}
    task.validation_step(batch, 0)
    task.on_validation_epoch_end()
    quality = PanopticQuality(["field", "lake"])
    segments = (masks[0] > 0).long() + 2 * (masks[1] > 0).long()
    quality.update(segments.numpy(), [0, 0], *split_codes(codes[0].numpy(), 2))
    assert quality.counts[0].matched == 1 and quality.counts[1].missed == 1
    assert logged["validation_pq"] == pytest.approx(quality.mean()) and logged["validation_loss"] > 0
    assert logged["validation_rq"] == pytest.approx(0.25) and logged["validation_sq"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.patch=80"], "data.patch is 80, expected a multiple of 32"),
        (["model.architecture=smp_unet", "model.arguments={num_classes: 1, in_chans: 4}"], "smp_unet finds no single"),
        (["card.classes=[{id: 0, name: a}, {id: 1, name: b}]", "model.arguments.num_classes=2"],
         "is a raster of objects, whose classes it cannot say"),
        (["data.label_values=[1, 2]"], r"data.label_values are \[1, 2\] for 1 classes"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be_run_are_refused(overrides, message: str, tmp_path: Path, store: str) -> None:
    make_scenes(tmp_path / "data", count=1)
    with pytest.raises(InputError, match=message):
        start(tmp_path / "data", tmp_path / "out", "train.steps=1", *overrides, stages=["prepare"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--probabilities", "p.tif"], "--probabilities: means nothing for a model that finds single objects"),
        (["--coco", "map.json"], "is the name of the side-car"),
        (["--coco", "c.txt"], "ends in .txt, expected .json"),
        (["--engine", "openvino"], "objects are found by torch alone"),
        (["--polygons", "p.shp"], "expected .gpkg or .geojson"),
    ],
)
def test_options_that_mean_nothing_for_objects_are_refused(
    options: list[str], message: str, learnt: tuple[Path, Job], tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, [*mapping(learnt, 0, Path("map.tif")), *options]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_folder_is_refused_before_anything_is_made(learnt: tuple[Path, Job], tmp_path: Path, capsys) -> None:
    folder, job = learnt
    arguments = ["-i", str(folder / "data" / "images"), "-o", str(tmp_path / "maps"), "--model", str(job.model)]
    assert run(app, ["map", *arguments, "--sensor", "sentinel2_l1c"]) == 2
    assert "map one scene after the other" in capsys.readouterr().err and not (tmp_path / "maps").exists()


def test_what_two_tiles_see_of_an_object_is_joined() -> None:
    numbers = np.zeros((8, 24), np.uint32)
    joined, seen = _Joined(numbers), np.zeros((8, 16), bool)
    left, right = np.zeros((8, 16), int), np.zeros((8, 16), int)
    left[2:6, 8:], left[0, :4] = 1, 2
    joined.add(_Part(0, 0, left, seen, [0, 0], [0.6, 0.9]))
    seen[:, :8] = True
    right[2:6, :12], right[7, :] = 2, 1  # the same, and another that the first tile has not marked
    joined.add(_Part(0, 8, right, seen, [0, 0], [0.7, 0.8]))
    assert len(np.unique(numbers)) == 4 and (numbers[2:6, 8:20] == 1).all() and joined.scores[0] == 0.8
    other = np.zeros((8, 16), int)
    other[2:6, :8] = 1
    joined.add(_Part(0, 8, other, seen, [1], [0.9]))  # of another class, whose pixels are all taken
    assert len(joined.classes) == 3
