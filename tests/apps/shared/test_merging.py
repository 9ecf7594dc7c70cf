"""`merge` of every program: the tables of shards are the table of one process."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from apps.cli.astrovision import program as astrovision
from apps.cli.geovision import program as geovision
from apps.cli.geovision.joined_tables import join_tables
from apps.cli.medvision import program as medvision
from apps.cli.shared.classified_images import _write_table, table_meta
from apps.cli.shared.merging import joined_warnings, merge_tables
from apps.cli.shared.outputs import Outputs
from apps.cli.shared.program import run
from apps.cli.shared.sharding import NoInputs, Shard, part_facts, part_of
from tests.apps.conftest import contents
from tests.astrovision import small_models as sky_models
from tests.geovision import small_models as land_models
from tests.geovision.rasters import ramp, write_scene
from tests.medvision import small_models

TIMES = ("created", "seal", "outputs", "earlier_outputs")


def call(app: Any, *arguments: object) -> int:
    return run(app, [str(argument) for argument in arguments])


def share_out(app: Any, command: Sequence[object], whole: Path, shards: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Side-cars of a table that one process writes, and of the one that shards write; the tables are the same bytes."""
    merged = whole.with_stem("merged")
    assert call(app, *command, "-o", whole) in (0, 5)
    for number in range(1, shards + 1):
        assert call(app, *command, "-o", merged, "--shard", f"{number}/{shards}") in (0, 5)
    code = call(app, "merge", "-o", merged, "--json")
    one, other = (json.loads(path.with_suffix(".json").read_text()) for path in (whole, merged))
    assert code == (5 if one["failed"] else 0)
    assert one["outputs"]["table"] == other["outputs"]["table"], "the tables differ"
    return tuple({k: v for k, v in content.items() if k not in TIMES} for content in (one, other))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(small_models.radiographs(6, 28)):
        Image.fromarray(image).save(
            folder / f"{'=' * (number == 5)}{number}.png"
        )  # one that a spreadsheet would compute
    (folder / "3x.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grey")
    return small_models.classifier(folder / "m", contract={**small_models.GREY, "size": 28}, outliers=True)


def classifying(given: Path, model: Path) -> list[object]:
    """What is typed; of one image at a time, so that sums are of one order."""
    return ["classify", "-i", given, "--model", model, "--device", "cpu", "-q", "--batch-size", 1, "--skip-unreadable"]


@pytest.mark.parametrize("shards", [3, 9])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_of_medical_images(radiographs: Path, grey: Path, tmp_path: Path, ending: str, shards: int):
    one, other = share_out(medvision.app, classifying(radiographs, grey), tmp_path / f"t.{ending}", shards)
    assert one == other and one["failed"] == 1 and one["rows"] == 6


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_figures_of_a_medmnist_file_are_those_of_all_its_rows(grey: Path, tmp_path: Path, ending: str):
    labels = np.array([0, 0, 0, 1, 1, 0, 1], np.uint8)[:, None]  # the first shards have one class alone
    np.savez(tmp_path / "pneumoniamnist.npz", test_images=small_models.radiographs(7, 28), test_labels=labels)
    command = [*classifying(tmp_path / "pneumoniamnist.npz", grey)[:-1]]
    one, other = share_out(medvision.app, command, tmp_path / f"t.{ending}", 3)
    assert one == other
    assert one["figures"]["accuracy"] is not None


@pytest.mark.parametrize("ending", ["vot", "fits", "ecsv", "csv", "parquet"])
def test_tables_of_galaxies(tmp_path: Path, ending: str):
    for number, image in enumerate(sky_models.galaxies(5).transpose(0, 2, 3, 1)):
        (tmp_path / "cuts").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "cuts" / f"{'long' * number}{number}.png")
    (tmp_path / "cuts" / "0x.png").write_bytes(b"no image")
    command = classifying(tmp_path / "cuts", sky_models.classifier(tmp_path / "m"))
    one, other = share_out(astrovision.app, command, tmp_path / f"t.{ending}", 7)
    assert one == other and one["failed"] == 1


