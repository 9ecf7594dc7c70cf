"""Names of scans: which files are volumes, which belong together, and which lead nowhere."""

import os
from pathlib import Path

PAIR = (".hdr.gz", ".hdr", ".img.gz", ".img")
"""Suffixes of NIfTI in two files, header and voxels."""
SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", *PAIR)
"""Suffixes of files that hold a volume."""


def is_scan_name(path: Path) -> bool:
    """Whether a file is named like a scan: not hidden, and of a pair the one with the voxels, where both are there."""
    suffix = scan_suffix(path.name)
    if suffix in PAIR:
        return "img" in suffix and _partner(path).exists() and not path.name.startswith(".")
    return bool(suffix) and not path.name.startswith(".")


def scan_stem(path: str | os.PathLike[str]) -> str:
    """File name without a suffix of `SUFFIXES`."""
    name = Path(path).name
    return name[: len(name) - len(scan_suffix(name))]


def scan_suffix(name: str) -> str:
    """The suffix of a scan's file name in lower case; empty where it has none of `SUFFIXES`."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")


def scan_parts(path: Path) -> list[Path]:
    """The files of a scan, the one with the header first."""
    suffix = scan_suffix(path.name)
    if suffix not in PAIR:
        return [path]
    return [path, _partner(path)] if "hdr" in suffix else [_partner(path), path]


def is_dead_link(path: Path) -> bool:
    """Whether a path is a link to a file that is not there."""
    return path.is_symlink() and not path.exists()


def _partner(path: Path) -> Path:
    """The other file of a pair `.hdr` and `.img`, its suffix written as the one's is."""
    suffix = path.name[-len(scan_suffix(path.name)) :]
    swapped = {"h": "i", "d": "m", "r": "g", "i": "h", "m": "d", "g": "r"}
    letters = [swapped[x] if x.islower() else swapped[x.lower()].upper() for x in suffix[1:4]]
    return path.with_name(path.name[: -len(suffix)] + "." + "".join(letters) + suffix[4:])
