"""`--label-map`: what the ids of other people's label maps are among a model's classes."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.files import printable


def read_label_map(path: Path, known: Collection[int]) -> dict[int, int]:
    """Class ids by the ids of labels, of a JSON file such as `{"17": 4, "53": 4}`.

    Args:
        path: the file.
        known: ids of the model's classes.

    Raises:
        InputError: it cannot be read, or names a class that the model has not.
    """
    shown = printable(path)
    try:
        pairs = {int(key): int(value) for key, value in read_json(path).items()}
    except InputError as error:
        raise InputError(f"--label-map {error}") from None
    except (TypeError, ValueError, OverflowError):
        raise InputError(f'--label-map {shown}: expected JSON such as {{"17": 4, "53": 4}}, ids to class ids') from None
    unknown = sorted(set(pairs.values()) - set(known))
    if unknown:
        raise InputError(f"--label-map {shown}: names class {unknown[0]}, expected the model's ids 0 to {max(known)}")
    return pairs


def mapped(labels: np.ndarray, pairs: Mapping[int, int]) -> np.ndarray:
    """Labels as class ids, `(X, Y, Z)` uint8; those that no pair names become 0."""
    classes = np.zeros(labels.shape, np.uint8)
    for source, target in pairs.items():
        classes[labels == source] = target
    return classes
