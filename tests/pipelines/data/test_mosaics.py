"""Labelled sources of a FITS mosaic through the stages, and the mosaic classified with what was learnt from them."""

import csv
import functools
import hashlib
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from apps.cli.astrovision.program import app
from apps.cli.shared.program import run
from astrovision.classification import GalaxyClassifier
from astrovision.cutouts import open_mosaic
from astrovision.tables import read_table
from pipelines.data.image_reading import read_images
from pipelines.kinds.galaxies import GalaxyClassification
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.recipe.shown import shown
from pipelines.stages import Job, run_stages
from shared_backbones import weights
from shared_backbones.errors import InputError

MARKER = "ngc4565"
SIDE = 400
CLASSES = ("elliptical", "disk")


def wcs(scale_arcsec: float = 0.4) -> WCS:
    found = WCS(naxis=2)
    found.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    found.wcs.crval, found.wcs.crpix = [150, 2], [SIDE / 2, SIDE / 2]
    found.wcs.cdelt = [-scale_arcsec / 3600, scale_arcsec / 3600]
    return found


@functools.cache
def galaxies() -> tuple[np.ndarray, np.ndarray]:
    """Light `(SIDE, SIDE)` of round and long galaxies on a grid, and their places."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    total = np.zeros((SIDE, SIDE))
    grid = np.stack(np.meshgrid(np.arange(9), np.arange(8)), -1).reshape(-1, 2)
    places = grid * (42, 46) + (30, 36) + random.uniform(-4, 4, grid.shape)
    places[0] = 3, 40  # its cut-out is partly off the image
    for number, (left, top) in enumerate(places):
        turn = random.uniform(0, np.pi)
        along = (x - left) * np.cos(turn) + (y - top) * np.sin(turn)
        across = (y - top) * np.cos(turn) - (x - left) * np.sin(turn)
        width = (4, 4) if number % 2 == 0 else (8, 2)
        total += np.exp(-((along / width[0]) ** 2) - (across / width[1]) ** 2)
    return total, places


def survey(root: Path, bands: str = "grz", on_sky: bool = True, names: bool = True) -> Path:
    """A folder with a FITS file for each band, and a catalogue of what is there and of three sources off the image."""
    root.mkdir(parents=True)
    light, places = galaxies()
    planes = light * np.array([2.0, 4.0, 8.0, 3.0, 5.0])[: len(bands), None, None]
    planes = planes + np.random.default_rng(1).normal(0, 0.03, planes.shape)
    for band, plane in zip(bands, planes, strict=True):
        header = wcs().to_header() if on_sky else fits.Header()
        if names:
            header["FILTER"] = band
        fits.PrimaryHDU(plane.astype(np.float32), header).writeto(root / f"{band}.fits")
    places = np.concatenate([places, [[-600, 50], [50, 9000], [np.nan, np.nan]]])
    ra, dec = np.transpose(wcs().all_pix2world(places[:72], 0))
    far = [[140.0, 2.0], [150.0, 30.0], [np.nan, np.nan]]
    sky = np.concatenate([np.stack([ra, dec], 1), far])
    labels = [CLASSES[number % 2] for number in range(75)]
    table = Table({"objid": [f"{MARKER}-{n}" for n in range(75)], "ra": sky[:, 0], "dec": sky[:, 1], "label": labels,
                   "number": [CLASSES.index(label) for label in labels], "col": places[:, 0], "row": places[:, 1],
                   "part": ["train"] * 40 + ["val"] * 15 + ["test"] * 20})  # fmt: skip
    table.write(root / "sources.fits")
    return root


SMALL = {
    "data.stored": 40, "data.size": 32, "data.corruption_images": 6, "data.options.blocks_arcmin": None,
    "data.options.id": "objid", "model.arguments.img_size": 32, "model.arguments.embed_dim": [32, 32, 32, 32],
    "model.arguments.depths": [1, 1, 1, 1], "model.arguments.stem_width": 8, "model.arguments.head_hidden_size": 16,
    "train.epochs": 2, "train.batch_size": 8, "train.warmup_steps": 1, "train.threads": 1,
    "train.learning_rate": 4e-3, "train.ema_decay": 0.5, "tracking.system_metrics": False, "evaluate.resamples": 50,
}  # fmt: skip
ONE = {"data.options.images": "r.fits", "data.options.bands": ["r"], "model.arguments.in_chans": 1}


def overrides(root: Path, **changes: Any) -> list[str]:
    settings = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [f"data.root={root}", *(f"{key}={json.dumps(value)}" for key, value in settings.items())]


def kind_of(root: Path, **changes: Any) -> GalaxyClassification:
    return find_kind(load_recipe("mosaic_astroformer_cpu", overrides(root, **changes)))


def items_of(root: Path, **changes: Any) -> list[Any]:
    return [item for source in kind_of(root, **changes).sources for item in source.items]


def same_as_in_use(job: Job, root: Path, images: str, folder: Path, *options: str) -> dict[str, Any]:
    """Classify the mosaic, compare with the evaluation's predictions, and give back the side-car."""
    model = job.made["train"] / "model"
    arguments = ["-i", images, "--catalogue", root / "sources.fits", "-o", folder / "o.ecsv", "--model", model, "-q"]
    assert run(app, ["classify", *map(str, arguments), *options, "--grad-cam", str(folder / "cams")]) == 0
    table = read_table(folder / "o.ecsv")
    case = [f"case-{hashlib.sha256(name.encode()).hexdigest()[:8]}" for name in table["id"]]
    used = {name: [row[f"p_{label}"] for label in CLASSES] for name, row in zip(case, table, strict=True)}
    with open(job.made["evaluate"] / "predictions.csv") as file:
        tested = {row["case"]: [float(row[f"p_{label}"]) for label in CLASSES] for row in csv.DictReader(file)}
    assert len(tested) >= 10
    for name, row in tested.items():
        np.testing.assert_allclose(used[name], row, atol=0.02)
    assert len(list((folder / "cams").iterdir())) == 72
    return json.loads((folder / "o.json").read_text())


