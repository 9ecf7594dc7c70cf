"""The report that `geovision map` writes, and what `review collect` makes of what readers say there."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.datasets.labels import LabelRaster
from geovision.datasets.patches import find_labelled
from geovision.scenes import open_scene
from tests.geovision import small_models
from tests.geovision.rasters import ramp, write_scene
from tests.geovision.test_mapping import scene_values

NAMES = [str(entry["name"]) for entry in small_models.CLASSES]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return small_models.mapper(tmp_path_factory.mktemp("model"))


def start(*arguments: str | Path) -> int:
    return run(app, ["map", *map(str, arguments), "--sensor", "sentinel2_l1c"])


def collect(*arguments: str | Path) -> int:
    return run(app, ["review", "collect", *map(str, arguments)])


def verdict(twin: dict, **content) -> str:
    about = {"report": twin["report"], "verdict": "open", "created": "2026-01-02T03:04:05+00:00", "reviewer": "AB"}
    return json.dumps(about | content)


@pytest.fixture(scope="module")
def maps(model: Path, tmp_path_factory) -> Path:
    """A folder of scenes, and of their maps."""
    folder = tmp_path_factory.mktemp("folder")
    for number, name in enumerate(("smith42_a", "smith42_b")):
        values = scene_values(64, 80) + np.uint16(number)
        write_scene(folder / "scenes" / f"{name}.tif", values, small_models.BANDS)
    assert start("-i", folder / "scenes", "-o", folder / "maps", "--model", model, "--points", "50") == 0
    return folder


def test_each_map_of_a_folder_has_a_report_and_the_folder_a_shell_without_names(maps: Path):
    folder = maps / "maps"
    index = (folder / "index.html").read_text()
    listed = json.loads(index.partition('id="shell-data">')[2].partition("</script>")[0])["cases"]
    assert len(listed) == 2 and [each["confidence"] for each in listed] == sorted(each["confidence"] for each in listed)
    for each in listed:
        page = folder / each["report"]
        assert page.name == f"{each['case']}.html" and each["id"] in page.read_text()
    for page in folder.rglob("*.html"):
        assert "smith42" not in page.read_text()
    for twin in folder.glob("*_report.json"):
        assert "smith42" not in twin.read_text() and len(json.loads(twin.read_text())["points"]) == 50
    side = json.loads((folder / "smith42_a_map.json").read_text())
    assert {"report", "twin"} <= side["outputs"].keys() and side["settings"]["points"] == 50
    assert side["summary"]["lowest_confidence"] == min(
        row["confidence"] for row in side["classes"] if row["confidence"] is not None
    )


def test_points_are_those_of_the_seed_and_show_the_map_s_class(maps: Path, model: Path, tmp_path: Path):
    import rasterio

    drawn = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        given = ["-i", maps / "scenes" / "smith42_a.tif", "-o", tmp_path / f"{name}.tif", "--model", model]
        assert start(*given, "--points", "50", "--seed", seed) == 0
        drawn.append(json.loads((tmp_path / f"{name}_report.json").read_text()))
    assert drawn[0] == drawn[1] and drawn[0]["points"] != drawn[2]["points"]
    assert drawn[0]["report"] != drawn[2]["report"], "answers at other points are about another report"
    with rasterio.open(tmp_path / "a.tif") as source:
        labels = source.read(1)
    assert [NAMES[labels[point["row"], point["column"]]] for point in drawn[0]["points"]] == [
        point["class"] for point in drawn[0]["points"]
    ]


def test_no_report_is_written_where_none_is_wanted(maps: Path, model: Path, tmp_path: Path):
    given = ["-i", maps / "scenes", "-o", tmp_path / "maps", "--model", model, "--no-report"]
    assert start(*given) == 0
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert not [name for name in names if "report" in name] and "index.html" in names
    assert "confidence" not in json.loads((tmp_path / "maps" / "smith42_a_map.json").read_text())["classes"][0]


def test_a_report_of_someone_else_is_kept(maps: Path, model: Path, tmp_path: Path, capsys):
    (tmp_path / "m_report.html").write_text("mine")
    given = ["-i", maps / "scenes" / "smith42_a.tif", "-o", tmp_path / "m.tif", "--model", model]
    assert start(*given) == 2
    assert "m_report.html: is there and was not written by this program" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m_report.html"]


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]'])
@pytest.mark.parametrize("shape", [(33, 40), (64, 80)])
def test_a_scene_without_a_place_has_a_report_without_coordinates(
    model: Path, tmp_path: Path, crs: str | None, shape: tuple[int, int]
):
    path = write_scene(tmp_path / "s.tif", ramp(3, *shape), small_models.BANDS, crs=crs)
    assert start("-i", path, "-o", tmp_path / "m.tif", "--model", model, "--any-resolution") == 0
    page = (tmp_path / "m_report.html").read_text()
    assert "no place on the earth" in page and 'id="fix-draw"' not in page and "column " in page
    assert json.loads((tmp_path / "m_report.json").read_text())["points"]


def test_a_scene_without_a_valid_pixel_has_a_report_without_points(model: Path, tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", np.zeros((3, 40, 40), np.uint16), small_models.BANDS, nodata=0)
    assert start("-i", path, "-o", tmp_path / "m.tif", "--model", model) == 0
    assert json.loads((tmp_path / "m_report.json").read_text())["points"] == []
    assert 'id="points"' not in (tmp_path / "m_report.html").read_text()


def test_answers_and_polygons_are_collected(maps: Path, tmp_path: Path, capsys):
    twin = json.loads((maps / "maps" / "smith42_a_map_report.json").read_text())
    points = {str(point["number"]): point["class"] for point in twin["points"]}
    ring = [[14.999, 46.054], [15.0035, 46.054], [15.0035, 46.0525], [14.999, 46.0525]]
    (tmp_path / "saved.json").write_text(verdict(twin, points=points, fixes=[{"class": NAMES[1], "ring": ring}]))
    table, labels = tmp_path / "t" / "reviews.csv", tmp_path / "data" / "labels"
    table.parent.mkdir()
    assert collect(maps / "maps", tmp_path, "-o", table, "--fixes", labels) == 0
    said = capsys.readouterr().out
    assert "50 of 50 points, 0 cannot" in said, said
    assert "accuracy 1.000 ± 0.000" in said and "2 open" in said, said
    with (table.parent / "reviews_areas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == NAMES and {row["unit"] for row in rows} == {"hectares"}
    for row, entry in zip(rows, twin["classes"], strict=True):
        assert float(row["area"]) == pytest.approx(entry["hectares"]) == pytest.approx(float(row["mapped_area"]))
    (tmp_path / "data" / "images").symlink_to(maps / "scenes")
    pairs = dict(find_labelled(tmp_path / "data"))
    path = tmp_path / "data" / "images" / "smith42_a.tif"
    assert pairs[path] == labels / "smith42_a.geojson"
    with (
        open_scene(path, sensor="sentinel2_l1c", wanted=small_models.BANDS) as scene,
        LabelRaster(pairs[path], scene, range(3), NAMES) as raster,
    ):
        burnt = raster.read(0, 0, *scene.shape)
    assert set(np.unique(burnt)) == {1, 255} and 100 < (burnt == 1).sum() < 2000
    assert collect(maps / "maps", tmp_path, "-o", table, "--fixes", labels) == 0, "a second time it is ours"
    (labels / "smith42_a.geojson").write_text("mine")
    assert collect(maps / "maps", tmp_path, "-o", table, "--fixes", labels) == 2
    assert (labels / "smith42_a.geojson").read_text() == "mine"


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".json"])
def test_too_few_answers_say_so_and_give_no_area(maps: Path, tmp_path: Path, capsys, ending: str):
    twin = json.loads((maps / "maps" / "smith42_a_map_report.json").read_text())
    (tmp_path / "saved.json").write_text(verdict(twin, points={"1": NAMES[0], "2": "cannot tell", "999": NAMES[0]}))
    table = tmp_path / "t" / f"reviews{ending}"
    table.parent.mkdir()
    assert collect(maps / "maps", tmp_path, "-o", table, "--json") == 0
    areas = json.loads(capsys.readouterr().out)["areas"]
    assert {(row["answered"], row["cannot_tell"], row["area"]) for row in areas} == {(1, 1, None)}
    assert all("no estimate: no point of" in row["note"] for row in areas)
    assert table.with_name(f"reviews_areas{ending}").is_file()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"points": ["water"]}, "its points is null; expected at most 1000 answers by number"),
        ({"points": {"one": "water"}}, "expected names of classes by number"),
        ({"fixes": [{"class": "water", "ring": [[0, 0], [1, 1]]}]}, "three corners or more"),
        ({"fixes": [{"class": "water", "ring": [[0, 0], [1, 1], [900, 0]]}]}, "longitude and latitude"),
        ({"fixes": {"class": "water"}}, "a list of at most 1000 polygons"),
    ],
)
def test_answers_that_are_none_are_one_line(maps: Path, tmp_path: Path, capsys, content: dict, says: str):
    twin = json.loads((maps / "maps" / "smith42_a_map_report.json").read_text())
    (tmp_path / "saved.json").write_text(verdict(twin, **content))
    (tmp_path / "t").mkdir()
    assert collect(maps / "maps", tmp_path, "-o", tmp_path / "t" / "t.csv") == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error and "saved.json" in error
