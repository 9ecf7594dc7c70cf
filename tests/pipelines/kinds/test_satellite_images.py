"""Labelled satellite images through the stages, on miniatures in the published layouts."""

import csv
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin
from sklearn.metrics import balanced_accuracy_score

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.contract import InputContract, input_section
from geovision.corruptions import CORRUPTIONS
from geovision.datasets.images import read_image
from geovision.datasets.layouts import SatelliteItem
from geovision.datasets.patches import Cutting
from geovision.metrics import nearest_neighbours
from geovision.models.satmae_pp import GroupVisionTransformer
from geovision.pretraining import central_views
from pipelines.data.batch_augmentation import SatelliteViews
from pipelines.data.image_layouts import SATELLITE_LAYOUTS, find_layout
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import bundled_recipes, load_recipe
from pipelines.recipe.recipe import TrainSection
from pipelines.recipe.scenes import SatelliteImageData
from pipelines.stages import Job, run_stages
from pipelines.training.tasks.classification import ClassificationTask
from shared_backbones import architectures, weights
from shared_backbones.catalogue import Catalogue
from shared_backbones.classification.figures import calibration_error, class_figures
from shared_backbones.errors import InputError
from shared_backbones.labelled_images import find_images, labels_of
from tests.geovision import small_models
from tests.geovision.rasters import write_scene
from tests.pipelines.kinds.test_scenes import SMALL as SMALL_SCENES
from tests.pipelines.kinds.test_scenes import make_scenes

ALL = [*(f"B{n}" for n in range(1, 9)), "B8A", *(f"B{n}" for n in range(9, 13))]


satellite_layout = functools.partial(find_layout, layouts=SATELLITE_LAYOUTS)


def read(item: SatelliteItem, cutting: Cutting) -> tuple[np.ndarray, np.ndarray, Any]:
    with satellite_layout("folders").opened(item, cutting) as (scene, known):
        return read_image(scene, known, cutting)


def pixels(label: int, bands: int, side: int, seed: int) -> np.ndarray:
    """Numbers that tell a class apart by its spectrum."""
    random = np.random.default_rng(seed)
    spectrum = 900 + 700 * ((np.arange(bands) + label * 3) % 5)[:, None, None]
    return (spectrum + random.integers(0, 200, (bands, side, side))).astype(np.uint16)


def eurosat(root: Path, classes: list[str]) -> None:
    for label, name in enumerate(classes):
        for number in range(6):  # without names of bands, B8A the last, as the data set has them
            write_scene(root / name / f"{name}_{number}.tif", pixels(label, 13, 16, 10 * label + number))


def bigearthnet(root: Path, classes: list[str]) -> None:
    names = ["Continuous urban fabric", "Rice fields", "Pastures", "Airports", "Sea and ocean"]
    for number in range(12):
        patch = f"S2A_MSIL2A_2017_{number}"
        for band in ALL:
            if band != "B10":
                edge = {"B2": 10, "B3": 10, "B4": 10, "B8": 10}.get(band, 20 if band not in {"B1", "B9"} else 60)
                side = 1200 // edge // 10
                written = band if band == "B8A" else f"B{int(band[1:]):02}"
                write_scene(
                    root / patch / f"{patch}_{written}.tif", pixels(number % 4, 1, side, number),
                    transform=from_origin(500_000, 5_100_000, edge, edge),
                )  # fmt: skip
        labels = [names[number % 5], "Pastures"] if number % 5 != 3 else ["Airports"]
        (root / patch / f"{patch}_labels_metadata.json").write_text(json.dumps({"labels": labels}))


