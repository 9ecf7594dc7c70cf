"""Map a scene and sum up its classes with geopandas: python map_a_scene.py scene.tif [sensor]"""

import subprocess
import sys

import geopandas


def main(scene: str, sensor: str | None = None) -> "geopandas.GeoSeries":
    command = ["geovision", "map", "--input", scene, "--output", "map.tif", "--polygons", "classes.gpkg"]
    subprocess.run(command + (["--sensor", sensor] if sensor else []), check=True)
    polygons = geopandas.read_file("classes.gpkg")
    hectares = polygons.set_geometry(polygons.geometry).dissolve("class")["geometry"].area / 1e4
    print(hectares.sort_values(ascending=False).round(1).to_string())
    return hectares


if __name__ == "__main__":
    main(*sys.argv[1:])