def test_what_a_catalogue_lacks_and_what_lies_off_the_mosaic_is_in_the_merged_table(tmp_path: Path):
    model = sky_models.classifier(tmp_path / "m", sky_models.FLUXES)
    header = WCS(naxis=2, header=None).to_header()
    header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.5 / 3600, "CDELT2": 0.5 / 3600})
    mosaic, catalogue = tmp_path / "mosaic", tmp_path / "sources.csv"
    mosaic.mkdir()
    for number, band in enumerate("grz"):
        plane = np.random.default_rng(number).normal(0, 1, (120, 200)).astype(np.float32)
        fits.PrimaryHDU(plane, fits.Header([*header.cards, ("FILTER", band)])).writeto(mosaic / f"{band}.fits")
    numbers = [(n, "" if n == 1 else 20 + n, "" if n > 2 else n) for n in range(5)]
    lines = [
        "name,x,y,mag,n",
        *(f"{'a' * n}{n},{40 + 30 * n},50,{magnitude},{count}" for n, magnitude, count in numbers),
    ]
    catalogue.write_text("\n".join([*lines, "far,-900,20,21,7", ""]))
    for ending in ("vot", "fits"):
        command = [
            *classifying(mosaic, model)[:-1],
            "--catalogue",
            catalogue,
            "--keep-columns",
            "all",
            "--x=x",
            "--y=y",
        ]
        one, other = share_out(astrovision.app, command, tmp_path / f"t.{ending}", 3)
        assert one == other and "1 of 6 sources lie off the image and have no class" in one["warnings"]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    for number in range(4):
        values = ramp(3, 40, 40 + number) + number
        write_scene(tmp_path / "scenes" / f"{'s' * number}{number}.tif", values, land_models.BANDS)
    (tmp_path / "scenes" / "b.tif").write_bytes(b"II*\0damaged")
    return tmp_path / "scenes"


@pytest.mark.parametrize("ending", ["parquet", "npz"])
def test_embeddings(scenes: Path, tmp_path: Path, ending: str):
    model = land_models.classifier(tmp_path / "m")
    command = ["embed", "-i", scenes, "--model", model, "--device=cpu", "--sensor=sentinel2_l1c", "--skip-unreadable"]
    one, other = share_out(geovision.app, [*command, "--batch-size=1"], tmp_path / f"e.{ending}", 6)
    assert one == other and one["failed"] == 1 and len(one["inputs"]) == 4


def test_classes_of_scenes(scenes: Path, tmp_path: Path):
    command = [*classifying(scenes, land_models.classifier(tmp_path / "m")), "--sensor=sentinel2_l1c"]
    one, other = share_out(geovision.app, command, tmp_path / "c.parquet", 2)
    assert one == other and one["failed"] == 1


@pytest.fixture
def parts(radiographs: Path, grey: Path, tmp_path: Path) -> Path:
    """Where the whole table goes of three shards that are there."""
    for number in (1, 2, 3):
        command = classifying(radiographs, grey)
        assert call(medvision.app, *command, "-o", tmp_path / "t.csv", "--shard", f"{number}/3") in (0, 5)
    return tmp_path / "t.csv"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert call(medvision.app, *arguments) == 2
    given = capsys.readouterr()
    assert given.err.count("\n") == 1 and not given.out, given
    return given.err