def fmow_sentinel(root: Path, classes: list[str]) -> None:
    for table, count in (("train", 8), ("val", 4), ("test_gt", 4)):
        with open(root / f"{table}.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["", "category", "location_id", "image_id", "timestamp"])
            for number in range(count):
                name = classes[number % 2]
                rows.writerow([number, name, number, 3, "2019-01-01T00:00:00Z"])
                path = root / table / name / f"{name}_{number}" / f"{name}_{number}_3.tif"
                write_scene(path, pixels(number % 2, 13, 20 + number, number + 100 * len(table)))


def fmow_rgb(root: Path, classes: list[str]) -> None:
    for table, count in (("train", 8), ("val", 4), ("test_gt", 4)):
        for number in range(count):
            name = classes[number % 2]
            folder = root / table / name / f"{name}_{number}"
            folder.mkdir(parents=True)
            values = (pixels(number % 2, 3, 40, number + 100 * len(table)) // 16).clip(0, 255).astype(np.uint8)
            Image.fromarray(values.transpose(1, 2, 0)).save(folder / f"{name}_{number}_0_rgb.jpg")
            boxes = [{"box": [4, 6, 24, 20], "category": name}]
            (folder / f"{name}_{number}_0_rgb.json").write_text(json.dumps({"bounding_boxes": boxes}))


TINY = ["embed_dim=16", "depth=2", "num_heads=2"]
GROUPED = [*TINY, "channel_embed=4", "img_size=16", "patch_size=4"]
DECODER = ["decoder_embed_dim=16", "decoder_depth=1", "decoder_num_heads=2"]
MINIATURES: dict[str, tuple[Callable[[Path, list[str]], None], int, list[str], int]] = {
    "eurosat": (eurosat, 16, GROUPED, 10),
    "bigearthnet": (bigearthnet, 12, [*GROUPED[:-2], "img_size=12", "patch_size=4"], 2),
    "fmow_sentinel": (fmow_sentinel, 16, [*GROUPED, *DECODER, "decoder_channel_embed=4"], 4),
    "fmow_sentinel_finetune": (fmow_sentinel, 16, GROUPED, 4),
    "fmow_rgb": (fmow_rgb, 16, [*TINY, *DECODER, "img_size=16", "patch_size=4"], 4),
}


def test_every_recipe_has_a_miniature_or_a_test_of_its_own():
    own = {name for name, path in bundled_recipes().items() if path.parent.name == "geovision"}
    # test_scenes, test_scene_instances, test_synthetic_scenes, test_restoration
    elsewhere = {"scenes", "scenes_fpn", "scenes_enlarge", "scenes_pem", "scenes_pretraining", "scenes_sharpen"}
    elsewhere |= {"scenes_vitcomer", "surface_types"}
    assert own == {*MINIATURES, *elsewhere}


def start(name: str, folder: Path, *overrides: str, stages: Any = None) -> Job:
    make, patch, arguments, _ = MINIATURES[name]
    root = folder / "data"
    if not root.exists():
        root.mkdir()
        make(root, [entry["name"] for entry in load_recipe(name).card["classes"]])
    small = [f"data.patch={patch}", *(f"model.arguments.{argument}" for argument in arguments)]
    train = ["train.epochs=null", "train.steps=3", "train.batch_size=4", "train.accumulate=1", "train.devices=1"]
    train += ["train.precision=32-true", "train.warmup_steps=1", "train.threads=1", "tracking.system_metrics=false"]
    where = [f"data.root={root}", f"output={folder / 'out'}"]
    return run_stages(load_recipe(name, [*where, *small, *train, *overrides]), stages)


@pytest.mark.parametrize("name", MINIATURES)
def test_a_recipe_runs_on_its_data_set_in_miniature(name: str, tmp_path: Path, store: str):
    full = load_recipe(name)
    with torch.device("meta"):  # the published network is what the recipe says
        network = architectures.build(full.model.architecture, full.model.arguments)
    assert sum(part.numel() for part in network.parameters()) > 8e7
    job = start(name, tmp_path)
    assert job.summary is not None
    figures = job.summary["figures"]
    assert figures["patches" if name in {"fmow_sentinel", "fmow_rgb"} else "images"] == MINIATURES[name][3]
    assert all(value is None or np.isfinite(value) for value in figures.values())
    expected = {"bigearthnet": "knn20_map_macro", "fmow_sentinel": "psnr_all", "fmow_rgb": "psnr_all"}
    assert expected.get(name, "knn20_accuracy") in figures
    assert next(job.made["report"].glob("*.html")).stat().st_size > 5000


def test_a_network_learns_eurosat_s_classes(tmp_path: Path, store: str):
    settings = ["train.steps=150", "train.batch_size=16", "train.learning_rate=2e-3", "data.mixup=0", "data.cutmix=0"]
    job = start("eurosat", tmp_path, *settings, "train.layer_decay=1", "model.arguments.drop_path_rate=0")
    assert job.summary is not None
    figures = job.summary["figures"]
    assert figures["accuracy"] >= 0.4  # ten classes, five spectra: two classes share each
    assert figures["top5"] > 0.85


def test_a_probe_leaves_the_encoder_as_it_is_and_a_finetuning_starts_from_it(tmp_path: Path, store: str, capsys):
    pretrained = start("fmow_sentinel", tmp_path, stages=["prepare", "train"]).made["train"] / "model"
    probe = start(
        "fmow_sentinel_finetune", tmp_path, f"model.init={pretrained}", "train.trainable=head", "train.steps=20",
        "train.learning_rate=0.05", stages=["prepare", "train"],
    )  # fmt: skip
    old = weights.load(pretrained).module.get_submodule("trunk").state_dict()
    network = weights.load(probe.made["train"] / "model").module
    new = network.get_submodule("trunk").state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)
    head: Any = network.get_submodule("head")
    assert head.weight.abs().max() > 0.01  # it starts at 2e-5
    assert run(app, ["probe", "fmow_sentinel", f"data.root={tmp_path}"]) == 2
    assert "its data is of kind scene_pretraining, probe takes satellite_images" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["autoencoder", "encoder"])
