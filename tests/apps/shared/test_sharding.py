"""`--shard I/N` of every program that takes many inputs, and `geovision map` on a folder."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from apps.cli.astrovision import program as astrovision
from apps.cli.geovision import program as geovision
from apps.cli.medvision import program as medvision
from apps.cli.shared.program import run
from apps.cli.shared.sharding import NoInputs, Shard, part_of
from shared_backbones.errors import InputError
from tests.apps.conftest import SHAPE, contents
from tests.astrovision import small_models as sky_models
from tests.geovision import small_models as land_models
from tests.geovision.rasters import ramp, write_scene
from tests.medvision import small_models
from tests.medvision.phantoms import make_affine, make_image, write_scan


@given(st.integers(1, 50), st.integers(1, 12))
def test_shards_have_every_item_once(count: int, shards: int):
    if shards > count:
        return
    parts = [part_of(range(count), Shard(number, shards)) for number in range(1, shards + 1)]
    assert [item for part in parts for item in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1 / 4"])
def test_what_is_no_shard_is_said(text: str):
    with pytest.raises(InputError, match="expected I/N with I from 1 to N"):
        Shard.read(text)


def test_more_shards_than_inputs_leave_some_with_none():
    with pytest.raises(NoInputs, match="shard 1/5: has none of 3 inputs; nothing to do"):
        part_of("abc", Shard(1, 5))


def call(app: Any, *arguments: object) -> int:
    return run(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("change", [{"command": 5}, {"killed": 7}, {"failed": ["x"]}, {"command": "segment"}])
def test_notes_that_are_none_are_of_a_shard_that_did_not_end(change: dict[str, Any], tmp_path: Path, capsys):
    output, notes = tmp_path / "results", tmp_path / "results.shards"
    notes.mkdir()
    note = {"code": 0, "command": ["segment"], "killed": [], "failed": {}, **change}
    (notes / "1-of-1.json").write_text(json.dumps(note))
    assert run(medvision.app, ["merge", "-o", str(output)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not output.exists()


def test_shards_of_a_batch_that_die_and_are_repeated_give_the_whole(segment, tmp_path: Path, monkeypatch):
    """Four jobs of an array: the second dies before its last scan, and is queued again."""
    folder, affine = tmp_path / "scans", make_affine(spacing=(4, 4, 4))
    folder.mkdir()
    for seed in range(5):
        write_scan(folder / f"{seed}.nii.gz", make_image(SHAPE, seed=seed), affine)
    assert segment(folder, "-o", tmp_path / "whole").code == 0
    for number in (1, 2, 3, 4):
        assert segment(folder, "-o", tmp_path / "parts", "--shard", f"{number}/4").code == 0
    for lost in (tmp_path / "parts").glob("1_*"):  # the side-car is the first to be there
        if lost.suffix != ".json":
            lost.unlink()
    again = segment(folder, "-o", tmp_path / "parts", "--shard", "2/4", "--resume")
    assert again.code == 0
    names = {name for name in contents(tmp_path / "whole") if not name.startswith(("index", "reports", "volumes"))}
    assert set(contents(tmp_path / "parts")) == names
    for name in names:
        if name.endswith(".nii.gz"):
            assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    done = segment(folder, "-o", tmp_path / "parts", "--resume")
    assert done.code == 0 and done.out.count("skipped") == 5
    assert len(json.loads((tmp_path / "parts/index.json").read_text())["cases"]) == 5
    assert "is one scan" in segment(folder / "0.nii.gz", "--shard", "1/2").err


def rows_of(paths: Sequence[Path]) -> list[dict[str, str]]:
    return [row for path in paths for row in csv.DictReader(path.read_text().splitlines())]


def classifying(given: Path, model: Path, table: Path) -> tuple[Any, ...]:
    """What is typed; of one image at a time, so that sums are of one order."""
    return "classify", "-i", given, "--model", model, "--device", "cpu", "-q", "--batch-size", 1, "-o", table


def write_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_tables_of_medical_images_are_parts_of_the_whole_one(kind: str, tmp_path: Path):
    images = small_models.radiographs(7, 28)
    given = tmp_path / "images"
    if kind == "npz":
        given = tmp_path / "pneumoniamnist.npz"
        np.savez(given, test_images=images, test_labels=(np.arange(7)[:, None] % 2).astype(np.uint8))
    else:
        write_images(given, images)
    model = small_models.classifier(tmp_path / "m", contract={**small_models.GREY, "size": 28})
    asked = classifying(given, model, tmp_path / "t.csv")
    assert call(medvision.app, *asked) == 0
    for number in (1, 2, 3):
        assert call(medvision.app, *asked, "--shard", f"{number}/3", "--grad-cam", tmp_path / "maps") == 0
    parts = [tmp_path / f"t.{number}-of-3.csv" for number in (1, 2, 3)]
    assert rows_of(parts) == rows_of([tmp_path / "t.csv"]) and all(path.with_suffix(".json").exists() for path in parts)
    assert sum(len(list((tmp_path / f"maps.{number}-of-3").iterdir())) for number in (1, 2, 3)) == 7


@pytest.mark.parametrize("kind", ["folder", "h5"])
def test_tables_of_galaxies_are_parts_of_the_whole_one(kind: str, tmp_path: Path):
    images = sky_models.galaxies(5).transpose(0, 2, 3, 1)
    given = tmp_path / "cuts"
    if kind == "h5":
        given = tmp_path / "g.h5"
        with h5py.File(given, "w") as file:
            file["images"], file["ra"], file["dec"] = images, np.arange(5.0), np.arange(5.0) / 2
    else:
        write_images(given, images)
    model = sky_models.classifier(tmp_path / "m")
    asked = classifying(given, model, tmp_path / "t.csv")
    assert call(astrovision.app, *asked) == 0
    for number in (1, 2):
        assert call(astrovision.app, *asked, "--shard", f"{number}/2") == 0
    assert rows_of([tmp_path / "t.1-of-2.csv", tmp_path / "t.2-of-2.csv"]) == rows_of([tmp_path / "t.csv"])


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    for number in range(3):
        write_scene(tmp_path / "scenes" / f"{number}.tif", ramp(3, 40, 40) + number, land_models.BANDS)
    return tmp_path / "scenes"


def test_embeddings_of_shards_are_parts_of_the_whole_table(scenes: Path, tmp_path: Path):
    model = land_models.classifier(tmp_path / "m")
    asked = ("embed", "-i", scenes, "-o", tmp_path / "e.npz", "--model", model, "--sensor", "sentinel2_l1c")
    assert call(geovision.app, *asked) == 0
    for number in (1, 2):
        assert call(geovision.app, *asked, "--shard", f"{number}/2") == 0
    parts = [np.load(tmp_path / f"e.{number}-of-2.npz") for number in (1, 2)]
    whole = np.load(tmp_path / "e.npz")
    for name in ("scene", "embedding"):
        assert (np.concatenate([part[name] for part in parts]) == whole[name]).all()


def test_a_folder_is_mapped_scene_by_scene_and_goes_on(scenes: Path, tmp_path: Path, capsys):
    model, out = land_models.mapper(tmp_path / "m"), tmp_path / "maps"
    asked = ("map", "-i", scenes, "-o", out, "--model", model, "--sensor", "sentinel2_l1c")
    alone = (*asked[:2], scenes / "1.tif", "-o", tmp_path / "one.tif", *asked[5:])
    assert call(geovision.app, *alone) == 0
    for number in (1, 3):
        assert call(geovision.app, *asked, "--shard", f"{number}/3") == 0
    assert sorted(path.name for path in out.iterdir()) == [
        f"{number}_map{ending}"
        for number in (0, 2)
        for ending in (".json", ".png", ".tif", "_report.html", "_report.json")
    ]
    capsys.readouterr()
    assert call(geovision.app, *asked, "--resume") == 0
    assert capsys.readouterr().out.count("skipped") == 2
    assert (out / "1_map.tif").read_bytes() == (tmp_path / "one.tif").read_bytes()
    (scenes / "u.tif").write_bytes(b"II*\0damaged")
    assert call(geovision.app, *asked, "--resume", "--overlap", "0.5", "--json") == 5
    said = capsys.readouterr().out
    found = json.loads(said[said.index("{") :])["results"]
    assert [entry["status"] for entry in found] == ["done", "done", "done", "failed"]
    assert "u.tif: cannot be read" in found[3]["error"] and not (out / "u_map.tif").exists()
    index = json.loads((out / "index.json").read_text())
    assert index["count"] == {"scenes": 4, "done": 3, "failed": 1} and index["cases"][0]["status"] == "failed"
    page = (out / "index.html").read_text()
    assert "cannot be read" in page and "u.tif" not in page + json.dumps(index) and page.count("data:image/png") == 3


def test_options_of_folders_and_of_scenes_are_told_apart(scenes: Path, tmp_path: Path, capsys):
    model = land_models.mapper(tmp_path / "m")
    tail = ("--model", model, "--sensor", "sentinel2_l1c")
    for options, message in (
        (("-i", scenes / "0.tif", "-o", tmp_path / "o.tif", "--resume"), "is one scene; --resume and --shard"),
        (("-i", scenes, "-o", tmp_path / "o", "--probabilities", tmp_path / "p.tif"), "for a folder of scenes"),
    ):
        capsys.readouterr()
        assert call(geovision.app, "map", *options, *tail) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