def test_a_mosaic_is_classified_as_its_sources_were_learnt(tmp_path: Path, store: str, capsys: Any):
    root = survey(tmp_path / "data")
    settings = overrides(root, data__pixel_scale_arcsec=None)
    recipe = load_recipe("mosaic_astroformer_cpu", [*settings, f"output={tmp_path / 'out'}"])
    stages = ["prepare", "train", "evaluate", "report"]
    job = run_stages(recipe, stages)
    said = capsys.readouterr().out
    assert "images: 50 train, 8 validation, 14 test" in said
    assert "warning: 3 sources that lie off the image were left out" in said
    card = weights.read_card(job.made["train"] / "model")
    assert card["input"]["bands"] == ["g", "r", "z"]
    assert card["input"]["pixel_scale_arcsec"] == pytest.approx(0.4)  # the mosaic's own
    assert card["input"]["stretch"] == recipe.model_dump()["data"]["stretch"]
    assert (card["input"]["cutout"], card["input"]["crop"]) == (40, pytest.approx(0.8))
    side_car = same_as_in_use(job, root, ",".join(str(root / f"{band}.fits") for band in "grz"), tmp_path)
    assert side_car["classified"] == 72 and side_car["input"]["cutout"] == 40 and side_car["flags"]["partial"] >= 1
    for path in job.output.rglob("*"):
        assert not path.is_file() or MARKER.encode() not in path.read_bytes(), path
    again = run_stages(recipe, stages)
    assert again.made == job.made


