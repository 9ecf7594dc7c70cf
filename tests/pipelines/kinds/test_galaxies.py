"""Labelled galaxies through the stages, on spirals drawn here; some tests look at what is drawn while training."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from astrovision.classification import GalaxyClassifier
from astrovision.corruptions import CORRUPTIONS
from pipelines.data.augmentation import Augmentation
from pipelines.data.store import Store
from pipelines.data.stored_images import DrawOrder, StoredImages, as_picture
from pipelines.evaluation.classification import write_classification
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import bundled_recipes, load_recipe
from pipelines.stages import Job, run_stages
from shared_backbones import architectures, weights
from shared_backbones.classification.calibration import mean_coverage
from shared_backbones.errors import InputError
from tests.pipelines.report.pages import scripts_in

MARKER = "SECRETNAME"
CLASSES = ("elliptical", "edge_on", "spiral_acw", "spiral_cw", "merger")


def draw(kind: str, seed: int, side: int = 48) -> np.ndarray:
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
    elif kind == "merger":
        light = np.exp(-9 * np.hypot(x - 0.3, y)) + np.exp(-9 * np.hypot(x + 0.3, y))
    else:
        hand = 1 if kind == "spiral_acw" else -1
        light = np.exp(-3 * radius) * (0.55 + 0.45 * np.cos(2 * angle + hand * 9 * radius))
    color = {"elliptical": (1, 0.7, 0.4), "merger": (1, 0.5, 0.5), "edge_on": (0.9, 0.8, 0.6)}.get(kind, (0.5, 0.7, 1))
    image = light[..., None] * color + random.normal(0, 0.02, (side, side, 3))
    return (image.clip(0, 1) * 255).astype(np.uint8)


def cutouts(root: Path, each: int = 12) -> Path:
    """A folder with a table, as Galaxy Zoo's cut-outs come."""
    (root / "images").mkdir(parents=True)
    with open(root / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["objid", "class", "class_name"])
        for label, name in enumerate(CLASSES):
            for number in range(each):
                key = f"{MARKER}{label}{number:03}"
                Image.fromarray(draw(name, 100 * label + number)).save(root / "images" / f"{key}.jpg", quality=95)
                rows.writerow([key, label, name])
    return root


def galaxy10(root: Path) -> Path:
    random = np.random.default_rng(0)
    root.mkdir()
    with h5py.File(root / "Galaxy10_DECals.h5", "w") as file:
        file["images"] = random.integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
        file["ans"] = (np.arange(40) % 10).astype(np.uint8)
    return root


STARTS = [
    ("phantoms_astroformer_cpu", "cutouts_astroformer_cpu"),
    ("galaxy_morphology_phantoms", "galaxy_morphology"),
]
SMALL = {
    "data.crop": 1.0, "data.stored": 40, "data.size": 32,
    "model.arguments.img_size": 32, "model.arguments.embed_dim": [32, 32, 32, 32],
    "model.arguments.depths": [1, 1, 1, 1], "model.arguments.stem_width": 8, "model.arguments.head_hidden_size": 16,
    "train.epochs": None, "train.steps": 4, "train.batch_size": 8, "train.devices": 1, "train.warmup_steps": 1,
    "train.precision": "32-true", "train.threads": 1, "tracking.system_metrics": False, "evaluate.resamples": 50,
}  # fmt: skip


def start(name: str, root: Path, output: Path, stages: Any = None, **changes: Any) -> Job:
    settings = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return run_stages(load_recipe(name, [f"data.root={root}", f"output={output}", *overrides]), stages)


def test_every_recipe_is_tested_here():
    own = {name for name, path in bundled_recipes().items() if path.parent.name == "astrovision"}
    own -= {"mosaic_astroformer_cpu"}  # in test_mosaics.py
    assert own == {"galaxy10_astroformer", "galaxy10_astroformer_cpu", *(name for pair in STARTS for name in pair)}