def test_parts_that_are_no_whole_are_refused_in_one_line(parts: Path, radiographs: Path, grey: Path, capsys):
    merge = ("merge", "-o", parts)
    before = contents(parts.parent)
    second, command = parts.with_name("t.2-of-3.csv"), classifying(radiographs, grey)

    def repeat(*changes: object, shard: str = "2/3", given: Path = radiographs) -> None:
        command[2] = given
        assert call(medvision.app, *command, "-o", parts, "--shard", shard, *changes) in (0, 5)

    second.unlink()
    assert "t.csv: shard 2 of 3 did not end; repeat with --resume" in refused(capsys, *merge)
    repeat("--batch-size", 2)
    assert "t.2-of-3.csv: differs from t.1-of-3.csv in settings (batch_size)" in refused(capsys, *merge)
    repeat(
        "--model",
        small_models.classifier(parts.parent / "other", contract={**small_models.GREY, "size": 28}, timm=True),
    )
    assert "t.2-of-3.csv: differs from t.1-of-3.csv in model (architecture, sha256)" in refused(capsys, *merge)
    repeat()
    second.write_text(second.read_text().replace("normal", "normal?"))
    assert "t.2-of-3.csv: is not as its shard wrote it; repeat shard 2/3" in refused(capsys, *merge)
    repeat("--overwrite")
    repeat(shard="1/2")
    assert "has parts of 2, 3 shards beside it" in refused(capsys, *merge)
    assert "has no part beside it" in refused(capsys, "merge", "-o", parts.with_name("u.csv"))
    assert not parts.exists() and set(before) <= set(contents(parts.parent))


def test_a_table_that_is_not_ours_stays(parts: Path, capsys):
    parts.write_text("mine")
    assert "t.csv: is there and was not written by this program" in refused(capsys, "merge", "-o", parts)
    assert parts.read_text() == "mine"
    assert call(medvision.app, "merge", "-o", parts, "--overwrite") == 5
    assert parts.with_name("t.csv.bak").read_text() == "mine"
    assert call(medvision.app, "merge", "-o", parts) == 5  # again, over our own


ENDINGS = st.sampled_from(["csv", "parquet"])
ROW = st.tuples(st.text(max_size=6), st.floats(allow_nan=False), st.integers(-(2**40), 2**40), st.booleans())


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(ROW, min_size=1, max_size=12), shards=st.integers(1, 15), ending=ENDINGS)
def test_any_rows_in_any_number_of_shards_are_the_same_table(rows: list[tuple], shards: int, ending: str):
    names = ("id", "p", "n", "is")
    facts = {"schema_version": 1, "model": {"name": "m", "sha256": "0" * 64}, "settings": {}, "device": "cpu",
             "precision": "float32", "failed": 0, "classes": [{"name": "a", "count": 0}], "flags": {},
             "versions": {"domain-vision": "1"}, "created": "now"}  # fmt: skip

    def write(table: Path, part: list[tuple], shard: Shard | None) -> None:
        outputs = Outputs.table(table, False)
        content = {**facts, "rows": len(part), "classified": len(part), "warnings": [f"{len(part) > 3}"],
                   "input": {"sha256": "1" * 64}} | part_facts(shard, len(rows), {})  # fmt: skip
        with outputs.placing() as staged:
            columns = [(name, np.array([row[n] for row in part])) for n, name in enumerate(names)]
            _write_table(staged["table"], columns, table_meta(content))
            outputs.finish(staged, content)

    with tempfile.TemporaryDirectory() as folder:
        whole, merged = Path(folder, f"whole.{ending}"), Path(folder, f"merged.{ending}")
        write(whole, rows, None)
        for number in range(1, shards + 1):
            try:
                part = part_of(rows, Shard(number, shards))
            except NoInputs:
                continue
            write(Shard(number, shards).beside(merged), part, Shard(number, shards))
        content, _ = merge_tables(merged, join_tables, overwrite=False)
        assert merged.read_bytes() == whole.read_bytes() and content["rows"] == len(rows)


@given(st.lists(st.lists(st.sampled_from("abcde"), unique=True, max_size=4), min_size=1, max_size=4))
def test_each_warning_is_said_once(lists: list[list[str]]):
    joined = joined_warnings(lists)
    assert sorted(joined) == sorted({warning for warnings in lists for warning in warnings})
