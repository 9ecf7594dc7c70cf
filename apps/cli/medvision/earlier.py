"""The earlier results that `medvision segment --compare` looks at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from apps.cli.medvision.scans import Scan
from apps.cli.shared.outputs import read_sidecar
from medvision.findings.changes import Changes, changes
from medvision.findings.sidecar import Sidecar
from medvision.volumes.files import Volume, read_labels
from shared_backbones.documents import read_csv_rows
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable
from shared_backbones.json_values import Document

_COLUMNS = ("scan", "earlier")
_ENDINGS = ("_seg.json", "_dseg.json")


@dataclass(frozen=True)
class Earlier:
    """An earlier result.

    Attributes:
        sidecar: its side-car.
        labels: its label map.
        same_scan: whether it is of the scan at hand.
    """

    sidecar: Document
    labels: Path
    same_scan: bool

    @cached_property
    def sha256(self) -> str:
        """Digest of the label map."""
        return file_sha256(self.labels)

    def read(self, volume: Volume) -> np.ndarray | None:
        """Its labels on the scan's grid; None where it is of another scan.

        Raises:
            InputError: the label map cannot be read, or lies on another grid than the scan that it is of.
        """
        if not self.same_scan:
            return None
        labels = read_labels(self.labels)
        if difference := labels.grid.differs_from(volume.grid):
            raise InputError(
                f"--compare {printable(self.labels)}: not on the grid of its scan: {difference}; make it again"
            )
        return labels.data

    def compared(self, sidecar: Sidecar, labels: np.ndarray, earlier_labels: np.ndarray | None) -> Changes:
        """What the side-car of the new result says of the earlier one."""
        model = self.sidecar.get("model") or {}
        return {
            "case": str(self.sidecar["case"]),
            "created": str(self.sidecar.get("created", "")),
            "model": {key: str(model[key]) for key in ("name", "version", "sha256") if model.get(key)},
            "sha256": self.sha256,
            "same_scan": self.same_scan,
            "rows": changes(sidecar["structures"], self.sidecar, labels, earlier_labels),
        }


@dataclass(frozen=True)
class EarlierResults:
    """A folder of earlier results, and which of them belongs to a scan.

    Attributes:
        folder: the folder.
        by_scan: results by the SHA-256 of their scans; of several of one scan the newest.
        by_name: results by the names that they begin with, and by their cases.
        pairs: names of earlier results by names of scans, as the operator's table has them.
    """

    folder: Path
    by_scan: Mapping[str, Path]
    by_name: Mapping[str, Path]
    pairs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, table: Path | None) -> "EarlierResults":
        """Look through a folder, at any depth.

        Raises:
            InputError: it holds no result, or the table cannot be used.
        """
        if not folder.is_dir():
            raise InputError(f"--compare {printable(folder)}: no such folder; expected one of earlier results")
        by_scan: dict[str, tuple[str, Path]] = {}
        by_name: dict[str, Path] = {}
        for path in sorted(path for path in folder.rglob("*.json") if path.name.endswith(_ENDINGS)):
            known = _described(path)
            if known is None:
                continue
            created, scan = str(known.get("created", "")), str(known["input"]["sha256"])
            by_scan[scan] = max(by_scan.get(scan, ("", path)), (created, path))
            by_name |= {path.name[: -len(ending)]: path for ending in _ENDINGS if path.name.endswith(ending)}
            by_name[str(known["case"])] = path
        if not by_scan:
            raise InputError(f"--compare {printable(folder)}: holds no result of `medvision segment`; check the path")
        pairs = {} if table is None else _read_pairs(table)
        missing = sorted(name for name in pairs.values() if name not in by_name)
        if missing:
            raise InputError(
                f"--compare-table {printable(table or '')}: {printable(missing[0])} is none of the results in "
                f"{printable(folder)}; expected their names without _seg.json, or their cases"
            )
        return cls(folder, {scan: path for scan, (_, path) in by_scan.items()}, by_name, pairs)

    def find(self, scan: Scan) -> Earlier | None:
        """The earlier result for a scan: of the operator's table, else of the same scan; None if there is none.

        Raises:
            InputError: its label map is missing.
        """
        named = self.pairs.get(scan.path.name) or self.pairs.get(scan.stem)
        path = self.by_name[named] if named else self.by_scan.get(scan.sha256())
        sidecar = None if path is None else _described(path)
        if path is None or sidecar is None:
            return None
        labels = path.with_name(path.name.removesuffix(".json") + ".nii.gz")
        if not labels.is_file():
            raise InputError(f"--compare {printable(path)}: its label map {printable(labels.name)} is missing")
        return Earlier(sidecar, labels, sidecar["input"]["sha256"] == scan.sha256())


def _described(path: Path) -> Document | None:
    """The content of a side-car of `medvision segment`; None for another file."""
    try:
        content = read_sidecar(path)
        is_result = isinstance(content["input"]["sha256"], str) and isinstance(content["structures"], list)
        is_result &= all(isinstance(row["name"], str) and isinstance(row["id"], int) for row in content["structures"])
        return content if is_result and isinstance(content["case"], str) else None
    except (InputError, KeyError, TypeError):
        return None


def _read_pairs(path: Path) -> dict[str, str]:
    """Names of earlier results by names of scans.

    Raises:
        InputError: the table lacks a column, or names a scan twice.
    """
    label = f"--compare-table {printable(path)}"
    try:
        rows = read_csv_rows(path)
    except InputError as error:
        raise InputError(f"--compare-table {error}") from None
    if not rows or any(column not in rows[0] for column in _COLUMNS):
        raise InputError(f"{label}: expected a row for each scan, with the columns {' and '.join(_COLUMNS)}")
    pairs = {row.get("scan", "").strip(): row.get("earlier", "").strip() for row in rows}
    if len(pairs) < len(rows):
        raise InputError(f"{label}: names a scan twice; expected each once")
    return {scan: earlier for scan, earlier in pairs.items() if scan and earlier}
