"""What the runs of a sweep say together: mean and range of each setting, and paired differences between settings."""

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import TypedDict

from pipelines.evaluation.paired_cases import CaseFigures, Difference, holm, paired_differences, read_cases
from pipelines.sweeps.children import Outcome
from pipelines.sweeps.plan import Child, Sweep
from shared_backbones.files import write_rows


class Spread(TypedDict):
    """A figure over the runs of a setting; `std` is None for a single run."""

    mean: float
    std: float | None
    lowest: float
    highest: float
    runs: int


class SettingRow(TypedDict):
    """A setting: its number, its values, how many runs it has, their figures, and those of its ensemble."""

    setting: int
    values: dict[str, str]
    runs: int
    complete: int
    figures: dict[str, Spread]
    ensemble: dict[str, float]


class DifferenceRow(Difference):
    """A setting less another, over the test cases and the runs (of one seed and fold) that both have."""

    setting: int
    against: int
    runs: int
    p_holm: float


class RunRow(TypedDict):
    """A run: its number and setting, and its figures or why it failed."""

    run: int
    setting: int
    seed: int | None
    fold: int | None
    failed: str | None
    figures: dict[str, float]


class SweepTable(TypedDict):
    """What a sweep amounts to; `axes` says what was varied."""

    name: str
    axes: dict[str, str]
    settings: list[SettingRow]
    differences: list[DifferenceRow]
    runs: list[RunRow]


def tabulate(sweep: Sweep, outcomes: Sequence[Outcome], ensembles: Mapping[int, dict[str, float]]) -> SweepTable:
    """The table of a sweep; the first setting is the one that others are compared with.

    Args:
        sweep: The sweep.
        outcomes: What became of its runs, in their order.
        ensembles: Test figures of the ensembles, by the number of their setting.
    """
    numbers = {tuple(setting.items()): number for number, setting in enumerate(sweep.settings, start=1)}
    runs: list[RunRow] = [
        {
            "run": child.number, "setting": numbers[tuple(child.setting.items())], "seed": child.seed,
            "fold": child.fold, "failed": outcome["failed"], "figures": outcome["figures"],
        }
        for child, outcome in zip(sweep.children, outcomes, strict=True)
    ]  # fmt: skip
    return {
        "name": sweep.name,
        "axes": sweep.axes,
        "settings": [
            _setting(number, sweep.of_setting(setting)[0].shown, runs, ensembles.get(number, {}))
            for number, setting in enumerate(sweep.settings, start=1)
        ],
        "differences": _differences(sweep, outcomes),
        "runs": runs,
    }


def as_files(table: SweepTable) -> dict[str, str]:
    """The table as CSV files, by name: `settings.csv`, `differences.csv` and `runs.csv`."""
    keys = list(table["settings"][0]["values"])
    values = {row["setting"]: [row["values"][key] for key in keys] for row in table["settings"]}
    settings = [
        [
            row["setting"],
            *values[row["setting"]],
            figure,
            spread["runs"],
            *_numbers(spread),
            row["ensemble"].get(figure),
        ]
        for row in table["settings"]
        for figure, spread in row["figures"].items()
    ]
    columns = ("setting", "against", "figure", "runs", "cases", "mean", "low", "high", "p", "p_holm")
    differences = [[row[column] for column in columns] for row in table["differences"]]
    figures = list(dict.fromkeys(name for row in table["runs"] for name in row["figures"]))
    runs = [
        [row["run"], row["setting"], *values[row["setting"]], row["seed"], row["fold"], row["failed"] or "complete",
         *(row["figures"].get(name) for name in figures)]
        for row in table["runs"]
    ]  # fmt: skip
    return {
        "settings.csv": _csv(
            ["setting", *keys, "figure", "runs", "mean", "std", "lowest", "highest", "ensemble"], settings
        ),
        "differences.csv": _csv(columns, differences),
        "runs.csv": _csv(["run", "setting", *keys, "seed", "fold", "state", *figures], runs),
    }


def _setting(number: int, values: dict[str, str], runs: Sequence[RunRow], ensemble: dict[str, float]) -> SettingRow:
    own = [run for run in runs if run["setting"] == number]
    names = dict.fromkeys(name for run in own for name in run["figures"])
    return {
        "setting": number,
        "values": values,
        "runs": len(own),
        "complete": sum(run["failed"] is None for run in own),
        "figures": {name: _spread([run["figures"][name] for run in own if name in run["figures"]]) for name in names},
        "ensemble": ensemble,
    }


def _spread(values: Sequence[float]) -> Spread:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "lowest": min(values),
        "highest": max(values),
        "runs": len(values),
    }


def _differences(sweep: Sweep, outcomes: Sequence[Outcome]) -> list[DifferenceRow]:
    """Each setting less the first one, with p-values corrected for the number of settings."""
    cases = {
        child.number: read_cases(sweep.output / outcome["evaluation"])
        for child, outcome in zip(sweep.children, outcomes, strict=True)
        if outcome["evaluation"] is not None
    }
    by_setting = [_by_seed_and_fold(sweep.of_setting(setting), cases) for setting in sweep.settings]
    rows: list[DifferenceRow] = []
    for number, own in enumerate(by_setting[1:], start=2):
        both = [key for key in by_setting[0] if key in own]
        differences = paired_differences(
            [own[key] for key in both],
            [by_setting[0][key] for key in both],
            resamples=sweep.recipe.evaluate.resamples,
            seed=0,
        )
        for row in differences:
            rows.append({**row, "setting": number, "against": 1, "runs": len(both), "p_holm": row["p"]})
    for figure in dict.fromkeys(row["figure"] for row in rows):
        same = [row for row in rows if row["figure"] == figure]
        for row, corrected in zip(same, holm([row["p"] for row in same]), strict=True):
            row["p_holm"] = corrected
    return rows


def _by_seed_and_fold(
    children: Sequence[Child], cases: Mapping[int, CaseFigures]
) -> dict[tuple[int | None, int | None], CaseFigures]:
    return {(child.seed, child.fold): cases[child.number] for child in children if child.number in cases}


def _numbers(spread: Spread) -> list[float | None]:
    return [spread["mean"], spread["std"], spread["lowest"], spread["highest"]]


def _csv(columns: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    table = io.StringIO(newline="")
    write_rows(table, [columns, *rows])
    return table.getvalue()
