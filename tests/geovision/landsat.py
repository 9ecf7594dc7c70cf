"""Miniatures of Landsat products, with groups, keys and factors as real MTL files have them."""

import json
from pathlib import Path

import numpy as np

from tests.geovision.rasters import write_scene

Group = dict[str, str | float]
Groups = dict[str, Group]
CRAFTS = {
    4: ("LT04", "TM", range(1, 8), "6"), 5: ("LT05", "TM", range(1, 8), "6"), 7: ("LE07", "ETM", range(1, 9), "6"),
    8: ("LC08", "OLI_TIRS", range(1, 12), "10"), 9: ("LC09", "OLI_TIRS", range(1, 12), "10"),
}  # fmt: skip
SR, ST = (2.75e-05, -0.2), (0.00341802, 149.0)
TOA, RADIANCE = (2.0e-05, -0.1), (3.342e-04, 0.1)
ELEVATION = 30.0  # whose sine is a half


def groups_of(number: int, collection: int, level: int) -> tuple[str, Groups, list[str]]:
    """Name of a product, groups of its MTL file, and the names of its rasters."""
    code, sensor, bands, thermal = CRAFTS[number]
    step = "L2SP" if level == 2 else "L1TP"
    name = f"{code}_{step}_195025_20130707_20200912_0{collection}_T1"
    names = [str(band) for band in bands if not (number == 7 and band == 6)] + (
        ["6_VCID_1", "6_VCID_2"] if number == 7 else []
    )
    level1: Group = {f"FILE_NAME_BAND_{band}": f"{name.replace('L2SP', 'L1TP')}_B{band}.TIF" for band in names}
    factors: Group = {
        f"{kind}_{part}_BAND_{band}": value
        for band in names
        for kind, pair in (("REFLECTANCE", TOA), ("RADIANCE", RADIANCE))
        for part, value in zip(("MULT", "ADD"), pair, strict=True)
        if kind == "RADIANCE" or band.partition("_")[0] not in {"6", "10", "11"} or (band == "6" and number > 7)
    }
    craft: Group = {"SPACECRAFT_ID": f"LANDSAT_{number}", "SENSOR_ID": sensor}
    if collection == 1:
        groups: Groups = {
            "METADATA_FILE_INFO": {"LANDSAT_PRODUCT_ID": name, "COLLECTION_NUMBER": 1},
            "PRODUCT_METADATA": {"DATA_TYPE": step, **craft, **level1, "FILE_NAME_BAND_QUALITY": f"{name}_BQA.TIF"},
            "IMAGE_ATTRIBUTES": {"SUN_ELEVATION": ELEVATION},
            "RADIOMETRIC_RESCALING": factors,
        }
        return name, groups, [*map(str, level1.values()), f"{name}_BQA.TIF"]
    attributes: Group = {**craft, "SUN_ELEVATION": ELEVATION}
    quality: Group = {"FILE_NAME_QUALITY_L1_PIXEL": f"{name}_QA_PIXEL.TIF"}
    if level == 1:
        groups = {
            "PRODUCT_CONTENTS": {"PROCESSING_LEVEL": step, "COLLECTION_NUMBER": 2, **level1, **quality},
            "IMAGE_ATTRIBUTES": attributes,
            "LEVEL1_RADIOMETRIC_RESCALING": factors,
        }
        return name, groups, [*map(str, level1.values()), *map(str, quality.values())]
    surface = [band for band in names if band in {"1", "2", "3", "4", "5", "7"} or (band == "6" and number > 7)]
    level2: Group = {f"FILE_NAME_BAND_{band}": f"{name}_SR_B{band}.TIF" for band in surface}
    level2[f"FILE_NAME_BAND_ST_B{thermal}"] = f"{name}_ST_B{thermal}.TIF"
    reflectance: Group = {
        f"REFLECTANCE_{part}_BAND_{band}": value
        for band in surface
        for part, value in zip(("MULT", "ADD"), SR, strict=True)
    }
    temperature: Group = {
        f"TEMPERATURE_{part}_BAND_ST_B{thermal}": value for part, value in zip(("MULT", "ADD"), ST, strict=True)
    }
    groups = {
        "PRODUCT_CONTENTS": {"PROCESSING_LEVEL": step, "COLLECTION_NUMBER": 2, **level2, **quality},
        "IMAGE_ATTRIBUTES": attributes,
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": reflectance,
        "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": temperature,
        "LEVEL1_PROCESSING_RECORD": {"PROCESSING_LEVEL": "L1TP", **level1},
        "LEVEL1_RADIOMETRIC_RESCALING": factors,
    }
    return name, groups, [*map(str, level2.values()), *map(str, quality.values())]


def write_mtl(path: Path, groups: Groups) -> None:
    """An MTL file in the form that its name ends in."""
    top = "LANDSAT_METADATA_FILE" if "PRODUCT_CONTENTS" in groups else "L1_METADATA_FILE"
    if path.suffix == ".json":
        path.write_text(json.dumps({top: {g: {k: str(v) for k, v in keys.items()} for g, keys in groups.items()}}))
    elif path.suffix == ".xml":
        inner = "".join(
            f"<{group}>{''.join(f'<{k}>{v}</{k}>' for k, v in keys.items())}</{group}>"
            for group, keys in groups.items()
        )
        path.write_text(f"<?xml version='1.0' encoding='UTF-8'?>\n<{top}>{inner}</{top}>")
    else:
        lines = [f"GROUP = {top}"]
        for group, keys in groups.items():
            lines.append(f"  GROUP = {group}")
            lines += [f'    {k} = "{v}"' if isinstance(v, str) else f"    {k} = {v}" for k, v in keys.items()]
            lines.append(f"  END_GROUP = {group}")
        path.write_text("\n".join([*lines, f"END_GROUP = {top}", "END", ""]))


def write_product(
    folder: Path, number: int = 8, collection: int = 2, level: int = 2, ending: str = ".txt", stored: int = 20_000
) -> str:
    """A product of 8 x 10 pixels, all of one stored number but for a pixel of fill; returns its name."""
    name, groups, files = groups_of(number, collection, level)
    values = np.full((1, 8, 10), stored, np.uint16)
    values[0, 0, 0] = 0
    for file in files:
        quality = "QA" in file
        write_scene(
            folder / file, np.full((1, 8, 10), 21824, np.uint16) if quality else values,
            transform=write_transform(15 if file.endswith("_B8.TIF") else 30),
        )  # fmt: skip
    write_mtl(folder / f"{name}_MTL{ending}", groups)
    return name


def write_transform(pixel: float):
    from rasterio.transform import from_origin

    return from_origin(500_000, 5_100_000, pixel, pixel)
