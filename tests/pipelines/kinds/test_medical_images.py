"""Medical images through the stages: MedMNIST files and folders, several labels, corruption in training and scoring."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from medvision.classification import MedicalClassifier, MedicalContract
from medvision.corruptions.medmnist_c import SETS as CORRUPTIONS
from medvision.corruptions.medmnist_c import corrupt
from medvision.datasets.medmnist import SETS, read_medmnist, read_targets
from pipelines.data.image_layouts import find_layout
from pipelines.data.image_reading import read_images, to_sample
from pipelines.data.stored_images import DrawOrder
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import bundled_recipes, load_recipe
from pipelines.recipe.shown import shown
from pipelines.stages import Job, run_stages
from shared_backbones import architectures, weights
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256
from shared_backbones.labelled_images import GREY, find_images
from shared_backbones.networks.resnet import ResNet

SMALL = {
    "train.epochs": None, "train.steps": 3, "train.batch_size": 4, "train.warmup_steps": 1, "train.threads": 1,
    "train.devices": 1, "train.precision": "32-true", "tracking.system_metrics": False, "evaluate.resamples": 30,
}  # fmt: skip
NARROW = {
    "pneumoniamnist_medvitv2_cpu": {
        "depths": [1, 1, 3, 1], "dims": [32, 64, 64, 64], "stem_chs": [8, 8, 16], "mix_block_ratio": 0.5,
    },
    "pneumoniamnist_duoformer_cpu": {"depth": 1, "embed_dim": 16, "num_heads": 2},
    "chest_28": {"depth": 1, "embed_dim": 16, "num_heads": 2, "backbone_width": 8},
}  # fmt: skip


def npz(path: Path, name: str = "pneumoniamnist", counts: tuple[int, ...] = (24, 12, 12), side: int = 28) -> Path:
    """A miniature: what shows a class is brightness on the right side."""
    facts, arrays = SETS[name], {}
    random = np.random.default_rng(0)
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        shape = (count, side, side) if facts.channels == 1 else (count, side, side, 3)
        images = random.integers(0, 60, shape)
        if facts.multi_label:
            labels = random.integers(0, 2, (count, len(facts.classes)))
        else:
            labels = (np.arange(count) % len(facts.classes))[:, None]
            for image, label in zip(images, labels[:, 0], strict=True):
                image[:, side // 2 :] += int(150 * label / (len(facts.classes) - 1))
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels.astype(np.uint8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def start(name: str, root: Path, output: Path, stages: Any = None, **changes: Any) -> Job:
    narrow = {f"model.arguments.{key}": value for key, value in NARROW.get(name, {}).items()}
    settings = {**SMALL, **narrow, **{key.replace("__", "."): value for key, value in changes.items()}}
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return run_stages(load_recipe(name, [f"data.root={root}", f"output={output}", *overrides]), stages)


@pytest.mark.parametrize("name", NARROW)
def test_a_recipe_runs_on_a_miniature_and_its_model_is_used_as_it_was_scored(name: str, tmp_path: Path, store: str):
    full = load_recipe(name)
    with torch.device("meta"):
        network = architectures.build(full.model.architecture, full.model.arguments)
    assert sum(part.numel() for part in network.parameters()) > (4e6 if name == "chest_28" else 8e6)
    job = start(name, npz(tmp_path / "pneumoniamnist.npz"), tmp_path / "out", data__corrupted=4)
    assert job.summary is not None
    figures = job.summary["figures"]
    assert figures["images"] == 12 and {"accuracy", "auc", "ece", "balanced_accuracy", "brier", "nll"} <= set(figures)
    assert "handedness" not in figures
    found = json.loads((job.made["evaluate"] / "robustness.json").read_text())
    assert list(found["corruptions"]) == list(CORRUPTIONS["pneumoniamnist"]) and len(found["cells"]) == 65
    classifier = MedicalClassifier(job.made["train"] / "model")
    assert classifier.names == ["normal", "pneumonia"] and not classifier.symmetries
    with np.load(tmp_path / "pneumoniamnist.npz") as file:
        images, labels = file["test_images"][:, None], file["test_labels"][:, 0]
    prepared = classifier.prepare(torch.from_numpy(images))
    scores = classifier.predict(prepared).probabilities
    assert (scores.argmax(1) == labels).mean() == pytest.approx(figures["accuracy"])
    cell = next(c for c in found["cells"] if c["corruption"] == "gaussian_noise" and c["severity"] == 3)
    kind = find_kind(job.recipe)
    (source,) = kind.test_sources()
    assert [item.row for item in source.items] == list(range(12))  # an image's number is its row in the file
    stored = to_sample(source, kind.reader()).arrays["image"]
    chosen = np.unique(np.linspace(0, 11, 4).round().astype(int))
    harmed = np.stack([
        corrupt("pneumoniamnist", "gaussian_noise", stored[row, 0], 3, seed_key=[int(row)])[None] for row in chosen
    ])  # fmt: skip
    assert hashlib.sha256(harmed.tobytes()).hexdigest() == cell["sha256"]
    answers = classifier.predict(torch.from_numpy(harmed)).labels
    assert (answers == labels[chosen]).mean() == pytest.approx(cell["accuracy"])


def test_parts_of_a_file_are_read_in_any_order_and_after_damage(tmp_path: Path):
    path = npz(tmp_path / "pneumoniamnist.npz", counts=(600, 4, 4))
    images = np.load(path)["train_images"]
    sources = [
        source
        for source in find_images(
            find_layout("medmnist"), path, ["normal", "pneumonia"], test=0, validation=0, seed=0, bands=GREY
        )
        if source.split == "train"
    ]
    assert len(sources) == 3
    for source in (sources[0], sources[2], sources[1], sources[1]):
        found = read_images(source, 28, 1.0, 2)[0]["image"][:, 0]
        np.testing.assert_array_equal(found, images[[item.row for item in source.items]])
    content = path.read_bytes()
    place = content.index(images[300].tobytes())  # of the second part
    path.write_bytes(content[:place] + bytes(784) + content[place + 784 :])
    np.testing.assert_array_equal(read_images(sources[0], 28, 1.0, 2)[0]["image"][:, 0], images[:256])
    for _ in range(2):  # the archive's checksum is that of all, so it shows at the end
        with pytest.raises(InputError, match="Bad CRC"):
            read_images(sources[2], 28, 1.0, 2)


def test_every_recipe_of_labelled_images_is_tested_here():
    own = {name for name, path in bundled_recipes().items() if load_recipe(name).data.kind == "medical_images"}
    assert own == {*NARROW, "medmnist_medvitv2", "pneumoniamnist_medvitv2_112_cpu", "tiles_duoformer"}


def test_the_published_order_of_tokens_runs_on_a_miniature(tmp_path: Path, store: str):
    recipe = load_recipe("pneumoniamnist_medvitv2_112_cpu")
    assert recipe.model.arguments["tokens"] == "reinterpreted" and recipe.model.arguments["dilations"] == [1, 1, 1, 1]
    start(
        recipe.name, npz(tmp_path / "pneumoniamnist.npz"), tmp_path / "out", ["prepare", "train"], train__steps=1,
        **{f"model__arguments__{key}": value for key, value in NARROW["pneumoniamnist_medvitv2_cpu"].items()},
    )  # fmt: skip
    [model] = (tmp_path / "out" / "train").glob("*/model")
    module: Any = weights.load(model).module
    assert module.arguments["tokens"] == "reinterpreted"


def test_batch_norms_are_measured_on_images_as_they_are(tmp_path: Path, store: str):
    """Whatever augmentation, dropout and drawing made of the running statistics."""
    path = npz(tmp_path / "pneumoniamnist.npz")
    changes = {"train__steps": 3, "data__augmentation__brightness": 0.9, "data__balance": 0}
    start("pneumoniamnist_medvitv2_cpu", path, tmp_path / "out", ["prepare", "train"], train__norm_images=64, **changes)
    start("pneumoniamnist_medvitv2_cpu", path, tmp_path / "old", ["prepare", "train"], train__norm_images=0, **changes)
    images = torch.from_numpy(np.load(path)["train_images"])[:, None]
    draws = [number for batch in DrawOrder(np.zeros(24, int), batch_size=64, steps=1, seed=1) for _, number in batch]
    differences = []
    for name in ("out", "old"):
        [model] = (tmp_path / name / "train").glob("*/model")
        trained = weights.load(model)
        contract = MedicalContract.from_card(trained.card, "m")
        stem: Any = trained.module.get_submodule("stem.0")
        with torch.no_grad():
            seen = stem.convolution(contract.normalise(images[draws])).transpose(0, 1).flatten(1)
        differences.append(float((stem.norm.running_mean - seen.mean(1)).abs().max()))
        if name == "out":
            torch.testing.assert_close(stem.norm.running_var, seen.var(1), rtol=1e-4, atol=1e-6)
    assert differences[0] < 1e-5 < 1e-3 < differences[1]


def test_training_starts_from_published_weights_of_the_backbone(tmp_path: Path, store: str):
    torch.manual_seed(0)
    theirs, path = ResNet(18), tmp_path / "patients" / "resnet18.safetensors"
    path.parent.mkdir()
    save_file(theirs.state_dict(), path)
    job = start(
        "pneumoniamnist_duoformer_cpu", npz(tmp_path / "pneumoniamnist.npz"), tmp_path / "out", ["prepare", "train"],
        model__backbone_weights=str(path), train__steps=1, train__learning_rate=1e-9, train__ema_decay=0,
    )  # fmt: skip
    [model] = (tmp_path / "out" / "train").glob("*/model")
    ours = weights.load(model).module.get_submodule("backbone").state_dict()
    expected = theirs.state_dict()["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(ours["conv1.weight"], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        ours["layer4.1.conv2.weight"], theirs.state_dict()["layer4.1.conv2.weight"], rtol=0, atol=1e-6
    )
    noted = shown(job.recipe)["model"]
    assert noted["backbone_weights"] == f"sha256:{file_sha256(path)}" and "patients" not in json.dumps(noted)


def test_backbone_weights_that_cannot_be_used_are_refused(tmp_path: Path, store: str):
    path = npz(tmp_path / "pneumoniamnist.npz")
    there = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, there)
    for name, changes, message in (
        ("pneumoniamnist_duoformer_cpu", {"model__backbone_weights": "absent.pth"}, "absent.pth: no such file"),
        ("pneumoniamnist_medvitv2_cpu", {"model__backbone_weights": str(there)}, "medvitv2 has no backbone"),
        ("pneumoniamnist_duoformer_cpu", {"model__backbone_weights": "a", "model__init": "b"}, "give either init or"),
        ("pneumoniamnist_duoformer_cpu", {"model__backbone_weights": str(there)}, "no weights of this backbone"),
    ):
        with pytest.raises(InputError, match=message):
            start(name, path, tmp_path / "out", ["prepare", "train"], **changes)


def test_the_published_recipe_for_medmnist_runs_on_a_miniature(tmp_path: Path, store: str):
    full = load_recipe("medmnist_medvitv2")
    with torch.device("meta"):  # 10.4 million: the published network
        network = architectures.build(full.model.architecture, full.model.arguments)
    assert sum(part.numel() for part in network.parameters()) == pytest.approx(10.35e6, rel=0.01)
    changes = {
        "data__stored": 112, "data__size": 112, "data__corrupted": 0, "train__steps": 2,
        **{f"model__arguments__{key}": value for key, value in NARROW["pneumoniamnist_medvitv2_cpu"].items()},
    }  # fmt: skip
    job = start("medmnist_medvitv2", npz(tmp_path / "pneumoniamnist_224.npz", side=112), tmp_path / "out", **changes)
    assert job.summary is not None and job.summary["figures"]["images"] == 12


def test_the_published_recipe_for_tiles_runs_on_a_miniature(tmp_path: Path, store: str):
    random = np.random.default_rng(0)
    for split, name in [
        (split, name) for split in ("train", "val", "test") for name in ("normal", "cancer", "necrosis")
    ]:
        folder = tmp_path / "data" / split / name
        folder.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    changes = {
        "data__stored": 40, "data__size": 32, "model__arguments__img_size": 32, "model__arguments__backbone": "r18",
        "model__arguments__depth": 1, "model__arguments__embed_dim": 16, "train__steps_per_epoch": None,
        "train__warmup_steps": 0,
    }  # fmt: skip
    job = start("tiles_duoformer", tmp_path / "data", tmp_path / "out", **changes)
    assert job.summary is not None and job.summary["figures"]["images"] == 9


def test_several_labels_are_learnt_with_a_probability_each(tmp_path: Path, store: str):
    recipe = load_recipe("pneumoniamnist_medvitv2_cpu").model_dump()
    recipe["card"]["classes"] = [{"id": n, "name": name} for n, name in enumerate(SETS["chestmnist"].classes)]
    recipe["model"]["arguments"] |= {**NARROW["pneumoniamnist_medvitv2_cpu"], "num_classes": 14}
    recipe["train"] |= {"epochs": None, "steps": 3, "batch_size": 4, "threads": 1, "warmup_steps": 1}
    recipe["data"] |= {
        "root": str(npz(tmp_path / "chestmnist.npz", "chestmnist")),
        "corruption_images": 3,
        "balance": 0.0,
    }
    recipe["tracking"]["system_metrics"] = False
    recipe["evaluate"]["resamples"] = 20
    (tmp_path / "r.yaml").write_text(json.dumps(recipe | {"output": str(tmp_path / "out")}))
    job = run_stages(load_recipe(str(tmp_path / "r.yaml")), ["prepare", "train", "evaluate"])
    assert job.summary is not None
    figures = job.summary["figures"]
    assert {"accuracy", "auc", "map_macro", "corrupted_balanced_accuracy"} <= set(figures)
    assert "coverage" not in figures
    recipe["data"]["balance"] = 0.5
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    with pytest.raises(InputError, match=r"several classes, for which data.balance and data.merged mean nothing"):
        find_kind(load_recipe(str(tmp_path / "r.yaml")))
    card = weights.read_card(job.made["train"] / "model")
    assert card["multi_label"] is True and "quantile" not in card["calibration"]
    rows = (job.made["evaluate"] / "predictions.csv").read_text().splitlines()
    assert rows[0].startswith("case,label,p_atelectasis") and len(rows) == 13


def test_training_images_are_corrupted_by_the_share_asked_for(tmp_path: Path):
    path = npz(tmp_path / "pneumoniamnist.npz")
    still = {f"data.augmentation.{name}": 0 for name in
             ("rotation_degrees", "scaling", "shift", "brightness", "noise", "blur", "color")}  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    changed = {}
    for share in (0.0, 0.5, 1.0):
        overrides = [f"{key}={value}" for key, value in {**still, "data.corruption_share": share}.items()]
        kind = find_kind(load_recipe("pneumoniamnist_medvitv2_cpu", [f"data.root={path}", *overrides]))
        views = [kind.augmentation()(image, seed) for seed in range(120)]
        assert all(view.shape == image.shape and view.dtype == np.uint8 for view in views)
        again = [kind.augmentation()(image, seed) for seed in range(5)]
        assert all(np.array_equal(a, b) for a, b in zip(views, again, strict=False))
        changed[share] = np.mean([not np.array_equal(view, image) for view in views])
    assert changed[0.0] == 0 and 0.3 < changed[0.5] < 0.6 and changed[1.0] > 0.8


def test_folders_of_images_grey_or_coloured_are_learnt(tmp_path: Path):
    random = np.random.default_rng(0)
    for name in ("normal", "pneumonia"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            shape = (30, 40) if number % 2 else (30, 40, 3)
            values = random.integers(0, 256, (30, 40), dtype=np.uint8)
            values = values if len(shape) == 2 else np.repeat(values[..., None], 3, 2)
            Image.fromarray(values).save(tmp_path / "data" / name / f"{number}.png")
    for channels in (1, 3):
        kind = find_kind(load_recipe("pneumoniamnist_medvitv2_cpu", [
            f"data.root={tmp_path / 'data'}", "data.layout=folders", "data.corruptions=pneumoniamnist",
            f"model.arguments.in_chans={channels}",
        ]))  # fmt: skip
        sample = to_sample(kind.find_sources()[0], kind.reader())
        assert sample.arrays["image"].shape[1] == channels
        assert (sample.arrays["image"] == sample.arrays["image"][:, :1]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.corruptions": "x"}, "data.corruptions is 'x', expected one of"),
        ({"data.layout": "folders"}, "class normal has no image|holds no image"),
        ({"data.size": 30}, "data.size is 30, more than data.stored of 28"),
        (
            {"card.classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]},
            "of pneumoniamnist are normal, pn",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str):
    npz(tmp_path / "data" / "pneumoniamnist.npz")
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    with pytest.raises(InputError, match=message) as raised:
        find_kind(load_recipe("pneumoniamnist_medvitv2_cpu", [f"data.root={tmp_path / 'data'}", *overrides]))
    assert "\n" not in str(raised.value)


def test_the_real_x_rays_are_read_with_their_splits(data_root: Path):
    path = data_root / "medical" / "medmnist" / "pneumoniamnist.npz"
    kind = find_kind(load_recipe("pneumoniamnist_medvitv2_cpu", [f"data.root={path}"]))
    counts: dict[str, int] = {}
    for source in kind.find_sources():
        counts[source.split] = counts.get(source.split, 0) + len(source.items)
    assert counts == {"train": 4708, "validation": 524, "test": 162}
    source = kind.test_sources()[0]
    sample = to_sample(source, functools.partial(read_images, size=28, crop=1.0, classes=2))
    with np.load(path) as file:
        rows = [int(item.row or 0) for item in source.items]
        np.testing.assert_array_equal(sample.arrays["image"][:, 0], file["test_images"][rows])
        np.testing.assert_array_equal(sample.arrays["targets"].argmax(1), file["test_labels"][rows, 0])
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(read_targets(path, split), read_medmnist(path, split).targets)
