"""The page of a sweep: mean and range of each setting, paired differences, and all runs."""

import math
from collections.abc import Mapping, Sequence

from pipelines.report.page import render_page
from pipelines.report.sections import Block, Bullets, Cell, Column, Page, Section, Table, Text
from pipelines.report.text import as_text, part_at, rows_at, text_at, value_at, without_paths, words
from shared_backbones.json_values import Document, Json

_FIGURES = 6  # columns of a table
_COMPARED = (
    "Each setting less setting 1, over the test cases that both have. Differences are taken between runs of the same "
    "seed and fold, and averaged for each case. The interval contains 95\u00a0% of bootstrap means over cases; p is of "
    "the sign-flip test, corrected by Holm's method for the number of settings. It speaks for these cases, and for "
    "training again only as far as there are several seeds."
)


def sweep_report(table: Document, name: str, program: str) -> str:
    """Build the page. It is one file, and nothing is fetched.

    Args:
        table: A `pipelines.sweeps.table.SweepTable`.
        name: Name of the recipe.
        program: Program whose domain the recipe is of.

    Returns:
        The page's HTML, to be written as UTF-8.
    """
    table = without_paths(table)
    runs, settings = rows_at(table, "runs"), rows_at(table, "settings")
    failed = [f"Run {run['run']}: {run['failed']}" for run in runs if run["failed"]]
    differences = rows_at(table, "differences")
    page = Page(
        title=f"{name}: sweep",
        kind="Sweep",
        heading=name,
        lead=", ".join(f"{key}: {value}" for key, value in part_at(table, "axes").items()),
        facts=[("Settings", str(len(settings))), ("Runs", str(len(runs))), ("Failed", str(len(failed)))],
        sections=[
            *([Section("failed", "Failed runs", [Bullets(failed, alert=True)], contents="Failed")] if failed else []),
            Section("settings", "Settings", [_settings(settings)], contents="Settings"),
            *([_differences(differences)] if differences else []),
            Section("runs", "Runs", [_runs(runs)], contents="Runs"),
        ],
        footer="Every figure of this page is in sweep.json and the CSV files beside it. The page loads nothing.",
        medical=program == "medvision",
    )
    return render_page(page)


def _settings(rows: Sequence[Mapping[str, Json]]) -> Table:
    """Mean over the range of each figure; a row for each setting."""
    figures = _names(rows)
    keys = list(part_at(rows[0], "values"))
    columns = [*map(Column, ("Setting", *keys)), Column("Runs", numeric=True)]
    shown = [
        [
            Cell(str(row["setting"])),
            *(Cell(text_at(row, "values", key)) for key in keys),
            Cell(f"{row['complete']} of {row['runs']}"),
            *(_spread(row, figure) for figure in figures),
        ]
        for row in rows
    ]
    for number, row in reversed(list(enumerate(rows))):
        if part_at(row, "ensemble"):
            own = [Cell(as_text(value_at(row, "ensemble", figure))) for figure in figures]
            shown.insert(
                number + 1, [Cell(str(row["setting"]), rest=" ensemble"), *(Cell() for _ in keys), Cell(), *own]
            )
    remark = "Mean over the runs, and below it the lowest and the highest run."
    return Table([*columns, *(Column(words(name), numeric=True) for name in figures)], shown, remark=remark)


def _spread(row: Mapping[str, Json], figure: str) -> Cell:
    mean, low, high = (value_at(row, "figures", figure, part) for part in ("mean", "lowest", "highest"))
    return Cell(as_text(mean), remark="" if mean is None else f"{as_text(low)} to {as_text(high)}")


def _differences(rows: Sequence[Mapping[str, Json]]) -> Section:
    columns = [
        Column("Setting"), Column("Figure"),
        *(Column(name, numeric=True) for name in ("Runs", "Cases", "Difference", "95 % interval", "p", "p, corrected")),
    ]  # fmt: skip
    shown = [
        [
            Cell(f"{row['setting']} less {row['against']}"),
            Cell(words(str(row["figure"]))),
            Cell(str(row["runs"])),
            Cell(str(row["cases"])),
            Cell(as_text(row["mean"])),
            Cell("" if row["low"] is None else f"{as_text(row['low'])} to {as_text(row['high'])}"),
            Cell(as_text(row["p"])),
            Cell(as_text(row["p_holm"])),
        ]
        for row in rows
    ]
    blocks: list[Block] = [Text(_COMPARED), Table(columns, shown)]
    return Section("differences", "Paired differences", blocks, contents="Differences")


def _runs(rows: Sequence[Mapping[str, Json]]) -> Table:
    figures = _names(rows)
    columns = [
        Column("Run"),
        *(Column(name, numeric=True) for name in ("Setting", "Seed", "Fold", *map(words, figures))),
    ]
    shown = [
        [
            Cell(str(row["run"]), alert=row["failed"] is not None, rest=" failed" if row["failed"] else ""),
            Cell(str(row["setting"])),
            *(Cell(as_text(row[name])) for name in ("seed", "fold")),
            *(Cell(as_text(value_at(row, "figures", figure))) for figure in figures),
        ]
        for row in rows
    ]
    return Table(columns, shown)


def _names(rows: Sequence[Mapping[str, Json]]) -> list[str]:
    """Figures that are shown: the first ones, as the others are of single classes."""
    return list(dict.fromkeys(name for row in rows for name in part_at(row, "figures")))[:_FIGURES]


def search_report(
    monitor: str, keys: Sequence[str], trials: Sequence[Sequence[str | float | None]], name: str, program: str
) -> str:
    """Build the page of a search: its trials, the best first. It is one file, and nothing is fetched.

    Args:
        monitor: Validation figure that trials are judged on.
        keys: Keys of the recipe that were searched.
        trials: For each trial its number, state, figure (None where it has none) and the values of the keys.
        name: Name of the recipe.
        program: Program whose domain the recipe is of.

    Returns:
        The page's HTML, to be written as UTF-8.
    """
    ordered = sorted(without_paths(list(trials)), key=lambda row: -row[2] if isinstance(row[2], float) else math.inf)
    columns = [Column("Trial"), Column("State"), Column(words(monitor), numeric=True), *map(Column, keys)]
    rows = [[Cell(str(row[0])), Cell(str(row[1])), *(Cell(as_text(value)) for value in row[2:])] for row in ordered]
    page = Page(
        title=f"{name}: search",
        kind="Search",
        heading=name,
        lead=f"Trials are judged on {words(monitor)}; no test case was looked at.",
        facts=[("Trials", str(len(trials)))],
        sections=[Section("trials", "Trials", [Table(columns, rows)], contents="Trials")],
        footer="The trials are in trials.csv beside this page, and the best one's recipe in best.yaml.",
        medical=program == "medvision",
    )
    return render_page(page)