def test_one_band_at_another_scale_takes_the_same_way(tmp_path: Path, store: str):
    root = survey(tmp_path / "data", "r", names=False)
    changes = {**ONE, "data.pixel_scale_arcsec": 0.55, "data.crop": 0.8, "train.epochs": 1}
    recipe = load_recipe("mosaic_astroformer_cpu", [*overrides(root, **changes), f"output={tmp_path / 'out'}"])
    job = run_stages(recipe, ["prepare", "train", "evaluate"])
    card = weights.read_card(job.made["train"] / "model")["input"]
    assert (card["pixel_scale_arcsec"], card["bands"], card["cutout"]) == (0.55, ["r"], 50)
    assert job.summary is not None and any("corruption" in table["title"] for table in job.summary["tables"])
    assert len(list(job.made["evaluate"].glob("gallery_*.png"))) >= 2
    same_as_in_use(job, root, str(root / "r.fits"), tmp_path, "--bands", "r")


@pytest.mark.parametrize(
    ("bands", "kind", "scale"),
    [("grz", "lupton", None), ("grz", "lupton", 0.3), ("g", "linear", 0.7), ("griz", "asinh", 0.3)],
)
def test_what_is_stored_is_what_is_prepared_in_use(tmp_path: Path, bands: str, kind: str, scale: float | None):
    from tests.astrovision import small_models

    root = survey(tmp_path / "data", bands)
    parameters = {
        "lupton": {"low": 0, "stretch": 5, "q": 8}, "asinh": {"low": -0.1, "high": 10, "softening": 0.1},
        "linear": {"low": 0, "high": 8},
    }  # fmt: skip
    stretch = {"kind": kind, "parameters": parameters[kind]}
    kind_ = kind_of(
        root, data__options__images=[f"{band}.fits" for band in bands], data__options__bands=list(bands),
        data__crop=0.7, data__stretch=stretch, data__pixel_scale_arcsec=scale, model__arguments__in_chans=len(bands),
        data__stored=90, data__size=64, model__arguments__img_size=64,
    )  # fmt: skip
    source = kind_.sources[0]
    arrays, record = read_images(source, 90, 0.7, 2)
    assert arrays["image"].shape == (len(source.items), len(bands), 90, 90) and len(record["sums"]) == len(bands)
    assert kind_.mosaic is not None
    expected = scale or kind_.mosaic.cutting.pixel_scale_arcsec
    contract = {"bands": list(bands), "size": 64, "crop": 0.7 * 64 / 90, "pixel_scale_arcsec": expected,
                "cutout": 129, "stretch": stretch, "mean": [0.2] * len(bands), "std": [0.2] * len(bands)}  # fmt: skip
    classifier = GalaxyClassifier(small_models.classifier(tmp_path / "m", contract, outliers=False), device="cpu")
    assert classifier.contract.stretch is not None
    with open_mosaic([root / f"{band}.fits" for band in bands]) as mosaic:
        places = [place for item in source.items if (place := item.facts[3]) is not None]
        found = mosaic.cut(places, 129, pixel_scale_arcsec=scale)
    used = classifier.prepare(torch.from_numpy(classifier.contract.stretch.apply(found.values))).numpy()
    seen = arrays["image"][:, :, 13:-13, 13:-13] / 255
    assert np.abs(seen - used).max() <= 1 / 255 and used.max() > 0.2


