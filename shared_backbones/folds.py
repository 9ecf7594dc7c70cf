"""Folds of cross-validation: parts of all cases outside the test, each of which is validated on once.

A preparation divides the cases into all folds at once, by the names here; which of them is validated on is decided when
the prepared data are read.
"""

import re


def fold_name(number: int) -> str:
    """Name that stands for a fold where a split's name stands; folds are counted from 1."""
    return f"fold-{number}"


def split_of(name: str, fold: int | None) -> str:
    """The split that a case belongs to while a fold is validated on.

    Args:
        name: Name of a split or of a fold.
        fold: Number of the fold that is validated on; None where nothing is divided into folds.
    """
    if fold is None or not re.fullmatch(r"fold-\d+", name):
        return name
    return "validation" if name == fold_name(fold) else "train"