@pytest.mark.parametrize(("drawn", "real"), STARTS)
def test_a_network_learns_from_drawn_galaxies_and_another_starts_from_it(
    drawn: str, real: str, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    changes = {"data.options.count": 40, "data.split.test": 0.2, "data.split.validation": 0.3}
    overrides = [f"{key}={json.dumps(value)}" for key, value in {**SMALL, **changes}.items()]
    job = run_stages(load_recipe(drawn, [f"output={tmp_path / 'a'}", *overrides]))
    assert job.summary is not None and job.summary["figures"]["images"] == 10  # two of each class
    model = job.made["train"] / "model"
    store_ = Store(job.made["prepare"])
    image = store_.array(store_.cases("train")[0], "image")
    assert image.shape[1] == 3 and image.std() > 5
    other = start(
        real, cutouts(tmp_path / "data", 4), tmp_path / "b", ["prepare", "train"],
        model__init=f"models:/{drawn}@newest", train__steps=1, train__learning_rate=1e-9,
    )  # fmt: skip
    sha256 = weights.read_card(model)["weights_sha256"]
    assert weights.read_card(other.made["train"] / "model")["training"]["init"] == f"sha256:{sha256}"
    fetched = GalaxyClassifier(next((tmp_path / "cache" / "domain-vision").glob("[0-9a-f]*")))
    assert fetched.outliers is not None and fetched.sha256 == sha256
    ours, theirs = (weights.load(folder).module.state_dict() for folder in (other.made["train"] / "model", model))
    torch.testing.assert_close(ours["stem.0.convolution.weight"], theirs["stem.0.convolution.weight"])
    contract = GalaxyClassifier(other.made["train"] / "model").contract
    assert contract.takes_colours and contract.bands == ("red", "green", "blue")
    if real == "galaxy_morphology":  # which takes fluxes, too
        assert contract.flux_bands == ("i", "r", "g") and (contract.parity, contract.flux_scale.unit) == (1, "nmgy")


@pytest.mark.parametrize("name", ["galaxy10_astroformer", "galaxy10_astroformer_cpu"])
def test_a_recipe_runs_on_galaxy10_in_miniature(name: str, tmp_path: Path, store: str):
    full = load_recipe(name)
    with torch.device("meta"):  # the published network is what the recipe says
        network = architectures.build(full.model.architecture, full.model.arguments)
    assert sum(part.numel() for part in network.parameters()) > (2e8 if name == "galaxy10_astroformer" else 2e7)
    job = start(
        name, galaxy10(tmp_path / "data"), tmp_path / "out", data__split__test=0.25, data__split__validation=0.3
    )
    assert job.summary is not None and job.summary["figures"]["images"] == 10
    assert all(value is None or np.isfinite(value) for value in job.summary["figures"].values())


def test_labels_of_a_gallery_are_trained_on_and_the_report_says_so(tmp_path: Path, store: str):
    root = cutouts(tmp_path / "data", 6)
    kind: Any = find_kind(load_recipe("cutouts_astroformer_cpu", [f"data.root={root}"]))
    before = {item.key: (item.label, source.split) for source in kind.sources for item in source.items}
    train = [key for key, (label, split) in before.items() if split == "train" and label == 0]
    test = next(key for key, (_, split) in before.items() if split == "test")
    fixes = tmp_path / "labels-fixed.csv"
    fixes.write_text(
        "id,row,label,again,answer,drawn,reader,created\n"
        f"{train[0]},1,merger,,elliptical,doubtful,AB,t\n{train[1]},2,artefact,,elliptical,doubtful,AB,t\n"
        f"{test},3,merger,,elliptical,doubtful,AB,t\n"
    )
    job = start("cutouts_astroformer_cpu", root, tmp_path / "out", ["prepare", "train", "evaluate", "report"],
                train__steps=1, data__corrupted=0, data__label_fixes=[str(fixes)])  # fmt: skip
    after = {item.key: (item.label, source.split) for source in job.kind.sources for item in source.items}
    assert after == {key: value for key, value in before.items() if key != train[1]} | {train[0]: (4, "train")}
    stored = job.prepared.cases("train")
    assert sum(case["record"]["images"] for case in stored) == sum(split == "train" for _, split in after.values())
    page = (job.made["report"] / "report.html").read_text()
    assert "Labels fixed by readers; test labels stay" in page
    with pytest.raises(InputError, match="1 test images were looked at as doubtful and 0 at random"):
        start("cutouts_astroformer_cpu", root, tmp_path / "b", ["prepare"], data__label_fixes=[str(fixes)],
              data__fix_test_labels=True)  # fmt: skip


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Job:
    """A small network that has learnt the drawn classes."""
    folder = tmp_path_factory.mktemp("learnt")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "mlruns").mkdir()
        (folder / "mlruns" / "mlflow.db").write_bytes(migrated.read_bytes())
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        return start(
            "cutouts_astroformer_cpu", cutouts(folder / "data", 30), folder / "out",
            train__steps=160, train__batch_size=16, train__learning_rate=4e-3, train__ema_decay=0.9,
            data__split__validation=0.25, data__mixup=0, data__corrupted=10, data__augmentation__color=0.05,
        )  # fmt: skip


