"""BIDS data sets: which images of one are to be segmented, and what makes a folder of results a derivative of it."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from apps.cli.shared.outputs import place_text
from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.files import printable

DESCRIPTION = "dataset_description.json"
DERIVATIVE = Path("derivatives") / "medvision"
"""Where results go, seen from the data set."""
VERSION = "1.10.0"
"""Version of the standard that results follow."""

_SUFFIX = "T1w"  # of what is segmented where the filter names no other
_ENDINGS = (".nii.gz", ".nii")
_IGNORED = (
    "index.html",
    "index.json",
    "volumes.csv",
    "reports",
    "reports/",
    "*_report.html",
    "*_volumes.csv",
    "*.bak*",
)

Filter = Mapping[str, Sequence[str]]


def is_bids(folder: Path) -> bool:
    """Whether a folder is a BIDS data set with subjects."""
    return (folder / DESCRIPTION).is_file() and any(path.is_dir() for path in folder.glob("sub-*"))


def parse_filter(items: Sequence[str] | None) -> Filter:
    """Values by entity, of items such as `sub=01`; one entity may have several.

    Raises:
        InputError: an item is none.
    """
    values: dict[str, list[str]] = {}
    for item in items or ():
        key, equals, value = item.partition("=")
        if not equals or not key.isalnum() or not value.isalnum():
            raise InputError(f"--bids-filter {printable(item)}: expected entities such as sub=01,ses=pre,suffix=T1w")
        values.setdefault(key, []).append(value)
    return values


def find_images(folder: Path, wanted: Filter) -> list[Path]:
    """The anatomical images of a data set that a filter lets pass, by default `*_T1w`, sorted by subject.

    Raises:
        InputError: there is none.
    """
    (suffix, *others) = wanted.get("suffix", [_SUFFIX])
    if others:
        raise InputError(f"--bids-filter: names the suffixes {suffix} and {others[0]}; expected one; run once for each")
    images = [
        path
        for anat in sorted([*folder.glob("sub-*/anat"), *folder.glob("sub-*/ses-*/anat")])
        for path in _files_in(anat)
        if path.name.startswith("sub-") and stem_of(path)[1] == suffix and path.name.endswith(_ENDINGS)
    ]
    chosen = [image for image in images if _passes(entities(image), wanted)]
    if not chosen:
        count = f"{len(images)} {suffix} images, none of which the filter lets pass" if images else f"no {suffix} image"
        raise InputError(f"{printable(folder)}: contains {count}; expected sub-*/[ses-*/]anat/*_{suffix}.nii.gz")
    return chosen


def entities(path: Path) -> dict[str, str]:
    """Entities of a file's name, such as `sub`, `ses` and `run`."""
    pairs = (part.partition("-") for part in stem_of(path)[0].split("_"))
    return {key: value for key, _, value in pairs}


def stem_of(path: Path) -> tuple[str, str]:
    """A file's name without suffix and ending, and the suffix: `sub-01_run-2` and `T1w`."""
    name = path.name.partition(".")[0]
    stem, _, suffix = name.rpartition("_")
    return stem, suffix


def describe(folder: Path, label: str, *, overwrite: bool) -> None:
    """Make a folder a BIDS derivative, unless it is one that a program of ours described.

    Raises:
        InputError: it is described as something else, or cannot be written to.
    """
    path = folder / DESCRIPTION
    content = {
        "Name": f"Segmentations of medvision ({label})",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medvision", "Version": version("domain-vision")}],
    }
    if not (path.exists() and _is_ours(path)):
        place_text(path, json.dumps(content, indent=2) + "\n", overwrite=overwrite)
    ignored = folder / ".bidsignore"
    if not ignored.exists():
        place_text(ignored, "\n".join(_IGNORED) + "\n", overwrite=False)


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() or path.is_symlink())
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed ({error.strerror}); check its rights") from None


def _is_ours(path: Path) -> bool:
    try:
        made = read_json(path)["GeneratedBy"]
        return any(entry["Name"] == "medvision" for entry in made)
    except (InputError, KeyError, TypeError):
        return False


def _passes(given: Mapping[str, str], wanted: Filter) -> bool:
    return all(key == "suffix" or given.get(key) in values for key, values in wanted.items())
