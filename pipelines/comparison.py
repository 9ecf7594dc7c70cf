"""What two runs differ in: their settings, their data and their figures, with paired tests over their test cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pipelines.evaluation.paired_cases import CaseFigures, Difference, paired_differences, read_cases
from pipelines.report.text import fixed
from pipelines.tracking.finding import find_run
from pipelines.tracking.notes import RunNote, read_note
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.work_folders import work_folder

_RESAMPLES = 2000


@dataclass(frozen=True)
class RunFacts:
    """A run, wherever it is read from.

    Attributes:
        label: What it is called, for people to read.
        settings: Settings by dotted key, as texts.
        data: Digest of the data of each split.
        figures: Figures of validation and test.
        cases: Figures of each test case.
    """

    label: str
    settings: dict[str, str]
    data: dict[str, str]
    figures: dict[str, float]
    cases: CaseFigures


class Comparison(TypedDict):
    """Two runs; each pair is of the first and the second, None where one has nothing.

    Attributes:
        runs: What the runs are called.
        settings: Settings that differ, by dotted key.
        data: Digests of the splits whose data differ.
        same_data: Splits whose data are the same.
        figures: All figures.
        paired: The second run less the first, over the test cases that both have.
    """

    runs: list[str]
    settings: dict[str, list[str | None]]
    data: dict[str, list[str | None]]
    same_data: list[str]
    figures: dict[str, list[float | None]]
    paired: list[Difference]


def read_run(name: str) -> RunFacts:
    """A run by its id or name in the tracking store, its output folder, or its note `OUTPUT/runs/NAME.json`.

    Raises:
        InputError: there is no such run, or there are several.
    """
    path = Path(name)
    if path.is_dir():
        return _of_note(_only_note(path))
    if path.is_file():
        return _of_note(path)
    run = find_run(name)
    with work_folder() as folder:
        run.download("evaluation", ("cases.csv", "predictions.csv"), folder)
        return RunFacts(run.label, run.settings, run.data, run.figures, read_cases(folder))


def compare(first: RunFacts, second: RunFacts) -> Comparison:
    """What two runs differ in."""
    splits = list(dict.fromkeys([*first.data, *second.data]))
    settings = sorted({*first.settings, *second.settings})
    figures = dict.fromkeys([*first.figures, *second.figures])
    return {
        "runs": [first.label, second.label],
        "settings": {
            key: [first.settings.get(key), second.settings.get(key)]
            for key in settings
            if first.settings.get(key) != second.settings.get(key)
        },
        "data": {
            split: [first.data.get(split), second.data.get(split)]
            for split in splits
            if first.data.get(split) != second.data.get(split)
        },
        "same_data": [split for split in splits if first.data.get(split) == second.data.get(split)],
        "figures": {name: [first.figures.get(name), second.figures.get(name)] for name in figures},
        "paired": paired_differences([second.cases], [first.cases], resamples=_RESAMPLES, seed=0),
    }


def lines_of(comparison: Comparison) -> list[str]:
    """A comparison for a terminal."""
    first, second = comparison["runs"]
    lines = [f"A: {printable(first)}", f"B: {printable(second)}", "settings that differ:"]
    lines += _columns([[key, *map(_text, pair)] for key, pair in comparison["settings"].items()]) or ["  none"]
    if comparison["data"]:
        lines.append("data that differ:")
        lines += _columns([[split, *map(_text, pair)] for split, pair in comparison["data"].items()])
    if comparison["same_data"]:
        lines.append(f"data that are the same: {', '.join(comparison['same_data'])}")
    lines.append("figures:")
    rows = [[name, _number(a), _number(b), _change(a, b)] for name, (a, b) in comparison["figures"].items()]
    lines += _columns([["", "A", "B", "B less A"], *rows]) if rows else ["  none"]
    return [*lines, *_paired(comparison["paired"])]


def _paired(rows: Sequence[Difference]) -> list[str]:
    if not rows:
        return ["paired tests: none, as the runs have no table of test cases, or no case in common"]
    cells = [
        [
            row["figure"],
            f"{row['mean']:+.4g}",
            "-" if row["low"] is None else f"[{row['low']:+.4g}, {row['high']:+.4g}]",
            f"p {row['p']:.3g}",
            f"{row['cases']} cases",
        ]
        for row in rows
    ]
    return ["B less A, paired over test cases (95 % bootstrap interval, sign-flip test):", *_columns(cells)]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    return [
        printable("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def _text(value: str | None) -> str:
    return "-" if value is None else value


def _number(value: float | None) -> str:
    return fixed(value, 4)


def _change(first: float | None, second: float | None) -> str:
    return "" if first is None or second is None else f"{second - first:+.4f}"


def _only_note(folder: Path) -> Path:
    """The note of the only complete run of an output folder."""
    complete = {
        path: note for path in sorted((folder / "runs").glob("*.json")) if _is_complete(note := read_note(path))
    }
    if not complete:
        raise InputError(
            f"{printable(folder)}: holds no run that is complete; give the output folder of a recipe, or run it again "
            "with this version"
        )
    if len(complete) > 1:
        ids = [note["run_id"] for note in complete.values() if note]
        raise InputError(
            f"{printable(folder)}: holds {len(complete)} runs; give one by its id, such as {ids[0]}, or by its file in "
            f"{printable(folder / 'runs')}"
        )
    return next(iter(complete))


def _is_complete(note: RunNote | None) -> bool:
    return note is not None and "settings" in note


def _of_note(path: Path) -> RunFacts:
    note = read_note(path)
    if note is None or "settings" not in note:
        raise InputError(f"{printable(path)}: is no note of a complete run; give one of OUTPUT/runs")
    evaluation = note.get("evaluation")
    cases = read_cases(path.parents[1] / evaluation) if evaluation else {}
    label = f"{note.get('name')} ({note['run_id']})"
    return RunFacts(label, note["settings"], note.get("data", {}), note.get("figures", {}), cases)