def test_classes_and_handedness_are_learnt(learnt: Job):
    assert learnt.summary is not None
    figures = learnt.summary["figures"]
    assert figures["merged_accuracy"] >= 0.8 and figures["accuracy"] >= 0.6
    assert figures["merged_accuracy"] >= figures["accuracy"]
    assert figures["handedness"] >= 0.7 and figures["handed_images"] > 5
    assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]
    assert {"coverage", "coverage_over_divisions", "ece", "ece_uncalibrated", "brier", "nll"} <= set(figures)


def test_robustness_has_a_figure_for_every_corruption_and_severity(learnt: Job):
    assert learnt.summary is not None
    folder = learnt.made["evaluate"]
    found = json.loads((folder / "robustness.json").read_text())
    assert {(cell["corruption"], cell["severity"]) for cell in found["cells"]} == {
        (name, severity) for name in CORRUPTIONS for severity in range(1, 6)
    }
    assert found["images"] == 10 and found["families"].keys() == {"observation", "detector"}
    accuracy = np.array([cell["accuracy"] for cell in found["cells"]])
    assert learnt.summary["figures"]["corrupted_accuracy"] == pytest.approx(accuracy.mean())
    assert len({cell["sha256"] for cell in found["cells"]}) == 30
    assert {"robustness.csv", "robustness.svg", "robustness_strip.png"} <= {path.name for path in folder.iterdir()}
    title = "Balanced accuracy of 10 images under corruption, with 95 % intervals"
    assert len(next(table for table in learnt.summary["tables"] if table["title"] == title)["rows"]) == 6


def test_what_is_no_galaxy_is_called_an_outlier(learnt: Job):
    classifier = GalaxyClassifier(learnt.made["train"] / "model")
    random = np.random.default_rng(0)
    usual = np.stack([draw(CLASSES[n % 5], 700 + n, 32) for n in range(40)]).transpose(0, 3, 1, 2)
    blank = np.full((4, 3, 32, 32), 12, np.uint8)
    noise = random.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    called = [classifier.predict(torch.from_numpy(part.copy())).is_outlier for part in (usual, blank, noise)]
    assert called[0] is not None and called[0].mean() <= 0.2
    assert called[1] is not None and called[1].all() and called[2] is not None and called[2].all()