def test_sources_have_labels_splits_and_places(tmp_path: Path):
    root = survey(tmp_path / "data")
    items = items_of(root)
    assert Counter(item.label for item in items) == {0: 36, 1: 36}
    assert {item.key for item in items} == {f"{MARKER}-{number}" for number in range(72)}
    for label in (0, 1):
        assert sum(item.split == "test" for item in items if item.label == label) == 7
    numbered = items_of(root, data__options__label="number", data__options__id=None, data__options__split="part")
    assert [item.key for item in sorted(numbered, key=lambda item: int(item.key))] == [str(n) for n in range(1, 73)]
    assert Counter(item.split for item in numbered) == {"train": 40, "validation": 15, "test": 17}
    by_pixel = items_of(root, data__options__x="col", data__options__y="row")
    by_key = {item.key: item for item in by_pixel}
    for item in items:
        assert by_key[item.key].place == pytest.approx(item.place, abs=1e-3) and by_key[item.key].split == item.split
    some = items_of(root, data__options__merge={"elliptical": "disk", "disk": "elliptical"})
    assert all({item.key: item.label for item in some}[item.key] == 1 - item.label for item in items)
    rule = {"hash": "md5", "modulo": 3, "equals": [0]}
    for item in items_of(root, data__options__test_rule=rule):
        ruled = int(hashlib.md5(item.key.encode(), usedforsecurity=False).hexdigest(), 16) % 3 == 0
        assert (item.split == "test") == ruled


