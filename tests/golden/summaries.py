"""What a run leaves behind, in few numbers: which case is in which split, stored bytes, weights, figures."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from safetensors.numpy import load_file

TOLERANCE = 1e-4
"""Largest difference, of numbers above 1 as a share of them."""
_OF_PROCESSORS = {"running_mean": 1e-3, "running_var": 1e-3, " nsd ": 1e-3, "mean_iou": 2e-3}
"""The same of what two kinds of processor were seen to differ in: by 7e-4 and 1.7e-3."""


class Summary(TypedDict):
    """Of a run.

    `cases` has a line for each stored case, or of labelled images for each image in no order: its split, what
    is said of it, and hashes of its arrays. `weights` has the mean, the standard deviation and a projection of each
    tensor. `figures` has those of the training's last step, of the evaluation and of the test cases.
    """

    cases: list[str]
    weights: dict[str, list[float]]
    figures: dict[str, float]


def summarise(output: Path) -> Summary:
    """What a run left in its folder."""
    (model,) = output.rglob("model.safetensors")
    manifests = list(output.rglob("manifest.json"))
    cases = [line for path in manifests for line in stored_cases(path.parent)]
    return {"cases": cases, "weights": weights(model), "figures": figures(output)}


def stored_cases(folder: Path) -> list[str]:
    """A line for each case of a store, or for each labelled image."""
    cases = json.loads((folder / "manifest.json").read_text())["cases"]
    lines, images = [], []
    for case in cases:
        arrays = {name: _array(folder / f"{name}.bin", where) for name, where in case["arrays"].items()}
        if "targets" in arrays:
            images += [f"{case['split']} {line}" for line in _images(arrays)]
            continue
        known = ("shape", "voxels", "percentiles", "places")
        said = {name: case["record"][name] for name in known if name in case["record"]}
        hashes = [f"{name} {values.dtype} {values.shape} {_hash(values)}" for name, values in sorted(arrays.items())]
        lines.append(" ".join([case["split"], hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12], *hashes]))
    return [*lines, *sorted(images)]


def _images(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Of each image its classes, and hashes of its pixels `(C, H, W)` and of the valid ones `(H, W)`."""
    images = arrays["image"]
    valid = arrays.get("valid", np.ones((len(images), *images.shape[2:]), bool))
    for image, mask, target in zip(images, valid, arrays["targets"], strict=True):
        labels = "+".join(map(str, np.flatnonzero(target))) or "-"
        yield f"{labels} {image.dtype} {image.shape} {_hash(image)} valid {_hash(mask)}"


def _array(path: Path, where: Mapping[str, Any]) -> np.ndarray:
    raw = path.read_bytes()[where["offset"] : where["offset"] + where["bytes"]]
    return np.frombuffer(raw, where["dtype"]).reshape(where["shape"])


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]


def weights(path: Path) -> dict[str, list[float]]:
    """Of each tensor its mean, its standard deviation, and its projection on a wave, which tells an order apart."""
    found = {}
    for name, tensor in sorted(load_file(path).items()):
        values = tensor.astype(np.float64).ravel()
        wave = np.cos(np.arange(values.size)) @ values / max(values.size, 1) ** 0.5
        found[name] = [round(float(value), 6) for value in (values.mean(), values.std(), wave)]
    return found


def figures(output: Path) -> dict[str, float]:
    """Figures of the last step, of the evaluation, and predictions of the test cases, as far as there are any."""
    found: dict[str, float] = {}
    (history,) = output.rglob("history.jsonl")
    for line in history.read_text().splitlines():
        found |= {f"training {name}": value for name, value in json.loads(line).items() if name != "steps_per_second"}
    for path in output.rglob("summary.json"):
        content = json.loads(path.read_text())
        found |= dict(_numbers(content.get("figures", content), "evaluation"))
    for path in output.rglob("predictions.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found |= {f"{row['case']} {name}": float(value) for name, value in row.items() if name[:2] == "p_"}
    for path in output.rglob("model.json"):
        card = json.loads(path.read_text())
        for section in ("input", "calibration"):
            found |= dict(_numbers(card.get(section, {}), section))
    return {name: round(value, 6) for name, value in found.items()}


def _numbers(content: Any, name: str) -> Iterator[tuple[str, float]]:
    """All numbers of a JSON document, each with the way to it."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _numbers(value, f"{name} {key}")
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _numbers(value, f"{name} {number}")
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield name, float(content)


def tolerance_of(name: str) -> float:
    """Largest difference of a tensor's or a figure's numbers."""
    return next((bound for part, bound in _OF_PROCESSORS.items() if part in name), TOLERANCE)


def differ(found: float, expected: float, tolerance: float = TOLERANCE) -> bool:
    """Whether two numbers are not the same."""
    return abs(found - expected) > tolerance * max(1, abs(expected))