def test_the_card_has_what_use_needs(learnt: Job):
    card = weights.read_card(learnt.made["train"] / "model")
    assert card["input"]["crop"] == pytest.approx(32 / 40) and card["input"]["size"] == 32
    assert card["calibration"]["coverage"] == 0.9 and card["calibration"]["temperature"] > 0
    assert len(card["training"]["split"]) == 64
    classifier = GalaxyClassifier(learnt.made["train"] / "model")
    images = np.stack([draw(name, 900 + n) for n, name in enumerate(CLASSES)]).transpose(0, 3, 1, 2)
    found = classifier.predict(classifier.prepare(torch.from_numpy(np.ascontiguousarray(images))))
    assert found.probabilities.shape == (5, 5) and found.sets is not None and found.sets.shape == (5, 5)
    mirrored = torch.from_numpy(np.ascontiguousarray(images[..., ::-1]))
    swapped = classifier.predict(classifier.prepare(mirrored)).probabilities[:, [0, 1, 3, 2, 4]]
    np.testing.assert_allclose(swapped, found.probabilities, atol=1e-4)


def test_use_gives_the_probabilities_that_were_calibrated(learnt: Job):
    folder = learnt.made["train"] / "model"
    known = weights.read_card(folder)["calibration"]
    images = torch.from_numpy(
        np.stack([draw(name, 950 + n, 32) for n, name in enumerate(CLASSES)]).transpose(0, 3, 1, 2)
    )
    plain, calibrated = (
        GalaxyClassifier(folder, calibrated=flag).predict(images).probabilities for flag in (False, True)
    )
    heated = plain ** (1 / known["temperature"])
    np.testing.assert_allclose(calibrated, heated / heated.sum(1, keepdims=True), atol=1e-5)
    assert known["symmetries"] is True


def test_no_name_of_an_image_reaches_the_output(learnt: Job):
    for path in learnt.output.rglob("*"):
        if path.is_file():
            assert MARKER not in str(path.relative_to(learnt.output)) and MARKER.encode() not in path.read_bytes(), path


def test_the_report_shows_galleries_and_reliability(learnt: Job):
    page = next(learnt.made["report"].glob("*.html")).read_text()
    assert page.count("data:image/svg") == 2 and page.count("data:image/png") >= 2
    assert len(scripts_in(page)) == 1 and "astrovision review collect" in page
    assert "Confusion of the merged classes" in page and "diagnosis" not in page


def test_a_baseline_of_timm_takes_the_same_way(tmp_path: Path, store: str):
    recipe = load_recipe("cutouts_astroformer_cpu").model_dump()
    recipe["model"] = {"architecture": "timm_classifier", "arguments": {"name": "resnet10t", "num_classes": 5}}
    recipe["data"] |= {"root": str(cutouts(tmp_path / "data")), "stored": 40, "size": 32, "crop": 1.0}
    recipe["train"] |= {"epochs": None, "steps": 3, "batch_size": 4, "threads": 1}
    recipe["tracking"]["system_metrics"] = False
    (tmp_path / "r.yaml").write_text(json.dumps(recipe | {"output": str(tmp_path / "out")}))
    job = run_stages(load_recipe(str(tmp_path / "r.yaml")), ["prepare", "train", "evaluate"])
    assert job.summary is not None and 0 <= job.summary["figures"]["accuracy"] <= 1


def test_training_starts_from_a_classifier_of_other_size_and_classes(tmp_path: Path, store: str):
    stages = ["prepare", "train"]
    first = start(
        "galaxy10_astroformer_cpu", galaxy10(tmp_path / "a"), tmp_path / "x", stages, data__split__test=0.25
    )  # fmt: skip
    changes = {"data__size": 64, "data__stored": 64, "model__arguments__img_size": 64}
    model = first.made["train"] / "model"
    job = start(
        "cutouts_astroformer_cpu", cutouts(tmp_path / "b"), tmp_path / "y", stages,
        model__init=str(model), train__learning_rate=1e-9, train__ema_decay=0, **changes,
    )  # fmt: skip
    before, after = (
        weights.load(model).module.state_dict(),
        weights.load(job.made["train"] / "model").module.state_dict(),
    )
    name = next(name for name in before if name.endswith("depthwise.convolution.weight"))
    torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)
    assert after["head.classifier.weight"].shape[0] == 5 and before["head.classifier.weight"].shape[0] == 10


