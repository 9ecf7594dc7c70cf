"""Data sets of torchgeo through the stages, by their names alone."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torchgeo.models import swin_v2_t

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from pipelines.data.image_layouts import MASK_LAYOUTS, find_layout
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.geovision.test_torchgeo_encoders import ORDER, RESNET, SWIN, checkpoint, imported
from tests.geovision.torchgeo_miniatures import LABELS, MASKS

SMALL = [
    "train.epochs=null", "train.steps=3", "train.batch_size=4", "train.accumulate=1", "train.devices=1",
    "train.precision=32-true", "train.warmup_steps=1", "train.threads=1", "tracking.system_metrics=false",
    "data.statistics=training", "data.normalisation=mean_std",
]  # fmt: skip
COLOURS = ["red", "green", "blue"]
SMALLEST = "model={architecture: timm_classifier, arguments: {name: test_resnet, in_chans: %d, num_classes: %d}}"


def classes(names: Any) -> str:
    entries = [{"id": n, "name": str(name), "color": [9 * n, 50, 90]} for n, name in enumerate(names)]
    return f"card.classes={json.dumps(entries)}"


def start(recipe: str, name: str, folder: Path, *overrides: str, stages: Any = None, bands: Any = None) -> Job:
    made = (LABELS | MASKS)[name]
    root = folder / "data"
    if not root.exists():
        root.mkdir()
        made.write(root)
    settings = [
        f"data.root={root}", f"output={folder / 'out'}", f"data.layout=torchgeo:{name}", f"data.sensor={made.sensor}",
        f"data.bands={json.dumps(bands or made.bands)}", f"data.options={json.dumps(made.options)}",
        f"data.patch={made.side}",
        classes(made.classes), *(f"data.{key}={json.dumps(value)}" for key, value in made.settings.items()),
    ]  # fmt: skip
    return run_stages(load_recipe(recipe, [*settings, *SMALL, *overrides]), stages)


def test_a_data_set_is_named_and_its_classifier_is_judged(tmp_path: Path, store: str, capsys):
    job = start("eurosat", "EuroSAT", tmp_path, SMALLEST % (4, 3))
    assert job.summary is not None and job.summary["figures"]["images"] == 6
    assert any("torchgeo:EuroSAT, train, val, test" in table["title"] for table in job.summary["tables"])
    card = weights.read_card(job.made["train"] / "model")
    assert card["input"]["bands"] == ["B12", "B2", "B8A", "B3"] and card["input"]["stored"] == 16
    rows = (job.made["evaluate"] / "predictions.csv").read_text().splitlines()[1:]
    assert len(rows) == 6


def test_several_labels_an_image_are_learnt(tmp_path: Path, store: str):
    job = start("bigearthnet", "BigEarthNet", tmp_path, SMALLEST % (4, 19), "data.patch=16")
    assert job.summary is not None and job.summary["figures"]["images"] == 2
    assert weights.read_card(job.made["train"] / "model")["multi_label"]


def test_masks_are_learnt_and_the_test_samples_are_mapped(tmp_path: Path, store: str):
    network = "model.arguments={num_classes: 5, in_chans: 3, encoder: resnet18, decoder_channels: [16, 8, 8, 8, 8]}"
    settings = [network, "data.label_values=null", "data.stride=null", "train.ema_decay=0"]
    job = start("scenes", "LandCoverAI", tmp_path, *settings)
    assert job.summary is not None
    confusion = job.summary["tables"][1]["rows"]
    assert sum(sum(row[1:]) for row in confusion) == 2 * 32 * 32
    maps = [*job.made["evaluate"].glob("case-*.tif")]
    assert len(maps) == 2
    with rasterio.open(maps[0]) as found:
        assert found.shape == (32, 32) and np.isin(found.read(1), range(5)).all()
    again = start("scenes", "LandCoverAI", tmp_path, *settings)
    assert again.made == job.made  # nothing has changed, so nothing is made anew


def test_an_autoencoder_learns_from_the_images_alone(tmp_path: Path, store: str):
    trunk = "img_size=16 patch_size=4 embed_dim=24 depth=1 num_heads=2 channel_embed=8 in_chans=4"
    decoder = "decoder_embed_dim=24 decoder_channel_embed=8 decoder_depth=1 decoder_num_heads=2"
    network = [f"model.arguments.{part}" for part in f"{trunk} {decoder}".split()]
    groups = "model.arguments.channel_groups=[[0, 1], [2, 3]]"
    job = start("scenes_pretraining", "EuroSAT", tmp_path, *network, groups, "card.classes=[]")
    assert job.summary is not None and job.summary["figures"]["patches"] == 6


def test_an_encoder_is_judged_and_fine_tuned(tmp_path: Path, store: str):
    folder, own = imported(tmp_path, RESNET)
    network = "{architecture: timm_classifier, arguments: {name: resnet18, in_chans: 13, num_classes: 3}, init: %s}"
    settings = [f"model={network % folder}", f"data.bands={json.dumps(ORDER)}", "train.trainable=head"]
    settings.append("data.statistics=init")
    job = start("eurosat", "EuroSAT", tmp_path, *settings)
    assert job.summary is not None and job.summary["figures"]["images"] == 6
    contract = weights.read_card(job.made["train"] / "model")["input"]
    assert contract["bands"] == ORDER and contract["mean"] == [0] * 13 and contract["std"] == [10_000] * 13
    trained = weights.load(job.made["train"] / "model").module.state_dict()
    for name, value in own.state_dict().items():  # a probe leaves the encoder as it was
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(trained[f"network.{name}"], value), name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.statistics=init"], "data.statistics=init needs a model; give model.init=FOLDER"),
        (["data.statistics=init", "model.init=encoder"], "normalised by mean_std; give data.bands, data.sensor and"),
    ],
)
def test_statistics_of_a_start_need_one_that_suits(settings: list[str], said: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    imported(tmp_path, RESNET)
    (tmp_path / "data").mkdir()
    LABELS["EuroSAT"].write(tmp_path / "data")
    given = ["data.layout=torchgeo:EuroSAT", "data.root=data", classes("abc"), *settings]
    capsys.readouterr()
    assert run(app, ["finetune", "eurosat", *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


class Missing:
    """A finder for which torchgeo is not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "torchgeo":
            raise ModuleNotFoundError(f"No module named {name!r}", name="torchgeo")


