"""What the trained models of `models/` predict: `python -m tests.golden.predictions` writes it anew.

The models were made by `python -m tests.golden.write_trainings`. Inputs are the miniatures that they learnt from.
"""

import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from nibabel import nifti1

from shared_backbones import weights
from tests.golden import miniatures
from tests.golden.programs import run_program
from tests.golden.trainings import MODELS

EXPECTED = Path(__file__).with_name("predictions.json")
_SENSOR = ("--sensor", "sentinel2_l1c")
_KEPT = 200  # numbers of a prediction


def predict(name: str, folder: Path) -> dict[str, list[float]]:
    """Predictions of a model by the program of its domain, and the network's own answer to a drawn input."""
    predicted = _PREDICTIONS[name](MODELS / name, folder)
    if name != "scenes":  # an autoencoder answers with more than a tensor
        predicted["network"] = _answer(MODELS / name)
    return {key: _thinned(values) for key, values in predicted.items()}


def _segment(model: Path, folder: Path) -> dict[str, Any]:
    miniatures.msd(folder / "data")
    scan = folder / "data/imagesTr/hippocampus_221.nii.gz"
    run_program(
        "medvision", "segment", "-i", scan, "-o", folder / "out", "--model", model, "--device", "cpu", "--threads", 1,
        "--precision", "float32", "--save-probabilities", "-q",
    )  # fmt: skip
    images = {path.name: np.asanyarray(nifti1.load(path).dataobj) for path in (folder / "out").glob("*.nii.gz")}
    return {"labels": _only(images, 3), "probabilities": _only(images, 4)}


def _only(images: dict[str, np.ndarray], axes: int) -> np.ndarray:
    (values,) = (values for values in images.values() if values.ndim == axes)
    return values


def _embed(model: Path, folder: Path) -> dict[str, Any]:
    scene = _scene(folder)
    output = folder / "vectors.npz"
    run_program(
        "geovision", "embed", "-i", scene, "-o", output, "--model", model, "--device", "cpu", "--threads", 1, *_SENSOR
    )
    with np.load(output) as arrays:
        (vectors,) = (
            arrays[name] for name in arrays.files if arrays[name].ndim == 2 and arrays[name].dtype.kind == "f"
        )
    return {"vectors": vectors}


def _map(model: Path, folder: Path) -> dict[str, Any]:
    scene = _scene(folder)
    labels, probabilities = folder / "map.tif", folder / "probabilities.tif"
    run_program(
        "geovision", "map", "-i", scene, "-o", labels, "--model", model, "--device", "cpu", "--threads", 1, *_SENSOR,
        "--probabilities", probabilities,
    )  # fmt: skip
    found = {}
    for name, path in (("labels", labels), ("probabilities", probabilities)):
        with rasterio.open(path) as raster:
            found[name] = raster.read()
    return found


def _scene(folder: Path) -> Path:
    miniatures.scenes(folder / "data")
    return folder / "data/images/date_0.tif"


def _classify(program: str, make: Callable[[Path], None], images: str) -> Callable[[Path, Path], dict[str, Any]]:
    def classify(model: Path, folder: Path) -> dict[str, Any]:
        make(folder / "data")
        output = folder / "classes.csv"
        run_program(
            program, "classify", "-i", folder / "data" / images, "-o", output, "--model", model, "--device", "cpu",
            "--threads", 1, "-q",
        )  # fmt: skip
        with output.open(newline="") as file:
            lines = [line for line in file if not line.startswith("#")]
        rows = list(csv.DictReader(lines))
        names = [name for name in rows[0] if name.startswith("p_")]
        return {"probabilities": np.array([[float(row[name]) for name in names] for row in rows])}

    return classify


_PREDICTIONS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "volumes": _segment,
    "synthetic": _segment,
    "scenes": _embed,
    "labelled_scenes": _map,
    "labelled_images": _embed,
    "galaxies": _classify("astrovision", miniatures.galaxy10, "Galaxy10_DECals.h5"),
    "medical_images": _classify("medvision", miniatures.pneumoniamnist, "pneumoniamnist.npz"),
}
NAMES = tuple(_PREDICTIONS)


def _answer(model: Path) -> np.ndarray:
    """Logits of a drawn input of the size that the card says."""
    trained = weights.load(model)
    section = trained.card["input"]
    channels = len(section.get("bands") or section["slices"])
    size = section.get("size") or section["smallest_slice"]
    drawn = np.random.default_rng(0).normal(size=(2, channels, size, size))
    with torch.inference_mode():
        return trained.module(torch.from_numpy(drawn.astype(np.float32))).numpy()


def _thinned(values: np.ndarray) -> list[float]:
    """Numbers spread evenly over an array."""
    flat = np.asarray(values, np.float64).ravel()
    chosen = np.unique(np.linspace(0, flat.size - 1, min(_KEPT, flat.size)).round().astype(int))
    return [round(float(value), 5) for value in flat[chosen]]


if __name__ == "__main__":
    content = {}
    for each in NAMES:
        with tempfile.TemporaryDirectory() as temporary:
            content[each] = predict(each, Path(temporary))
    EXPECTED.write_text(json.dumps(content, indent=1).replace("\n   ", " ").replace("\n  ]", " ]") + "\n")
