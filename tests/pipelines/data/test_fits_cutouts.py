"""FITS cut-outs of one object each through the stages: of two parities and units, learnt from as one."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from apps.cli.astrovision.program import app
from apps.cli.shared.program import run
from astrovision.tables import read_table
from pipelines.data.image_reading import read_images
from pipelines.kinds.galaxies import GalaxyClassification
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.stages import run_stages
from shared_backbones import weights
from shared_backbones.errors import InputError

CLASSES = [
    {"id": 0, "name": "acw", "mirror": "cw"},
    {"id": 1, "name": "cw", "mirror": "acw"},
]
SETTINGS: dict[str, Any] = {
    "data.layout": "fits", "data.options": {"bands": ["g", "r"]}, "data.pixel_scale_arcsec": None,
    "data.stored": 40, "data.size": 32, "data.corruption_images": 0, "card.classes": CLASSES,
    "model.arguments.in_chans": 2, "model.arguments.img_size": 32, "model.arguments.embed_dim": [32, 32, 32, 32],
    "model.arguments.depths": [1, 1, 1, 1], "model.arguments.stem_width": 8, "model.arguments.head_hidden_size": 16,
    "train.epochs": 1, "train.batch_size": 8, "train.warmup_steps": 1, "train.threads": 1,
    "tracking.system_metrics": False, "evaluate.resamples": 50,
}  # fmt: skip


def spiral(number: int, side: int = 40) -> np.ndarray:
    """Fluxes `(2, side, side)` of a spiral that winds as its class on the sky, in an image of the usual parity."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    hand = 1 if number % 2 else -1
    light = np.exp(-radius / 9) * (1 + np.cos(2 * angle + hand * radius / 2 + number))
    light += np.random.default_rng(number).normal(0, 0.02, light.shape)
    return (light * np.array([2.0, 4.0])[:, None, None]).astype(np.float32)


def survey(root: Path, by_band: bool = False, side: int = 40, on_sky: bool = True) -> Path:
    """Cut-outs of which every third is stored mirrored, and every fifth in another unit."""
    (root / "images").mkdir(parents=True)
    for number in range(24):
        wcs, values, unit = WCS(naxis=2), spiral(number, side), "nJy"
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150 + number, 2]
        wcs.wcs.crpix, wcs.wcs.cdelt = [(side + 1) / 2] * 2, [-1e-4, 1e-4]
        if number % 3 == 1:
            values, wcs.wcs.cdelt = values[..., ::-1], [1e-4, 1e-4]
        if number % 5 == 1:
            values, unit = values / np.float32(1000), "uJy"
        header = wcs.to_header() if on_sky else fits.Header()
        header["BUNIT"] = unit
        if by_band:
            for band, plane in zip("gr", values, strict=True):
                fits.PrimaryHDU(plane, header).writeto(root / "images" / f"o{number}-{band}.fits")
        else:
            fits.PrimaryHDU(values, header).writeto(root / "images" / f"o{number}.fits")
    labels = [str(CLASSES[0 if number % 2 else 1]["name"]) for number in range(24)]
    Table({"id": [f"o{number}" for number in range(24)], "label": labels}).write(root / "labels.csv")
    return root


def overrides(root: Path, **changes: Any) -> list[str]:
    settings = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [f"data.root={root}", *(f"{key}={json.dumps(value)}" for key, value in settings.items())]


def kind_of(root: Path, **changes: Any) -> GalaxyClassification:
    return find_kind(load_recipe("mosaic_astroformer_cpu", overrides(root, **changes)))


@pytest.mark.parametrize("by_band", [False, True])
def test_cutouts_of_two_parities_and_units_are_seen_as_one(tmp_path: Path, by_band: bool):
    kind = kind_of(survey(tmp_path / "data", by_band))
    seen = {}
    for source in kind.sources:
        images = read_images(source, 40, 1.0, 2)[0]["image"]
        seen |= {item.key: image for item, image in zip(source.items, images, strict=True)}
    layout: Any = kind.layout()
    stretch = layout.cutting.stretch
    for number in range(24):
        expected = stretch.apply(spiral(number)) * 255
        np.testing.assert_allclose(seen[f"o{number}"], expected, atol=1.01)
    contract = kind.contract_section([0.2, 0.2], [0.2, 0.2])
    assert contract["parity"] == -1 and contract["unit"] == "nJy"
    other = kind_of(tmp_path / "data", data__parity=1)
    first = read_images(other.sources[0], 40, 1.0, 2)[0]["image"][0]
    np.testing.assert_allclose(first, seen[other.sources[0].items[0].key][:, :, ::-1], atol=1.01)


