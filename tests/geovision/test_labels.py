"""Labels of scenes as polygons, and values that are no class."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from geovision.datasets.labels import IGNORED, LabelRaster, foreign_labels
from geovision.datasets.patches import find_labelled
from geovision.scenes import open_scene
from shared_backbones.errors import InputError
from tests.geovision.rasters import ramp, write_scene


def polygons(column: str = "class", values: tuple = (2, 8), crs: str = "EPSG:32633") -> geopandas.GeoDataFrame:
    """Two squares of 20 x 20 pixels in a scene of 40 x 50."""
    boxes = [shapely.box(500_000, 5_099_800, 500_200, 5_100_000), shapely.box(500_200, 5_099_600, 500_400, 5_099_800)]
    return geopandas.GeoDataFrame({column: list(values)}, geometry=boxes, crs="EPSG:32633").to_crs(crs)


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".shp"])
@pytest.mark.parametrize("values", [(2, 8), (2.0, 8.0), ("2", "8"), ("forest", "built")])
def test_polygons_are_labels_where_they_lie(tmp_path: Path, ending: str, values: tuple):
    scene = write_scene(tmp_path / "images" / "s.tif", ramp(1), ["B8A"])
    path = tmp_path / "labels" / f"s{ending}"
    path.parent.mkdir()
    polygons(values=values, crs="EPSG:4326" if ending == ".geojson" else "EPSG:3035").to_file(path)
    assert find_labelled(tmp_path) == [(scene, path)]
    wanted = np.full((40, 50), IGNORED)
    wanted[:20, :20], wanted[20:, 20:40] = 0, 1
    with open_scene(scene) as opened, LabelRaster(path, opened, (2, 8), ("forest", "built")) as labels:
        np.testing.assert_array_equal(labels.read(0, 0, 40, 50), wanted)
        np.testing.assert_array_equal(labels.read(15, 10, 20, 30), wanted[15:35, 10:40])
        np.testing.assert_array_equal(labels.sample((20, 25)), wanted[1::2, 1::2])


def test_polygons_that_cannot_be_used_are_one_line(tmp_path: Path):
    scene = write_scene(tmp_path / "s.tif", ramp(1), ["B8A"])
    path = tmp_path / "l.gpkg"
    polygons(values=(102, 103)).to_file(path)
    with open_scene(scene) as opened:
        with pytest.raises(InputError, match=r"found 102, 103; the recipe has 2, 8; give data.label_values"):
            LabelRaster(path, opened, (2, 8)).__enter__()
        table = polygons("kind")
        table["other"] = 1
        table.to_file(path)
        with pytest.raises(InputError, match=r"has the columns kind, other; name that of the classes"):
            LabelRaster(path, opened, (2, 8)).__enter__()
        with LabelRaster(path, opened, (2, 8), column="kind") as labels:
            assert labels.read(0, 0, 1, 1) == 0
        path.write_bytes(b"noise")
        with pytest.raises(InputError, match=r"l\.gpkg: cannot be read"):
            LabelRaster(path, opened, (2, 8)).__enter__()


def test_values_that_are_no_class_are_named():
    assert foreign_labels([103, 102, 103], (2, 3)) == "labels: found 102, 103; the recipe has 2, 3"
    assert foreign_labels([], (2, 3)) == ""
