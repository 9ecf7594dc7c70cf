"""Scenes through the stages: pretraining and mapping, from GeoTIFFs to figures, a report and a registered model."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from pyproj import Transformer

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.contract import InputContract, input_section
from geovision.metrics import confusion, linear_fill, map_figures, mean_fill, psnr
from geovision.models.satmae_pp import GroupMaskedAutoencoder
from geovision.pretraining import evaluation_views, pyramid, random_crops, removed_pixels
from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages
from pipelines.training.tasks.pretraining import reconstruct
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.geovision.rasters import TRANSFORM, write_scene
from tests.pipelines.report.pages import scripts_in

BANDS = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"]
MARKER = "Mustermann"


def make_scenes(root: Path, count: int = 3, side: int = 64) -> None:
    """Dates of one place: bright squares of class 2 on dark ground of class 4, and a rim without a label."""
    labels = np.full((1, side, side), 4, np.uint8)
    for row in range(4, side, 16):
        for column in range(4, side, 16):
            labels[0, row : row + 8, column : column + 8] = 2
    labels[0, :, :2] = 0
    for number in range(count):
        random = np.random.default_rng(number)
        values = np.where(labels == 2, 3000, 900) + random.integers(0, 300, (10, side, side))
        write_scene(root / "images" / f"{MARKER}_{number}.tif", values.astype(np.uint16), BANDS)
    write_scene(root / "labels" / f"{MARKER}.tif", labels)


SMALL = {
    "scenes": [
        "data.label_values=[2, 4]",
        "model.arguments={num_classes: 2, in_chans: 10, encoder: resnet18, decoder_channels: [16, 8, 8, 8, 8], "
        "padding: replicate}",
        "card.classes=[{id: 0, name: field, color: [200, 180, 20]}, {id: 1, name: water, color: [20, 60, 200]}]",
        "train.steps=60", "train.batch_size=8", "train.warmup_steps=5", "train.ema_decay=0.8",
        "train.learning_rate=3e-3",
    ],
    "scenes_pretraining": [
        "data.patch=16", "data.stride=16", "model.arguments.img_size=16", "model.arguments.embed_dim=24",
        "model.arguments.channel_embed=8", "model.arguments.depth=2", "model.arguments.num_heads=2",
        "model.arguments.decoder_embed_dim=24", "model.arguments.decoder_channel_embed=8",
        "model.arguments.decoder_depth=1", "model.arguments.decoder_num_heads=2",
        "train.steps=6", "train.batch_size=4", "train.warmup_steps=2", "train.checkpoint_every=2",
    ],
}  # fmt: skip


def start(name: str, root: Path, output: Path, *overrides: str, stages: Any = None) -> Job:
    where = [f"data.root={root}", f"output={output}", "train.threads=2", "tracking.system_metrics=false"]
    return run_stages(load_recipe(name, [*where, *SMALL[name], *overrides]), stages)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory, migrated: Path) -> tuple[Path, Job]:
    folder = tmp_path_factory.mktemp("mapped")
    make_scenes(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        store = folder / "mlflow.db"
        store.write_bytes(migrated.read_bytes())
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        return folder, start("scenes", folder / "data", folder / "out")


def test_a_network_learns_to_map_the_part_that_it_has_not_seen(mapped):
    _, job = mapped
    assert job.summary is not None
    figures = job.summary["figures"]
    assert figures["accuracy"] > 0.9 > 0.8 > figures["majority"] and figures["mean_iou"] > 0.75
    labelled = job.summary["tables"][1]["rows"]
    # the south of three dates, but for the two columns without a label
    assert sum(sum(row[1:]) for row in labelled) == 3 * 32 * 62


def test_the_model_carries_its_bands_and_the_statistics_of_its_training_pixels(mapped):
    folder, job = mapped
    card = weights.read_card(job.made["train"] / "model")
    contract = InputContract.from_card(card, "m")
    assert list(contract.bands) == BANDS and contract.gsd_m == pytest.approx(10) and contract.size == 32
    north = [rasterio.open(path).read(window=((0, 32), (0, 64))) for path in sorted((folder / "data/images").iterdir())]
    patches = [band[:, :, column : column + 32] for band in north for column in range(0, 33, 8)]
    np.testing.assert_allclose(contract.mean, np.mean(patches, (0, 2, 3)), rtol=1e-6)


def test_polygons_drawn_on_reports_of_maps_are_what_the_next_training_learns(mapped, store: str, tmp_path: Path):
    """Maps are judged, their fixes laid out by the program, and a whole training runs on these and nothing else."""
    folder, job = mapped
    data, maps = tmp_path / "data", tmp_path / "maps"
    shutil.copytree(folder / "data" / "images", data / "images")
    model = job.made["train"] / "model"
    arguments = ["-i", str(data / "images"), "-o", str(maps), "--model", str(model), "--sensor", "sentinel2_l1c"]
    assert run(app, ["map", *arguments]) == 0
    to_degrees = Transformer.from_crs("EPSG:32633", "OGC:CRS84", always_xy=True)

    def polygon(name: str, top: int, left: int, height: int, width: int) -> dict[str, Any]:
        corners = [(left, top), (left, top + height), (left + width, top + height), (left + width, top)]
        return {"class": name, "ring": [to_degrees.transform(*(TRANSFORM @ corner)) for corner in corners]}

    fixes = [polygon("field", row, column, 8, 8) for row in range(4, 64, 16) for column in range(4, 64, 16)]
    fixes += [polygon("water", row, 2, 8, 62) for row in range(12, 60, 16)]
    for number, twin in enumerate(sorted(maps.glob("*_report.json"))):
        given = {"report": json.loads(twin.read_text())["report"], "verdict": "needs_work", "reviewer": "AB",
                 "created": "2026-01-02T03:04:05Z", "points": {}, "fixes": fixes}  # fmt: skip
        (maps / f"{number}_review.json").write_text(json.dumps(given))
    collected = ["review", "collect", str(maps), "-o", str(tmp_path / "r.csv"), "--fixes", str(data / "labels")]
    assert run(app, collected) == 0
    assert {path.name for path in (data / "labels").iterdir()} == {f"{MARKER}_{n}.geojson" for n in range(3)}
    again = start("scenes", data, tmp_path / "out")
    assert again.summary is not None and (again.made["report"] / "report.html").exists()
    figures = again.summary["figures"]
    assert figures["accuracy"] > 0.9 > 0.8 > figures["majority"]
    # squares and strips in the south of three scenes, strips from the first column that has a label
    assert sum(sum(row[1:]) for row in again.summary["tables"][1]["rows"]) == 3 * (2 * 4 * 64 + (8 + 4) * 62)


def test_the_program_maps_with_the_model_as_the_evaluation_did(mapped, tmp_path: Path, capsys):
    folder, job = mapped
    scene = folder / "data" / "images" / f"{MARKER}_0.tif"
    output = tmp_path / "map.tif"
    arguments = ["-i", str(scene), "-o", str(output), "--model", str(job.made["train"] / "model")]
    assert run(app, ["map", *arguments, "--sensor", "sentinel2_l1c"]) == 0
    assert re.search(r"water +\d\d\.\d%", capsys.readouterr().out)
    with rasterio.open(output) as found:
        labels = found.read(1)
    maps = [rasterio.open(path).read(1) for path in job.made["evaluate"].glob("*.tif")]
    assert len(maps) == 3 and any((labels == other).all() for other in maps)
    content = json.loads(output.with_suffix(".json").read_text())
    assert content["input"]["sha256"] and content["model"]["sha256"] and content["classes"][1]["name"] == "water"
    assert MARKER not in output.with_suffix(".json").read_text()


def test_no_name_of_a_scene_reaches_the_store_or_the_output(mapped):
    folder, _ = mapped
    files = [path for path in (folder / "out").rglob("*") if path.is_file()] + [folder / "mlflow.db"]
    assert len(files) > 8
    for path in files:
        assert MARKER not in str(path.relative_to(folder)) and MARKER.encode() not in path.read_bytes(), path


def test_the_report_shows_the_map_and_the_tables(mapped):
    _, job = mapped
    page = next(job.made["report"].glob("*.html")).read_text()
    assert page.count("data:image/png") == 1 and len(scripts_in(page)) == 1
    assert "Mean IoU" in page and re.search(r'<th scope="row">water</th>', page) and "Confusion" in page


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, store: str):
    make_scenes(tmp_path / "data")
    settings = ["train.steps=8", "train.checkpoint_every=3", "train.schedule=constant"]
    whole = start("scenes", tmp_path / "data", tmp_path / "a", *settings, stages=["prepare", "train"])

    class Killed(Exception):
        pass

    with pytest.MonkeyPatch.context() as patch:
        import pipelines.training.tasks.mapping

        step = pipelines.training.tasks.mapping.MappingTask.training_step

        def kill(self, batch, batch_index):
            if self.trainer.global_step == 5:
                raise Killed
            return step(self, batch, batch_index)

        patch.setattr(pipelines.training.tasks.mapping.MappingTask, "training_step", kill)
        with pytest.raises(Killed):
            start("scenes", tmp_path / "data", tmp_path / "b", *settings, stages=["prepare", "train"])
    again = start("scenes", tmp_path / "data", tmp_path / "b", *settings, stages=["prepare", "train"])
    digests = [
        hashlib.sha256((job.made["train"] / "model" / "model.safetensors").read_bytes()).hexdigest()
        for job in (whole, again)
    ]
    assert digests[0] == digests[1]


def test_an_autoencoder_is_pretrained_and_its_encoder_embeds(tmp_path: Path, store: str, capsys):
    make_scenes(tmp_path / "data")
    job = start("scenes_pretraining", tmp_path / "data" / "images", tmp_path / "out", "data.split.validation=0.5")
    assert job.summary is not None
    figures = job.summary["figures"]
    assert {"psnr_all", "psnr_mean_B11_B12", "psnr_linear_B2_B3_B4_B8"} <= set(figures) and figures["patches"] == 16
    assert all(np.isfinite(value) for value in figures.values())
    card = weights.read_card(job.made["train"] / "model")
    assert card["input"]["mean"][0] == 1184.3824625  # published, as the recipe asks
    assert "validation_psnr" in card["training"]
    output = tmp_path / "e.parquet"
    scenes, model = str(tmp_path / "data" / "images"), str(job.made["train"] / "model")
    assert run(app, ["embed", "-i", scenes, "-o", str(output), "--model", model, "--sensor", "sentinel2_l1c"]) == 0
    assert "48 vectors of 24 numbers from 3 scenes" in capsys.readouterr().out


def test_a_mapper_can_start_from_another_s_weights(mapped, tmp_path: Path, store: str):
    folder, job = mapped
    before = job.made["train"] / "model"
    frozen = ["train.steps=1", "train.learning_rate=1e-9", "train.ema_decay=0", "train.weight_decay=0"]
    after = start(
        "scenes", folder / "data", tmp_path / "out", *frozen, f"model.init={before}", stages=["prepare", "train"]
    )
    old, new = (weights.load(path).module.state_dict() for path in (before, after.made["train"] / "model"))
    names = [name for name in old if name.endswith("weight")]
    assert names and all(torch.allclose(old[name], new[name], atol=1e-6) for name in names)


@pytest.mark.parametrize(
    ("name", "depth", "further"),
    [("scenes_fpn", 2, ""), ("scenes_vitcomer", 4, "adapter={inplanes: 4, heads: 2, fusion_ratio: 1}")],
)
def test_a_pyramid_starts_from_a_pretrained_encoder_and_maps(
    name: str, depth: int, further: str, tmp_path: Path, store: str
):
    make_scenes(tmp_path / "data")
    deep = f"model.arguments.depth={depth}"
    images = tmp_path / "data" / "images"
    encoder = start("scenes_pretraining", images, tmp_path / "a", deep, stages=["prepare", "train"])
    pretrained = encoder.made["train"] / "model"
    sizes = ["img_size=16", "embed_dim=24", "channel_embed=8", f"depth={depth}", "num_heads=2", "num_classes=2"]
    SMALL[name] = [
        *(part for part in SMALL["scenes"] if not part.startswith("model.")),
        *(f"model.arguments.{s}" for s in [*sizes, further] if s),
        "data.patch=16", "data.stride=16", "train.steps=1", "train.learning_rate=1e-9", "train.ema_decay=0",
    ]  # fmt: skip
    job = start(name, tmp_path / "data", tmp_path / "b", f"model.init={pretrained}")
    assert job.summary is not None and job.summary["figures"]["accuracy"] is not None
    model = job.made["train"] / "model"
    old, new = (weights.load(path).module.state_dict() for path in (pretrained, model))
    shared = [name for name in old if name.startswith("trunk.blocks.") and name.endswith("weight")]
    assert shared and all(torch.allclose(old[name], new[f"encoder.{name}"], atol=1e-6) for name in shared)
    output = tmp_path / "map.tif"
    arguments = ["-i", str(images / f"{MARKER}_0.tif"), "-o", str(output), "--model", str(model)]
    assert run(app, ["map", *arguments, "--sensor", "sentinel2_l1c"]) == 0
    with rasterio.open(output) as source:
        assert source.shape == (64, 64) and set(np.unique(source.read(1))) <= {0, 1}


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("scenes", ["data.label_values=[2]"], r"data.label_values are \[2\] for 2 classes"),
        ("scenes", ["data.label_values=[2, 2]"], "expected one number for each, all different"),
        ("scenes", ["data.bands=[B2, B77]"], "band 'B77': sensor sentinel2_l1c has"),
        ("scenes", ["data.sensor=hls_s30", "data.statistics=published"], "no statistics are published for B2"),
        ("scenes", ["data.patch=64"], "no training patch of 64 pixels"),
        ("scenes_pretraining", ["data.split.test=0"], "no test part"),
        (
            "scenes_pretraining",
            ["model.architecture=smp_unet", "model.arguments={num_classes: 2}"],
            "expected autoencoder; choose one of satmae_pp_mae_group, satmae_pp_mae_rgb",
        ),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(tmp_path: Path, store: str, name: str, overrides, message: str):
    make_scenes(tmp_path / "data", 2)
    root = tmp_path / "data" / ("images" if name == "scenes_pretraining" else "")
    with pytest.raises(InputError, match=message):
        start(name, root, tmp_path / "out", *overrides)


def empty_labels(root: Path, value: int, regions: Sequence[Sequence[int]] = ((0, 0, 128, 128),)) -> None:
    """Take the labels of a class off in some regions: row, column, height and width."""
    with rasterio.open(root / "labels" / f"{MARKER}.tif", "r+") as file:
        labels = file.read()
        for row, column, height, width in regions:
            part = labels[..., row : row + height, column : column + width]
            part[part == value] = 0
        file.write(labels)


def test_labels_that_are_empty_or_lack_a_class_are_said(tmp_path: Path, store: str, capsys):
    root, split = tmp_path / "data", ["data.split.validation=0.5", "train.steps=2", "train.threads=1"]
    make_scenes(root, count=1, side=128)
    job = start("scenes", root, tmp_path / "whole", *split, stages=["prepare", "train"])
    assert "warning: no" not in capsys.readouterr().out
    regions = [region for source in job.kind.sources for region in source.regions if source.split == "validation"]
    empty_labels(root, 2, regions)
    start("scenes", root, tmp_path / "some", *split, stages=["prepare", "train"])
    said = capsys.readouterr().out
    assert "warning: no validation label is of: field" in said and "no train label" not in said
    empty_labels(root, 4, regions)
    start("scenes", root, tmp_path / "none", *split, stages=["prepare", "train"])
    assert "warning: no validation label is of any class: its figures say nothing" in capsys.readouterr().out
    for value in (2, 4):
        empty_labels(root, value)
    with pytest.raises(InputError, match=r"no training patch of 32 pixels in which a pixel has a label: they may all"):
        start("scenes", root, tmp_path / "empty", *split, stages=["prepare", "train"])


def test_an_unreadable_scene_is_named_or_left_out_and_counted(tmp_path: Path, store: str, capsys):
    make_scenes(tmp_path / "data")
    (tmp_path / "data" / "images" / "broken.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"broken\.tif: cannot be read"):
        start("scenes_pretraining", tmp_path / "data" / "images", tmp_path / "out", stages=["prepare"])
    job = start(
        "scenes_pretraining", tmp_path / "data" / "images", tmp_path / "out", "data.skip_unreadable=true",
        stages=["prepare", "train"],
    )  # fmt: skip
    assert "1 scenes or parts of scenes were left out" in capsys.readouterr().out
    assert (job.made["train"] / "model" / "model.json").exists()


def test_figures_of_a_map_are_those_counted_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2, 255], np.uint8)
    found = np.array([0, 0, 1, 1, 1, 0, 1], np.uint8)
    figures = map_figures(confusion(found, labels, 4), ["a", "b", "c", "never"])
    assert figures["pixels"] == 6 and figures["accuracy"] == pytest.approx(4 / 6) and figures["majority"] == 0.5
    rows = {row["name"]: row for row in figures["classes"]}
    assert rows["a"]["iou"] == 0.5 and rows["a"]["f1"] == pytest.approx(4 / 6) and rows["b"]["recall"] == 1
    assert rows["b"]["precision"] == pytest.approx(2 / 3) and rows["c"]["precision"] is None and rows["c"]["iou"] == 0
    assert rows["never"]["iou"] is None and figures["mean_iou"] == pytest.approx((0.5 + 2 / 3 + 0) / 3)


def test_fillings_and_their_psnr():
    plane = np.add.outer(np.arange(12.0), 2 * np.arange(12.0)) / 40
    gone = np.zeros((12, 12), bool)
    gone[4:8, 4:8] = True
    np.testing.assert_allclose(linear_fill(plane, gone), plane, atol=1e-9)  # a plane is what lines give back
    assert (mean_fill(plane, gone)[gone] == plane[~gone].mean()).all()
    assert psnr(plane + 0.1, plane, gone) == pytest.approx(20) and psnr(plane + 0.1, plane, gone, 10) == pytest.approx(
        40
    )
    assert np.isnan(psnr(plane, plane, np.zeros_like(gone)))


def test_crops_lie_inside_and_the_pyramid_halves():
    torch.manual_seed(0)
    ramp = torch.arange(32.0).expand(64, 1, 32, 32) / 31
    crops = random_crops(ramp, 16, (0.2, 1.0))
    assert crops.shape == (64, 1, 16, 16) and crops.min() > -0.05 and crops.max() < 1.05
    slopes = (crops[:, 0, 8, 15] - crops[:, 0, 8, 0]).numpy()
    assert (slopes < 0).mean() == pytest.approx(0.5, abs=0.2) and 0.3 < np.abs(slopes).min() < np.abs(
        slopes
    ).max() <= 1.0
    whole = random_crops(ramp, 32, (1.0, 1.0))
    assert whole.shape == (64, 1, 32, 32)
    levels = pyramid(torch.rand(2, 3, 32, 32), 2)
    assert [level.shape[-1] for level in levels] == [32, 16, 8]
    halved = torch.nn.functional.interpolate(levels[0], scale_factor=0.5, mode="bilinear")
    torch.testing.assert_close(levels[1], halved)
    assert evaluation_views(levels[0], 32) is levels[0] and evaluation_views(levels[0], 48).shape[-1] == 48


def test_removed_pixels_are_those_that_the_encoder_does_not_see():
    torch.manual_seed(0)
    network = GroupMaskedAutoencoder(
        16, 4, 3, channel_groups=((0, 2), (1,)), channel_embed=4, embed_dim=16, depth=1, num_heads=2,
        decoder_embed_dim=16, decoder_channel_embed=4, decoder_depth=1, decoder_num_heads=2, scales=1,
    ).eval()  # fmt: skip
    contract = InputContract.from_card({"input": input_section("sentinel2_l1c", ["B2", "B3", "B4"], 16)}, "m")
    batch = {"image": torch.randint(0, 4000, (2, 3, 16, 16)), "valid": torch.ones(2, 16, 16, dtype=torch.bool)}
    with torch.inference_mode():
        images, found, removed = reconstruct(network, contract, batch, 0.75, seed=5)
        assert removed.shape == images.shape == found.shape
        assert removed[:, 0].equal(removed[:, 2]) and not removed[:, 0].equal(removed[:, 1])
        assert removed.float().mean((2, 3)).sum(1).sub(removed[:, 0].float().mean((1, 2))).mul(16).sum() == 2 * 24
        again = reconstruct(network, contract, batch, 0.75, seed=5)[1]
        # what is removed has no influence on the answer
        other = dict(batch, image=torch.where(removed, 0, batch["image"]))
        changed = reconstruct(network, contract, other, 0.75, seed=5)[1]
    torch.testing.assert_close(found, again)
    torch.testing.assert_close(found, changed)
    assert removed_pixels(torch.eye(4)[None, 0], 2, (2, 2), None).sum() == 4