def test_without_torchgeo_the_line_names_the_extra(tmp_path: Path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchgeo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    assert run(app, ["finetune", "eurosat", f"data.root={tmp_path}", "data.layout=torchgeo:EuroSAT"]) == 2
    said = capsys.readouterr().err
    assert said == 'error: torchgeo.datasets is not installed; run: pip install "domain-vision[torchgeo]"\n'


@pytest.mark.parametrize(
    ("recipe", "layout", "said"),
    [
        (
            "eurosat",
            "torchgeo",
            "bigearthnet, fmow_sentinel, fmow_rgb, torchgeo:NAME",
        ),
        ("eurosat", "torchgeo:Eurosat", "is unknown to torchgeo; did you mean EuroSAT"),
        ("eurosat", "torchgeo:LoveDA", "has samples without 'label'; expected a label of the whole image"),
        ("eurosat", "torchgeo:EuroSAT", "torchgeo finds no such data set there"),
        ("scenes", "torchgeo:EuroSAT", "has samples without 'mask'; expected a mask"),
        ("scenes", "eurosat", "expected one of: torchgeo:NAME"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(recipe: str, layout: str, said: str, tmp_path: Path, capsys):
    verb = "finetune" if recipe == "eurosat" else "run"
    assert run(app, [verb, recipe, f"data.root={tmp_path}", f"data.layout={layout}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not [*tmp_path.iterdir()]


def test_a_layout_with_masks_is_for_maps_alone():
    with pytest.raises(InputError, match="expected one of: torchgeo:NAME"):
        find_layout("folders", MASK_LAYOUTS)


def test_fixes_of_readers_take_the_place_of_labels_of_folders_alone(tmp_path: Path):
    for place, name in (("a", "EuroSAT"), ("b", "COWCDetection")):
        (tmp_path / place).mkdir()
        LABELS[name].write(tmp_path / place)
    table = tmp_path / "fixes.csv"
    table.write_text("id,label,again,drawn\ntrain/0,River,,random\n")
    fixes = f"data.label_fixes=[{table}]"
    names = ["Forest", "River", "SeaLake"]
    given = [f"data.root={tmp_path / 'a'}", "data.layout=torchgeo:EuroSAT", classes(names), fixes]
    kind = find_kind(load_recipe("eurosat", [*given, SMALLEST % (10, 3), "data.patch=16"]))
    [source] = [source for source in kind.sources if source.split == "train"]
    place = [item.key for item in source.items].index("train/0")
    assert kind.reader()(source)[0]["targets"][place].tolist() == [0, 1, 0]
    given = [f"data.root={tmp_path / 'b'}", "data.layout=torchgeo:COWCDetection", classes(["River", "car"]), fixes]
    with pytest.raises(InputError, match=r"data\.label_fixes: labels of these images show when they are read"):
        find_kind(load_recipe("eurosat", [*given, "data.sensor=rgb", "data.bands=[red]"]))


class TestWeightsByName:
    """A network of torchgeo that a recipe names by its weights, from a file."""

    def test_a_probe_takes_the_bands_and_numbers_that_torchgeo_names(self, tmp_path: Path, store: str):
        own = checkpoint(tmp_path / "a.pth", RESNET)
        job = start("eurosat", "EuroSAT", tmp_path, *named(tmp_path), "train.trainable=head", bands=ORDER)
        assert job.summary is not None and job.summary["figures"]["images"] == 6
        card = weights.read_card(job.made["train"] / "model")
        assert card["architecture"] == "torchgeo" and card["arguments"]["weights"] == RESNET
        contract = card["input"]
        assert contract["bands"] == ORDER and contract["sensor"] == "sentinel2_l1c" and contract["size"] == 224
        assert contract["mean"] == [0] * 13 and contract["std"] == [10_000] * 13 and contract["scale"] == 1e-4
        trained = weights.load(job.made["train"] / "model").module.state_dict()
        for name, value in own.state_dict().items():  # a probe leaves the encoder as it was
            if "running" not in name and "num_batches" not in name:
                assert torch.equal(trained[f"backbone.network.{name}"], value), name

    def test_masks_are_learnt_from_its_maps(self, tmp_path: Path, store: str):
        torch.manual_seed(0)
        torch.save(swin_v2_t().state_dict(), tmp_path / "a.pth")
        settings = ["data.label_values=null", "data.stride=null", "train.ema_decay=0", "data.normalisation=satmae"]
        job = start("scenes", "LandCoverAI", tmp_path, *settings, *named(tmp_path, SWIN, 5), bands=COLOURS)
        assert job.summary is not None
        assert len([*job.made["evaluate"].glob("case-*.tif")]) == 2
        card = weights.read_card(job.made["train"] / "model")
        assert card["arguments"]["dense"] and card["input"]["bands"] == ["red", "green", "blue"]
        assert card["input"]["std"] == [255.0] * 3 and card["input"]["normalisation"] == "mean_std"

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (["model.accept_license=false"], "names no licence of these weights; look at https://"),
            (["model.arguments={weights: Nothing}"], "torchgeo names no such weights"),
            (['data.bands=["B2"]'], "leave data.bands out, as it follows from the weights"),
            (["model.init=none.pth"], "no such file"),
            (["model.init=other.pth"], "no weights of this network of torchgeo"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, changes: list[str], said: str, tmp_path: Path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        checkpoint(tmp_path / "a.pth", RESNET)
        torch.save({"a": torch.ones(1)}, "other.pth")
        (tmp_path / "data").mkdir()
        LABELS["EuroSAT"].write(tmp_path / "data")
        given = ["data.layout=torchgeo:EuroSAT", "data.root=data", classes("abc"), "data.patch=16", *SMALL[:-2]]
        capsys.readouterr()
        assert run(app, ["finetune", "eurosat", *given, *named(tmp_path), *changes]) == 2
        error = capsys.readouterr().err.splitlines()
        assert said in error[-1], error


def named(folder: Path, name: str = RESNET, count: int = 3) -> list[str]:
    """Overrides that name a network by its weights, which lie in a file."""
    arguments = f"{{weights: {name}, num_classes: {count}}}"
    return ["model.architecture=torchgeo", f"model.arguments={arguments}", f"model.init={folder / 'a.pth'}",
            "model.accept_license=true"]  # fmt: skip