def test_a_classifier_has_the_arguments_of_the_encoder_that_it_starts_from(tmp_path: Path, kind: str):
    encoder = getattr(small_models, kind)(tmp_path / "encoder")
    recipe = load_recipe("eurosat", [])
    eurosat(tmp_path / "data", [str(entry["name"]) for entry in recipe.card["classes"]])
    overrides = [f"data.root={tmp_path / 'data'}", f"model.init={encoder}", "data.bands=[B2, B3, B8A]"]
    job = find_kind(load_recipe("eurosat", overrides))
    assert job.recipe.model.arguments["embed_dim"] == 16 and job.recipe.model.arguments["num_classes"] == 10
    old = weights.load(encoder).module.get_submodule("trunk").state_dict()
    new = job.network().get_submodule("trunk").state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_bundled_encoder_is_a_start_by_its_name(tmp_path: Path):
    eurosat(tmp_path, [str(entry["name"]) for entry in load_recipe("eurosat").card["classes"]])
    job = find_kind(load_recipe("eurosat", [f"data.root={tmp_path}", "model.init=satmae-mini"]))
    old = weights.load(Catalogue("geovision").find_model("satmae-mini")).module.get_submodule("trunk").state_dict()
    new = job.network().get_submodule("trunk").state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)
    with pytest.raises(InputError, match=r"model nowhere: neither a bundled model \(satmae-mini"):
        find_kind(load_recipe("eurosat", [f"data.root={tmp_path}", "model.init=nowhere"]))


def test_a_chain_from_pretraining_to_a_classifier_needs_nothing_copied(tmp_path: Path, store: str, capsys):
    make_scenes(tmp_path / "scenes", count=2)
    pretrain = [*SMALL_SCENES["scenes_pretraining"], f"data.root={tmp_path / 'scenes' / 'images'}"]
    quiet = ["train.threads=1", "tracking.system_metrics=false"]
    assert run(app, ["pretrain", "scenes_pretraining", *pretrain, *quiet, f"output={tmp_path / 'pre'}"]) == 0
    assert "registered: models:/scenes_pretraining@newest" in capsys.readouterr().out
    eurosat(tmp_path / "data", [str(entry["name"]) for entry in load_recipe("eurosat").card["classes"]])
    short = ["train.epochs=null", "train.steps=2", "train.batch_size=4", "train.precision=32-true"]
    finetune = [f"data.root={tmp_path / 'data'}", "model.init=models:/scenes_pretraining@newest", *short, *quiet]
    assert run(app, ["finetune", "eurosat", *finetune, f"output={tmp_path / 'fine'}"]) == 0
    (folder,) = (tmp_path / "fine" / "train").glob("*/model")
    arguments = weights.read_card(folder)["arguments"]
    assert arguments["embed_dim"] == 24 and arguments["img_size"] == 16 and arguments["num_classes"] == 10