def test_an_evaluation_is_done_again_where_its_settings_changed(tmp_path: Path, store: str):
    root, stages = cutouts(tmp_path / "data"), ["prepare", "train", "evaluate"]
    first = start("cutouts_astroformer_cpu", root, tmp_path / "out", stages, data__merged={})
    again = start("cutouts_astroformer_cpu", root, tmp_path / "out", stages, data__merged={"round": ["elliptical"]})
    assert first.summary is not None and "merged_accuracy" not in first.summary["figures"]
    assert again.summary is not None and "merged_accuracy" in again.summary["figures"]
    assert first.made["train"] == again.made["train"]


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, store: str):
    import pipelines.training.tasks.classification

    root = cutouts(tmp_path / "data")
    changes = {"train__steps": 6, "train__checkpoint_every": 2, "train__schedule": "constant"}
    whole = start("cutouts_astroformer_cpu", root, tmp_path / "a", ["prepare", "train"], **changes)

    class Killed(Exception):
        pass

    step = pipelines.training.tasks.classification.ClassificationTask.training_step

    def kill(self: Any, batch: Any, batch_index: int) -> Any:
        if self.trainer.global_step == 3:
            raise Killed
        return step(self, batch, batch_index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.training.tasks.classification.ClassificationTask, "training_step", kill)
        with pytest.raises(Killed):
            start("cutouts_astroformer_cpu", root, tmp_path / "b", ["prepare", "train"], **changes)
    again = start("cutouts_astroformer_cpu", root, tmp_path / "b", ["prepare", "train"], **changes)
    digests = [
        hashlib.sha256((job.made["train"] / "model" / "model.safetensors").read_bytes()).hexdigest()
        for job in (whole, again)
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__size": 64}, "data.size is 64, more than data.stored of 40"),
        ({"model__arguments__img_size": 64}, "img_size is 64, data.size 32"),
        ({"data__merged": {"spiral": ["barred"]}}, "names 'barred', no class of the card"),
        ({"data__layout": "galaxy11"}, "galaxy11"),
        ({"card__classes": [{"id": 0, "name": "a", "mirror": "b"}]}, "its mirror 'b' is none of the classes"),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(tmp_path: Path, store: str, changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        start("cutouts_astroformer_cpu", cutouts(tmp_path / "data", 2), tmp_path / "out", **changes)


def stored(count: int = 10, side: int = 12) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    targets = np.eye(3, dtype=np.uint8)[np.arange(count) % 3]
    return {"image": random.integers(0, 255, (count, 3, side, side), dtype=np.uint8), "targets": targets}


def test_mirrored_images_have_the_mirrored_label_and_others_their_own():
    part = stored()

    def still(image: np.ndarray, seed: int) -> np.ndarray:
        return image

    images: Any = StoredImages([part], 12, augment=still, mirror=[0, 2, 1], seed=3)  # type: ignore[arg-type]
    kept = turned = 0
    for turn in range(30):
        batch = images.__getitems__([(turn, 1)])
        image, label = batch["image"][0].numpy(), int(batch["target"][0].argmax())
        if (image == part["image"][1]).all():
            kept += 1
            assert label == 1
        else:
            turned += 1
            np.testing.assert_array_equal(image, part["image"][1][:, :, ::-1])
            assert label == 2
    assert kept > 5 and turned > 5


def test_a_draw_is_the_same_whenever_it_is_made_and_the_middle_is_given():
    part = stored()
    images = StoredImages([part], 8, augment=Augmentation(8), mirror=[0, 1, 2], seed=1)
    first, second = (images.__getitems__([(5, 2), (6, 2)])["image"] for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first[0], first[1])
    plain = StoredImages([part], 8)[4]["image"].numpy()
    np.testing.assert_array_equal(plain, part["image"][4][:, 2:10, 2:10])
    cropped = StoredImages([part], 8, augment=Augmentation(8, resized_crop=(0.2, 1.0)), seed=1)[0]["image"]
    assert cropped.shape == (3, 8, 8)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6])
