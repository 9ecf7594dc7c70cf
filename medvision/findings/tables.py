"""Volumes as tables: names that pandas and R read as they are, mL, and an empty cell for what is not known.

The wide form has one row a scan and the columns `case`, `intracranial_ml`, `<structure>_ml` of every structure,
`<structure>_confidence` of every structure, `flags` (their number), `flagged` (`code: structure; ...`), and
`<structure>_left_ml` and `<structure>_right_ml`. The long form has one row a structure, and the columns `LONG`. The
intracranial volume and those of the sides are there where the model gives them; nothing is cut in half to get them.
"""

import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict

from medvision.findings.flags import Flag
from medvision.findings.statistics import StructureRow
from shared_backbones.files import write_rows

Cell: TypeAlias = str | int | float | None
Form: TypeAlias = Literal["wide", "long"]

LONG = (
    "case", "id", "structure", "volume_ml", "left_ml", "right_ml", "voxels", "confidence", "expected_dice", "flags",
    "flagged", "scan_flags",
)  # fmt: skip
"""Columns of the long form."""
INTRACRANIAL = "intracranial"

_SIDED = re.compile(r"(^|_)(left|right|l|r|lh|rh)(_|$)")
_DIGITS = 4  # decimals; a tenth of a microlitre


class Measured(TypedDict):
    """What a table needs of a side-car.

    Attributes:
        case: name of the case.
        structures: figures of each structure.
        flags: quality flags.
        intracranial_ml: intracranial volume; None where the model gives none.
    """

    case: str
    structures: Sequence[StructureRow]
    flags: Sequence[Flag]
    intracranial_ml: float | None


def volume_rows(measured: Measured, form: Form = "wide") -> list[dict[str, Cell]]:
    """Rows of a scan: one in the wide form, one for each structure in the long one."""
    return [_wide(measured)] if form == "wide" else _long(measured)


def table_text(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Rows as CSV; a column that a row lacks is empty there. Texts that are formulas get an apostrophe in front."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    stream = io.StringIO()
    write_rows(stream, [columns, *([row.get(column) for column in columns] for row in rows)])
    return stream.getvalue()


def identifiers(names: Sequence[str]) -> list[str]:
    """Names of columns for structures: ASCII letters, digits and underscores, from a letter on, each another one."""
    plain = [_plain(name) for name in names]
    unique: list[str] = []
    for name in plain:
        candidate, number = name, 1
        while candidate in unique or (number > 1 and candidate in plain):
            number += 1
            candidate = f"{name}_{number}"
        unique.append(candidate)
    return unique


def _plain(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    word = re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")
    return word if word[:1].isalpha() else f"structure_{word}".strip("_")


def _wide(measured: Measured) -> dict[str, Cell]:
    rows, flags = measured["structures"], measured["flags"]
    names = identifiers([row["name"] for row in rows])
    wide: dict[str, Cell] = {"case": measured["case"], f"{INTRACRANIAL}_ml": _rounded(measured["intracranial_ml"])}
    wide |= {f"{name}_ml": _rounded(row["volume_ml"]) for name, row in zip(names, rows, strict=True)}
    wide |= {f"{name}_confidence": _rounded(row["mean_confidence"]) for name, row in zip(names, rows, strict=True)}
    wide |= {"flags": len(flags), "flagged": "; ".join(_flagged(flag) for flag in flags)}
    for name, row in zip(names, rows, strict=True):
        for side in ("left", "right") if not _SIDED.search(name) else ():
            wide.setdefault(f"{name}_{side}_ml", _rounded(row.get(f"{side}_ml")))
    return wide


def _long(measured: Measured) -> list[dict[str, Cell]]:
    rows, flags = measured["structures"], measured["flags"]
    names = identifiers([row["name"] for row in rows])
    scan_flags = "; ".join(flag["code"] for flag in flags if flag["structure"] is None)
    long: list[dict[str, Cell]] = []
    if INTRACRANIAL not in names:
        about = {"structure": INTRACRANIAL, "volume_ml": _rounded(measured["intracranial_ml"]), "flags": 0}
        long.append(dict.fromkeys(LONG) | {"case": measured["case"], "scan_flags": scan_flags} | about)
    for name, row in zip(names, rows, strict=True):
        codes = [flag["code"] for flag in flags if flag["structure"] == row["name"]]
        values = (
            measured["case"], row["id"], name, _rounded(row["volume_ml"]), _rounded(row.get("left_ml")),
            _rounded(row.get("right_ml")), row["voxels"], _rounded(row["mean_confidence"]),
            _rounded(row.get("expected_dice")), len(codes), "; ".join(codes), scan_flags,
        )  # fmt: skip
        long.append(dict(zip(LONG, values, strict=True)))
    return long


def _flagged(flag: Flag) -> str:
    return flag["code"] if flag["structure"] is None else f"{flag['code']}: {flag['structure']}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
