"""Whether two classifiers are right on the same images equally often, under every corruption and severity."""

import json
from pathlib import Path

import numpy as np

from pipelines.evaluation.image_robustness import SEVERITIES, ImageMeasurement, PairedTest, Right
from pipelines.evaluation.paired_cases import holm
from shared_backbones.documents import read_bounded
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_LARGEST = 256 * 2**20  # bytes of a measurement: a bit for each image in each state


def paired_tests(own: ImageMeasurement, other: ImageMeasurement) -> list[PairedTest]:
    """Whether two classifiers are right on the same images equally often: McNemar's exact test in every state.

    Args:
        own: Measurement of a classifier.
        other: Measurement of another classifier under the same corruptions, or more.

    Returns:
        A test for the clean images and for each cell.

    Raises:
        InputError: The images are not the same ones.
    """
    theirs = {(cell["corruption"], cell["severity"]): cell["sha256"] for cell in other["cells"]}
    check_same(own["clean"]["sha256"], other["clean"]["sha256"], "without corruption")
    for cell in own["cells"]:
        name, severity = cell["corruption"], cell["severity"]
        check_same(cell["sha256"], theirs[name, severity], f"under {name} at severity {severity}")
    rows = [_paired_test(own, other, name, severity) for name, severity in _states(own)]
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def check_same(own: str, theirs: str, state: str) -> None:
    """Refuse to compare models on images of another sha256.

    Raises:
        InputError: They differ.
    """
    if own != theirs:
        raise InputError(
            f"the baseline's images {state} have the sha256 {theirs[:8]}, these {own[:8]}; measure both models on the "
            "same file, split and number of images"
        )


def read_measurement(folder: Path) -> ImageMeasurement:
    """The measurement of a classifier in a folder that `robustness` wrote.

    Raises:
        InputError: There is no such file, or it is of another kind.
    """
    path = folder / "robustness.json"
    try:
        measurement: ImageMeasurement = json.loads(read_bounded(path, _LARGEST))
        for name, severity in _states(measurement):
            _bits(measurement["right"], name, severity, measurement["images"])
        for state in (measurement["clean"], *measurement["cells"]):
            if not 0 <= state["balanced_accuracy"] <= 1 or not isinstance(state["sha256"], str):
                raise ValueError("a state has no balanced accuracy or sha256")
        if len(measurement["cells"]) != len(measurement["corruptions"]) * len(SEVERITIES):
            raise ValueError("severities are missing")
    except InputError as error:
        raise InputError(f"{error}; expected a folder that `robustness` wrote") from None
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
        raise InputError(
            f"{printable(path)}: contains no results of a classifier's images; give a folder that "
            "`robustness` wrote for a classifier"
        ) from None
    return measurement


def _states(measurement: ImageMeasurement) -> list[tuple[str | None, int]]:
    """Corruption and severity of all states, the clean one first."""
    return [(None, 0), *((cell["corruption"], cell["severity"]) for cell in measurement["cells"])]


def _paired_test(own: ImageMeasurement, other: ImageMeasurement, name: str | None, severity: int) -> PairedTest:
    """The test of one state, before the correction for many tests."""
    from scipy.special import bdtr

    ours, theirs = (_bits(part["right"], name, severity, own["images"]) for part in (own, other))
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p = min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0
    return {
        "corruption": name, "severity": severity, "only_here": gained, "only_there": lost, "p": p, "p_holm": p,
    }  # fmt: skip


def _bits(right: Right, name: str | None, severity: int, count: int) -> np.ndarray:
    """Whether each image is right in a state, `(N,)` bool."""
    packed = right["clean"] if name is None else right["corrupted"][name][severity - 1]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8))
    if not 0 <= len(bits) - count < 8:
        raise ValueError(f"{len(bits)} bits for {count} images")
    return bits[:count].astype(bool)