def test_a_model_is_calibrated_and_its_program_says_what_its_evaluation_said(tmp_path: Path, store: str):
    job = start("eurosat", tmp_path, "data.corruption_images=4", "evaluate.resamples=20", "model.arguments.img_size=12")
    assert job.summary is not None
    figures, model = job.summary["figures"], job.made["train"] / "model"
    assert {"temperature", "coverage", "called_outliers", "corrupted_accuracy", "knn20_accuracy"} <= set(figures)
    card = weights.read_card(model)
    assert card["input"]["stored"] == 16 and card["input"]["size"] == 12 and "quantile" in card["calibration"]
    found = json.loads((job.made["evaluate"] / "robustness.json").read_text())
    assert list(found["corruptions"]) == list(CORRUPTIONS) and found["images"] == 4
    files = [item.path for source in job.kind.test_sources() for item in source.items]
    (tmp_path / "test").mkdir()
    for number, path in enumerate(files):
        shutil.copy(path, tmp_path / "test" / f"{number:03}.tif")
    names = ",".join([*ALL[:8], *ALL[9:], "B8A"])
    output, sensor = tmp_path / "out.csv", ["--sensor", "sentinel2_l1c", "--bands", names, "--device", "cpu"]
    given = ["-i", tmp_path / "test", "-o", output, "--model", model, "--any-resolution", *sensor]
    assert run(app, ["classify", *map(str, given)]) == 0
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (job.made["evaluate"] / "predictions.csv").open(newline="") as file:
        evaluated = list(csv.DictReader(file))
    for row, other in zip(rows, evaluated, strict=True):
        names_of = [name for name in other if name.startswith("p_")]
        assert [float(row[name]) for name in names_of] == pytest.approx([float(other[n]) for n in names_of], abs=2e-5)


def test_mirrored_images_of_classes_that_are_mirror_images_are_refused(tmp_path: Path):
    eurosat(tmp_path, ["Forest", "River"])
    classes = "[{id: 0, name: Forest, mirror: River}, {id: 1, name: River, mirror: Forest}]"
    overrides = [f"data.root={tmp_path}", f"card.classes={classes}", "model.arguments.num_classes=2"]
    with pytest.raises(InputError, match=r"give data\.augmentation\.mirrored=false"):
        find_kind(load_recipe("eurosat", overrides))
    kind = find_kind(load_recipe("eurosat", [*overrides, "data.augmentation.mirrored=false"]))
    assert kind.batch_augmentation().mirrored is False


@pytest.mark.parametrize("several", [False, True])
def test_images_with_several_labels_and_linear_probes_are_not_mixed(several: bool, tmp_path: Path):
    make, name = (bigearthnet, "bigearthnet") if several else (eurosat, "eurosat")
    make(tmp_path, [entry["name"] for entry in load_recipe(name).card["classes"]])
    for trainable in ("all", "head"):
        kind = find_kind(load_recipe(name, [f"data.root={tmp_path}", f"train.trainable={trainable}"]))
        views = kind.batch_augmentation()
        mixed = not several and trainable == "all"
        assert (views.mixup, views.cutmix) == ((0.8, 1.0) if mixed else (0.0, 0.0))
        assert kind.smoothing() == (0.0 if several else 0.1) and views.resized_crop == (0.3, 1.0)


@given(st.integers(2, 6), st.sampled_from([0.0, 0.4]), st.sampled_from([0.0, 1.0]), st.integers(0, 99))
def test_mixed_targets_are_still_of_one_image(count: int, mixup: float, cutmix: float, seed: int):
    torch.manual_seed(seed)
    images, targets = torch.rand(count, 4, 10, 12), torch.eye(3)[torch.arange(count) % 3]
    seen, mixed = SatelliteViews(8, (0.5, 1.0), mixup=mixup, cutmix=cutmix)(images, targets)
    assert seen.shape == (count, 4, 8, 8) and mixed.shape == (count, 3)
    torch.testing.assert_close(mixed.sum(1), torch.ones(count))
    if not mixup and not cutmix:
        assert torch.equal(mixed, targets)