def test_what_is_learnt_classifies_the_folder(tmp_path: Path, store: str):
    root = survey(tmp_path / "data")
    job = run_stages(load_recipe("mosaic_astroformer_cpu", [f"output={tmp_path / 'out'}", *overrides(root)]))
    model = job.made["train"] / "model"
    card = weights.read_card(model)
    assert card["input"]["parity"] == -1 and card["input"]["unit"] == "nJy"
    arguments = ["-i", root / "images", "--bands", "g,r", "--model", model, "-o", tmp_path / "o.ecsv", "-q"]
    assert run(app, ["classify", *map(str, arguments), "--device", "cpu"]) == 0
    table = read_table(tmp_path / "o.ecsv")
    assert len(table) == 24 and sorted(table["id"]) == sorted(f"o{number}" for number in range(24))
    with open(job.made["evaluate"] / "predictions.csv") as file:
        tested = sorted(float(row["p_cw"]) for row in csv.DictReader(file))
    assert all(np.abs(np.array(table["p_cw"]) - value).min() < 2e-3 for value in tested)


@pytest.mark.parametrize(
    ("made", "changes", "message"),
    [
        ({"on_sky": False}, {}, "its parity is unknown, and classes are each other's mirror images; give data.opt"),
        ({"side": 60}, {}, "has 60 x 60 pixels, more than a cut-out of 40; give data.options.centre=true"),
        ({}, {"data__options": {"bands": ["g", "r"], "parity": 3}}, "data.options.parity is 3; expected -1 or 1"),
        ({}, {"data__options": {"bands": ["g", "r"], "images": "none"}}, "none: no such folder; expected FITS files"),
        ({}, {"data__options": {"bands": ["g"]}}, "has 2 bands, but data.options.bands names 1"),
        ({}, {"data__options": {"bands": ["g", "r"], "key": "label"}}, "names cw, but there is no FITS file"),
        ({}, {"data__stretch": None}, "stretch is needed by the layout fits"),
    ],
)  # fmt: skip
def test_cutouts_that_cannot_be_learnt_from_are_refused(tmp_path: Path, made: dict, changes: dict, message: str):
    root = survey(tmp_path / "data", **made)
    with pytest.raises(InputError, match=message):
        kind = kind_of(root, **changes)
        read_images(kind.sources[0], 40, 1.0, 2)


def test_images_without_a_wcs_and_larger_ones_are_learnt_from_where_that_is_said(tmp_path: Path):
    options = {"bands": ["g", "r"], "parity": -1, "centre": True}
    kind = kind_of(survey(tmp_path / "data", side=60, on_sky=False), data__options=options)
    assert read_images(kind.sources[0], 40, 1.0, 2)[0]["image"].shape[1:] == (2, 40, 40)
    assert kind.contract_section([0.2, 0.2], [0.2, 0.2])["parity"] == -1


def take_away(path: Path, part: Any) -> None:
    """Take the values of a part of an image away."""
    values, header = np.array(fits.getdata(path)), fits.getheader(path)
    values[part] = np.nan
    fits.writeto(path, values, header, overwrite=True)


def test_cutouts_without_a_pixel_that_has_a_value_are_not_learnt_from(tmp_path: Path, store: str, capsys: Any):
    root = survey(tmp_path / "data")
    for number in (0, 1, 7):
        take_away(root / "images" / f"o{number}.fits", np.s_[:])
    take_away(root / "images" / "o2.fits", np.s_[:, :20])
    recipe = load_recipe("mosaic_astroformer_cpu", [f"output={tmp_path / 'out'}", *overrides(root)])
    run_stages(recipe, ["prepare", "train"])
    assert "warning: 3 images without a pixel that has a value were left out" in capsys.readouterr().out
    keys = {item.key for source in kind_of(root).sources for item in source.items}
    assert keys == {f"o{number}" for number in range(24)} - {"o0", "o1", "o7"}
    for path in (root / "images").iterdir():
        take_away(path, np.s_[:])
    with pytest.raises(InputError, match=r"labels.csv: none of the cut-outs of its 24 sources has a pixel with a val"):
        kind_of(root)