@pytest.mark.parametrize("option", [{"data__options__blocks_arcmin": 0.5}, {"data__options__blocks_pixels": 75.0}])
@pytest.mark.parametrize("rule", [None, {"hash": "md5", "modulo": 4, "equals": [1]}])
def test_blocks_of_the_image_are_drawn_as_wholes(tmp_path: Path, option: dict, rule: Any):
    items = items_of(survey(tmp_path / "data"), **option, data__options__test_rule=rule)
    homes: dict[Any, set[str]] = {}
    for item in items:
        homes.setdefault(tuple(int((value + 0.5) // 75) for value in item.place), set()).add(item.split)
    assert len(homes) == 25 and all(len(splits) == 1 for splits in homes.values())
    counts = Counter(item.split for item in items)
    assert rule or 0.2 * 72 <= counts["test"] + 0.5 <= 0.2 * 72 + 5
    assert counts["validation"] >= 8 and counts["train"] > 30


def test_blocks_of_a_mosaic_without_wcs_are_in_pixels(tmp_path: Path):
    root = survey(tmp_path / "data", on_sky=False)
    changes = {"data__options__x": "col", "data__options__y": "row", "data__pixel_scale_arcsec": None}
    kind = kind_of(root, **changes, data__options__blocks_pixels=100)
    assert kind.mosaic is not None and kind.mosaic.cutting.pixel_scale_arcsec is None and kind.cutout == 40
    with pytest.raises(InputError, match=r"has no WCS, so that it has no arcmin; give data.options.blocks_pixels"):
        kind_of(root, **changes, data__options__blocks_arcmin=1)


def test_changed_labels_and_positions_are_prepared_anew(tmp_path: Path):
    root = survey(tmp_path / "data")
    kinds = [
        kind_of(root),
        kind_of(root, data__options__x="col", data__options__y="row"),
        kind_of(root, data__pixel_scale_arcsec=None),
        kind_of(root, data__options__merge={"elliptical": "disk", "disk": "elliptical"}),
        kind_of(root, data__stretch={"kind": "linear", "parameters": {"low": 0, "high": 9}}),
    ]
    made = [json.dumps([kind.preparation_settings(), kind.identify(kind.sources)]) for kind in kinds]
    assert len(set(made)) == 5
    recipe = load_recipe("mosaic_astroformer_cpu", overrides(root))
    assert len(pickle.loads(pickle.dumps(kinds[0].sources))) == len(kinds[0].sources)  # noqa: S301 - sent to workers
    assert "sources" not in str(shown(recipe)) and "g.fits" not in str(shown(recipe))


def changed(change: Any) -> Any:
    def write(root: Path) -> None:
        change(table := Table.read(root / "sources.fits"))
        table.write(root / "sources.fits", overwrite=True)

    return write


def put(name: str, value: str) -> Any:
    return changed(lambda table: table[name].__setitem__(4, value))


def coarser(root: Path) -> None:
    plane = fits.getdata(root / "r.fits")
    fits.PrimaryHDU(plane, wcs(0.5).to_header()).writeto(root / "r.fits", overwrite=True)


def bare(root: Path) -> None:
    for path in root.glob("?.fits"):
        fits.PrimaryHDU(fits.getdata(path)).writeto(path, overwrite=True)


def none(root: Path) -> None:
    """Leave all as it is."""


LUPTON = {"kind": "lupton", "parameters": {"low": 0, "stretch": 5, "q": 8}}


@pytest.mark.parametrize(
    ("prepare", "changes", "message"),
    [
        (none, {"data__stretch": None}, "data: stretch is needed by the layout mosaic"),
        (none, {"data__stretch": {"kind": "log", "parameters": {}}}, "data.stretch: stretch 'log' is unknown"),
        (none, {"data__stretch": {"kind": "linear", "parameters": {"low": 1, "high": 0}}}, "high is 0, expected more"),
        (none, {"data__stretch": {"kind": "linear"}}, "expected kind and parameters"),
        (none, {"data__stretch": 3}, "data.stretch: Input should be a valid dictionary"),
        (none, {"data__layout": "table"}, "data: stretch asinh is for the layouts mosaic and fits"),
        (none, {"data__stored": 41}, "the difference must be even"),
        (none, {"data__options__images": None}, "data.options.images is needed by the layout mosaic"),
        (none, {"data__options__catalogue": None}, "data.options.catalogue is needed by the layout mosaic"),
        (none, {"data__options__images": 3}, "data.options.images is 3; expected a name, or a list of names"),
        (none, {"data__options__bands": [1, 2, 3]}, r"data.options.bands is \[1, 2, 3\]; expected a name"),
        (none, {"data__options__image": "g.fits"}, "data.options.image is unknown to the layout mosaic"),
        (none, {"data__options__images": ["g.fits", "i.fits", "z.fits"]}, "i.fits: no such file; expected a FITS"),
        (none, {"data__options__catalogue": "c.ecsv"}, "c.ecsv: no such file; expected a catalogue"),
        (none, {"data__options__catalogue": "c.doc"}, "c.doc: ends in '.doc'"),
        (none, {"data__options__hdu": 3}, "data.options.hdu 3 is none of its images"),
        (none, {"data__options__bands": ["g", "r"]}, "has 3 bands, but data.options.bands names 2"),
        (coarser, {}, "lies on another grid"),
        (none, {"data__options__label": "kind"}, "sources.fits: has no column kind; found objid, ra, dec, label"),
        (none, {"data__options__id": "name"}, "has no column name"),
        (none, {"data__options__split": "fold"}, "has no column fold"),
        (none, {"data__options__split": "label"}, "split elliptical is unknown"),
        (none, {"data__options__ra": "a", "data__options__dec": "b"}, "has no column a"),
        (none, {"data__options__ra": "ra"}, "only one of data.options.ra and data.options.dec is given"),
        (
            changed(lambda table: table.remove_columns(["ra", "dec"])),
            {},
            "has no column that is known to be ra; .* with data.options.ra and data.options.de",
        ),
        (changed(lambda table: table.remove_rows(slice(None))), {}, "has no row; expected one for each source"),
        (put("label", "star"), {}, "class star is none of the recipe's 2; add it to card.classes"),
        (put("label", ""), {}, "class without a name is none of the recipe's 2"),
        (put("objid", f"{MARKER}-5"), {}, "names ngc4565-5 twice"),
        (none, {"data__options__drop": ["disk"]}, "class disk has no image"),
        (none, {"data__options__drop": list(CLASSES)}, "holds no image in the layout mosaic"),
        (none, {"data__options__x": "row", "data__options__y": "label"}, "column label has text, expected pixels"),
        (none, {**ONE, "data.stretch": LUPTON}, "has bands r, which data.stretch does not take"),
        (none, {"model__arguments__in_chans": 1}, r"in_chans is 1, the images have 3 bands \(g, r, z\); give model"),
        (bare, {}, "has no celestial WCS that can be used; give pixel positions"),
        (bare, {"data__options__x": "col", "data__options__y": "row"}, "without data.pixel_scale_arcsec"),
        (none, {"data__pixel_scale_arcsec": 900.0}, "give another data.pixel_scale_arcsec or data.stored"),
        (none, {"data__options__blocks_arcmin": 0}, "blocks_arcmin is 0; expected the side of a block"),
        (none, {"data__options__blocks_arcmin": "5'"}, 'blocks_arcmin is "5\'"; expected the side'),
        (none, {"data__options__blocks_arcmin": 1, "data__options__blocks_pixels": 9}, "expected one of them"),
    ],
)
def test_mosaics_that_cannot_be_learnt_from_are_refused(tmp_path: Path, prepare: Any, changes: dict, message: str):
    root = survey(tmp_path / "data")
    prepare(root)
    with pytest.raises(InputError, match=message) as raised:
        kind_of(root, **changes)
    assert "\n" not in str(raised.value) and "--" not in str(raised.value)


def test_sources_of_a_mosaic_elsewhere_are_named(tmp_path: Path):
    root = survey(tmp_path / "data")
    changed(lambda table: table.replace_column("dec", table["dec"] + 40))(root)
    with pytest.raises(InputError, match=r"sources.fits: none of its 75 sources lies on .*g\.fits"):
        kind_of(root)


def test_the_file_of_galaxy10_may_be_given_itself(tmp_path: Path, store: str):
    path = tmp_path / "g.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
        file["ans"] = (np.arange(40) % 10).astype(np.uint8)
    small = {key: value for key, value in SMALL.items() if ".options." not in key} | {
        "data.crop": 1.0, "train.epochs": None, "train.steps": 2, "data.split.test": 0.25, "data.split.validation": 0.3,
    }  # fmt: skip
    changes = [f"{key}={json.dumps(value)}" for key, value in small.items()]
    recipe = load_recipe("galaxy10_astroformer_cpu", [f"data.root={path}", f"output={tmp_path / 'out'}", *changes])
    job = run_stages(recipe, ["prepare", "train", "evaluate"])
    assert job.summary is not None and job.summary["figures"]["images"] == 10
    assert find_kind(recipe).identify(find_kind(recipe).sources)[0][0][0] == "."
    for name, layout in (("cutouts_astroformer_cpu", []), ("galaxy10_astroformer_cpu", ["data.layout=folders"])):
        with pytest.raises(InputError, match="not a folder; pass the folder of the data"):
            find_kind(load_recipe(name, [f"data.root={path}", *layout]))


def take_away(path: Path, part: Any) -> None:
    """Take the values of a part of an image away."""
    values, header = np.array(fits.getdata(path)), fits.getheader(path)
    values[part] = np.nan
    fits.writeto(path, values, header, overwrite=True)


def test_sources_without_a_pixel_that_has_a_value_are_left_out(tmp_path: Path, store: str, capsys: Any):
    root = survey(tmp_path / "data")
    whole = {item.key: item.place for item in items_of(root)}
    blank = {key for key, (x, y) in whole.items() if x < 120 and y < 120}
    for band in "grz":
        take_away(root / f"{band}.fits", np.s_[:150, :150])
    recipe = load_recipe("mosaic_astroformer_cpu", [*overrides(root), f"output={tmp_path / 'out'}"])
    run_stages(recipe, ["prepare", "train"])
    kept = {item.key for item in items_of(root)}
    left = set(whole) - kept
    assert blank <= left and blank and all(max(whole[key]) < 150 for key in left)
    said = capsys.readouterr().out
    assert f"warning: {len(left)} images without a pixel that has a value were left out" in said
    assert "warning: 3 sources that lie off the image were left out" in said
    for band in "grz":
        take_away(root / f"{band}.fits", np.s_[:])
    with pytest.raises(InputError, match="none of the cut-outs of its 72 sources has a pixel with a value"):
        kind_of(root)