def test_layers_learn_at_their_rates():
    network = GroupVisionTransformer(
        8, 4, 3, channel_groups=((0, 1), (2,)), channel_embed=4, num_classes=2, embed_dim=16, depth=3, num_heads=2
    )
    settings = TrainSection(steps=1, learning_rate=1.0, layer_decay=0.5, weight_decay=0.1)
    contract = InputContract.from_card({"input": input_section("sentinel2_l1c", ["B2", "B3", "B4"], 8)}, "m")
    task = ClassificationTask(network, settings, 1, contract, 2)
    rates = {name: task.rate_of(name) for name, _ in network.named_parameters()}
    assert rates["trunk.class_token"] == rates["trunk.patch_embeddings.0.weight"] == 0.5**4
    assert rates["trunk.blocks.0.mlp.fc1.weight" if "trunk.blocks.0.mlp.fc1.weight" in rates else next(
        name for name in rates if name.startswith("trunk.blocks.0."))] == 0.5**3  # fmt: skip
    assert next(rate for name, rate in rates.items() if name.startswith("trunk.blocks.2.")) == 0.5
    assert rates["trunk.channels"] == rates["head.weight"] == rates["class_code"] == 1
    [optimizer], _ = task.configure_optimizers()
    assert sorted({group["initial_lr"] for group in optimizer.param_groups}) == [0.0625, 0.125, 0.25, 0.5, 1.0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(rates)


def cutting(sensor: str, bands: tuple[str, ...], patch: int, file_bands: Any = None) -> Cutting:
    return Cutting(sensor, bands, 1e-4, patch, patch, 0.0, {"bands": file_bands})


def test_images_are_brought_to_one_size_and_boxes_cut_out(tmp_path: Path):
    values = np.zeros((3, 40, 60), np.uint16)
    values[:, 10:30, 20:50] = 5000
    path = write_scene(tmp_path / "s.tif", values, ["B2", "B3", "B4"])
    how = cutting("sentinel2_l1c", ("B4", "B2"), 10)
    found, valid, _ = read(SatelliteItem(path, 0, "a", box=(10, 20, 20, 30)), how)
    assert found.shape == (2, 10, 10) and (found == 5000).all() and valid.all()
    whole, _, place = read(SatelliteItem(path, 0, "a"), how)
    assert place["crs"] == "EPSG:32633" and place["footprint"][0] == place["footprint"][4]
    assert 14.9 < place["footprint"][0][0] < 15.1  # the central meridian of zone 33
    assert (whole == whole.round()).all() and whole[:, 5, 5].tolist() == [5000, 5000] and whole[0, 0, 0] == 0


def test_eurosat_s_bands_stand_in_its_own_order(tmp_path: Path):
    eurosat(tmp_path, ["Forest"])
    for layout, place in (("eurosat", 12), ("fmow_sentinel", 8)):
        known = satellite_layout(layout).file_bands
        assert known is not None and known[place] == "B8A"
        how = cutting("sentinel2_l1c", ("B8A",), 16, list(known))
        found, _, _ = read(SatelliteItem(tmp_path / "Forest" / "Forest_0.tif", 0, "a"), how)
        np.testing.assert_array_equal(found[0], pixels(0, 13, 16, 0)[place])


def divided(root: Path, **changes: Any) -> dict[str, set[str]]:
    settings = {"test": 0.25, "validation": 0.25, "seed": 0, **changes}
    found: dict[str, set[str]] = {}
    for source in find_images(satellite_layout("folders"), root, ["a", "b"], **settings):
        found.setdefault(source.split, set()).update(item.path.name for item in source.items)
    return found


def test_a_draw_is_stratified_seeded_and_leaves_own_splits_alone(tmp_path: Path):
    for name, count in (("a", 16), ("b", 8)):
        for number in range(count):
            write_scene(tmp_path / "x" / name / f"{name}{number}.tif", pixels(0, 3, 4, 0), ["B2", "B3", "B4"])
    splits = divided(tmp_path / "x")
    assert {split: len(names) for split, names in splits.items()} == {"test": 6, "validation": 5, "train": 13}
    assert sum(name.startswith("a") for name in splits["test"]) == 4
    assert splits == divided(tmp_path / "x") != divided(tmp_path / "x", seed=1)
    for split, name in (("train", "a"), ("train", "b"), ("val", "a"), ("test", "b")):
        write_scene(tmp_path / "y" / split / name / f"{split}{name}.tif", pixels(0, 3, 4, 0), ["B2", "B3", "B4"])
    assert divided(tmp_path / "y") == {
        "train": {"traina.tif", "trainb.tif"},
        "validation": {"vala.tif"},
        "test": {"testb.tif"},
    }


@pytest.mark.parametrize(
    ("layout", "prefix"), [("eurosat", "eurosat"), ("folders", "resisc45"), ("folders", "uc_merced")]
)
def test_split_files_that_come_with_torchgeo_are_heeded(tmp_path: Path, layout: str, prefix: str):
    eurosat(tmp_path, ["Forest", "River"])
    lists = {"train": ["Forest_0.jpg", "River_1.jpg"], "val": ["Forest_2.jpg"], "test": ["River_3.jpg"]}
    for name, lines in lists.items():
        (tmp_path / f"{prefix}-{name}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "notes.txt").write_text("Forest_4.jpg\n")
    sources = find_images(satellite_layout(layout), tmp_path, ["Forest", "River"], test=0.5, validation=0.5, seed=0)
    found = {source.split: sorted(item.path.stem for item in source.items) for source in sources}
    assert found == {"train": ["Forest_0", "River_1"], "validation": ["Forest_2"], "test": ["River_3"]}


def test_bigearthnet_s_labels_are_merged_and_dropped(tmp_path: Path):
    recipe = load_recipe("bigearthnet")
    assert isinstance(recipe.data, SatelliteImageData)
    names = [entry["name"] for entry in recipe.card["classes"]]
    bigearthnet(tmp_path, names)
    sources = find_images(
        satellite_layout("bigearthnet"),
        tmp_path,
        names,
        test=0,
        validation=0,
        seed=0,
        options=recipe.data.options,
    )
    labels = {item.path.name[-1]: [names[n] for n in labels_of(item)] for source in sources for item in source.items}
    assert labels["0"] == ["Urban fabric", "Pastures"] and labels["1"] in (
        ["Arable land", "Pastures"],
        ["Urban fabric", "Pastures"],
    )
    assert labels["4"] == ["Pastures", "Marine waters"]
    assert sum(len(source.items) for source in sources) == 10  # those that are airports alone have no label left


@pytest.mark.parametrize(
    ("layout", "prepare", "message"),
    [
        ("imagenet", None, "data.layout 'imagenet' is unknown; expected one of: folders"),
        ("folders", None, "holds no image in the layout folders"),
        ("folders", ("c", None), "class c is none of the recipe's 2; add it to card.classes"),
        ("fmow_sentinel", ("train.csv", "category\na\n"), "has no column 'location_id'"),
        (
            "fmow_sentinel",
            ("train.csv", "category,location_id,image_id\na,1,2\n"),
            "listed in train.csv, but not there",
        ),
        ("fmow_sentinel", ("train.csv", "category,location_id,image_id\n../a,1,2\n"), "outside of its folder|none of"),
        ("bigearthnet", ("p/p_labels_metadata.json", "[]"), "is no list of labels"),
        ("fmow_rgb", ("train/a/a_0/a_0_rgb.json", "{}"), "gives no bounding box"),
    ],
)
def test_data_sets_that_are_not_as_they_should_be_are_refused(tmp_path: Path, layout: str, prepare: Any, message: str):
    if prepare:
        path = tmp_path / prepare[0]
        if prepare[1] is None:
            path.mkdir()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(prepare[1])
    with pytest.raises(InputError, match=message):
        find_images(satellite_layout(layout), tmp_path, ["a", "b"], test=0.2, validation=0.2, seed=0)


def test_figures_of_a_classification_are_those_counted_otherwise():
    random = np.random.default_rng(0)
    scores = random.dirichlet(np.ones(7), 200)
    labels = random.integers(0, 6, 200)  # the seventh never occurs
    figures = class_figures(scores, np.eye(7)[labels], multi_label=False)
    order = np.argsort(-scores, 1)
    assert figures["accuracy"] == pytest.approx((order[:, 0] == labels).mean())
    assert figures["top5"] == pytest.approx((order[:, :5] == labels[:, None]).any(1).mean())
    assert figures["nll"] == pytest.approx(-np.log(scores[np.arange(200), labels]).mean())
    own = scores.copy()
    own[:, 6] = -1
    assert class_figures(own, np.eye(7)[labels], multi_label=False)["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, own.argmax(1))
    )
    targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    ranked = np.array([[0.9, 0.1], [0.6, 0.8], [0.7, 0.3], [0.1, 0.2]])
    several = class_figures(ranked, targets, multi_label=True)
    assert several["map_macro"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2) and several["f1_micro"] == pytest.approx(
        0.75
    )


def test_calibration_error_by_hand():
    confidence, hits = np.array([0.95, 0.97, 0.5, 0.52]), np.array([True, False, True, True])
    assert calibration_error(confidence, hits) == pytest.approx(0.5 * abs(0.5 - 0.96) + 0.5 * abs(1 - 0.51))
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0


def test_neighbours_are_the_nearest_by_angle():
    known = np.array([[1, 0], [10, 1], [0, 1], [0.1, 1]], np.float32)
    targets = np.eye(2)[[0, 0, 1, 1]]
    found = nearest_neighbours(known, targets, np.array([[5, 0.1], [0, 0.2]], np.float32), k=2)
    np.testing.assert_array_equal(found, [[1, 0], [0, 1]])
    assert nearest_neighbours(known, targets, known, k=20).shape == (4, 2)


def test_the_view_of_an_evaluation_is_the_published_one():
    ramp = torch.arange(109.0).expand(1, 1, 109, 109)
    assert central_views(ramp, 96)[0, 0, 0].tolist() == list(range(6, 102))
    assert central_views(torch.rand(2, 3, 64, 64), 96).shape == (2, 3, 96, 96)