def test_images_of_any_number_of_bands_are_varied_and_shown(bands: int):
    image = np.random.default_rng(0).integers(50, 200, (20, bands, 12, 12), dtype=np.uint8)
    part = {"image": image, "targets": np.ones((20, 1), np.uint8)}
    varied = Augmentation(10, bands=bands, resized_crop=(0.5, 1.0), blur=1.0)
    images = StoredImages([part], 10, augment=varied, seed=1)
    batch = images.__getitems__([(turn, turn) for turn in range(20)])["image"]
    assert batch.shape == (20, bands, 10, 10) and batch.dtype == torch.uint8
    brighter = Augmentation(12, bands=bands, rotation_degrees=0, scaling=0, shift=0, brightness=0.5, color=0, noise=0)
    plain = np.full((12, 12, bands), 100, np.uint8)
    means = np.array([brighter(plain, seed).mean() for seed in range(30)])
    assert means.min() < 80 and means.max() > 120 and (means == 100).any()
    shown = as_picture(image[3])
    assert shown.shape == (12, 12, 3) and shown.dtype == np.uint8
    expected = image[3] if bands == 3 else image[3].mean(0).round()
    np.testing.assert_array_equal(shown.transpose(2, 0, 1), np.broadcast_to(expected, (3, 12, 12)))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 6), st.sampled_from([0.0, 0.5]), st.integers(1, 3))
def test_an_order_can_be_entered_anywhere(count: int, batch: int, start: int, balance: float, world: int):
    labels = np.arange(count) % 3

    def order(first: int, rank: int) -> list[Any]:
        where = {"start": first, "rank": rank, "world_size": world}
        return list(DrawOrder(labels, batch_size=batch, steps=8, seed=1, balance=balance, **where))

    for rank in range(world):
        assert order(0, rank)[start:] == order(start, rank)
    # together the processes have the batches of one that is alone
    alone = DrawOrder(labels, batch_size=batch, steps=8, seed=1, balance=balance)
    for parts in zip(alone, *(order(0, rank) for rank in range(world)), strict=True):
        assert sorted(parts[0]) == sorted(draw for part in parts[1:] for draw in part)
    if not balance:
        draws = sorted(draw for rank in range(world) for part in order(0, rank) for draw in part)
        lap = [index for _, index in draws[:count]]
        assert len(draws) < count or sorted(lap) == list(range(count))


def test_rare_classes_come_more_often_where_a_recipe_asks_for_it():
    labels = np.repeat([0, 1], [900, 100])
    for balance, share in ((0.0, 0.1), (0.5, 0.25), (1.0, 0.5)):
        draws = [i for part in DrawOrder(labels, batch_size=50, steps=200, seed=0, balance=balance) for _, i in part]
        assert labels[draws].mean() == pytest.approx(share, abs=0.02)


def test_intervals_lie_around_the_figures_of_many_images(tmp_path: Path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 1200)
    scores = np.eye(2)[np.where(random.random(1200) < 0.8, labels, 1 - labels)] * 0.8 + 0.1
    targets = np.eye(2, dtype=np.uint8)[labels]
    figures: Any = write_classification(tmp_path, scores, targets, ["a", "b"], resamples=200)
    for name in ("accuracy", "balanced_accuracy"):
        assert figures[name] - 0.04 < figures[f"{name}_low"] < figures[name] < figures[f"{name}_high"]
        assert figures[f"{name}_high"] < figures[name] + 0.04


def test_coverage_over_divisions_is_the_nominal_one():
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (1500, 4))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([random.choice(4, p=row) for row in scores])
    assert mean_coverage(scores, labels, 0.9, seed=0) == pytest.approx(0.9, abs=0.01)
