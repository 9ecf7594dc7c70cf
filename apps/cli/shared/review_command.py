"""`review` of all programs, and its `collect`: reviewers' verdicts and reports in one table."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.agreement_command import FoldersArgument, agreement
from apps.cli.shared.options import JsonOption, add_verb
from apps.cli.shared.outputs import Outputs, OverwriteOption
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from apps.cli.shared.worklist_command import worklist
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable, spreadsheet_safe
from shared_backbones.work_folders import work_folder

_FORMATS = (".csv", ".parquet", ".json")
_LEFT_OUT = ("reviewer", "report_file", "verdict_file")  # from what a run in MLflow keeps: names of people and files
_WHOLE = ("verdicts", "readers", "flags", "points", "answered", "cannot_tell", "class_points", "class_right")
_REAL = (
    "seconds", "lowest_confidence", "accuracy", "accuracy_margin", "users_accuracy", "users_margin",
    "producers_accuracy", "producers_margin", "mapped_area", "area", "area_margin",
)  # fmt: skip
_WORDS = ("comment", "marks")  # which readers wrote; kept on request


ConsensusOption = Annotated[
    str,
    typer.Option(
        metavar="RULE",
        help="What counts where readers do not agree: worst, majority or adjudicator:NAME. Without a rule they "
        "disagree.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """What a user asks `review collect` for."""

    folders: FoldersArgument
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .csv, .parquet or .json.")]
    log_to_run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_ID",
            help="Run in MLflow to log the table and the figures to, without names and initials. In its registry, the "
            "alias `reviewed` moves to models whose training was accepted, and is taken from others.",
        ),
    ] = None
    overwrite: OverwriteOption = False
    consensus: ConsensusOption = ""
    fixes: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the polygons that readers drew on maps: SCENE.geojson, labels for scene_mapping.",
        ),
    ] = None
    comments: Annotated[bool, typer.Option("--comments", help="Log comments to the run, too.")] = False
    as_json: JsonOption = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False


def add_review(app: typer.Typer) -> typer.Typer:
    """Give a program the commands of `review`, and return their group."""
    group = typer.Typer(help="Verdicts that reviewers saved from reports.")
    app.add_typer(group, name="review")

    @group.callback()
    def review() -> None:
        """Verdicts that reviewers saved from reports."""

    add_verb(group, collect)
    add_verb(group, agreement)
    add_verb(group, worklist)
    return group


def collect(options: CollectOptions) -> int:
    """Match verdicts with reports by number and content hash: a row for each report and reader.

    Verdicts are JSON files with that content, whatever they are called; of several by one reader the latest counts.
    Reports are known by their JSON: *_seg.json (segmentation), robustness.json, report.json (training), *_report.json
    (map). The table has reports with a verdict (reviewed), without one (open), and verdicts without a report (orphan).
    From answers at the points of maps comes a second one, <table>_areas: accuracy, and areas with 95 % intervals.
    """
    from apps.cli.shared.collected_maps import results_of_maps
    from pipelines.evaluation.reviews import judged_trainings, review_figures
    from pipelines.report.verdicts import COLUMNS, collect_reviews

    _check_name(options.output)
    outputs = Outputs.table(options.output, options.overwrite)
    outputs.check()
    collected = collect_reviews(options.folders, options.consensus)
    figures = review_figures(collected, options.consensus)
    summary = {"schema_version": 1, "counts": collected.counts, "figures": figures}
    of_maps = results_of_maps(collected, options.output, options.fixes)
    outputs = Outputs({**outputs.files, **of_maps.files}, options.overwrite)
    outputs.check()
    of_maps.make_folder()
    with outputs.placing() as staged:
        _write_table(staged["table"], collected.rows, options.output.suffix.lower(), COLUMNS)
        if of_maps.areas:
            _write_table(staged["areas"], of_maps.areas, options.output.suffix.lower(), of_maps.columns)
        of_maps.write_fixes(staged)
        outputs.finish(staged, summary)
    aliases: list[str] = []
    if options.log_to_run is not None:
        require("mlflow", "train")
        from pipelines.tracking.reviewed import move_reviewed

        _log(options.log_to_run, collected.rows, {**collected.counts, **figures}, options.comments)
        aliases = move_reviewed(judged_trainings(collected, options.consensus))
    for problem in collected.problems:
        print(f"error: {problem}", file=sys.stderr)
    if options.as_json:
        content = {
            **summary,
            "aliases": aliases,
            "rows": collected.rows,
            "areas": of_maps.areas,
            "problems": collected.problems,
        }
        print(json.dumps(content, indent=2))
    elif not options.quiet:
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in collected.counts.items())
        print("\n".join([f"{printable(options.output)}: {counts}", *of_maps.lines(), *aliases]))
    return PARTLY_FAILED if collected.problems else COMPLETE


def _check_name(output: Path) -> None:
    """Raise an InputError unless a table can have this name."""
    from pipelines.report.verdict_files import REPORTS, looks_like_verdict

    if output.suffix.lower() not in _FORMATS:
        raise InputError(f"{printable(output)}: ends in {printable(output.suffix)!r}; expected {', '.join(_FORMATS)}")
    if looks_like_verdict(output.name) or any(fnmatchcase(output.name, pattern) for pattern in REPORTS):
        raise InputError(
            f"{printable(output)}: a table of that name would be read as a verdict or report; choose another"
        )


def _write_table(
    path: Path, rows: Sequence[Mapping[str, str | int | float | None]], suffix: str, known: Sequence[str]
) -> None:
    """Write rows; in CSV an apostrophe goes before text that a spreadsheet would take for a formula."""
    columns = [column for column in known if not rows or column in rows[0]]
    if suffix == ".json":
        path.write_text(json.dumps(list(rows), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    elif suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([spreadsheet_safe(row[column]) for column in columns] for row in rows)
    else:
        pyarrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
        whole, real = pyarrow.int64(), pyarrow.float64()
        kinds: dict[str, object] = {**dict.fromkeys(_WHOLE, whole), **dict.fromkeys(_REAL, real)}
        schema = pyarrow.schema([(column, kinds.get(column, pyarrow.string())) for column in columns])
        parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows], schema), path)


def _log(
    run_id: str,
    rows: Sequence[Mapping[str, str | int | float | None]],
    figures: Mapping[str, float | None],
    comments: bool,
) -> None:
    from pipelines.report.text import without_paths
    from pipelines.report.verdicts import COLUMNS
    from pipelines.tracking.runs import log_to_run

    left_out = _LEFT_OUT if comments else (*_LEFT_OUT, *_WORDS)
    kept = [{key: without_paths(value) for key, value in row.items() if key not in left_out} for row in rows]
    with work_folder() as folder:
        table = folder / "reviews.csv"
        _write_table(table, kept, ".csv", COLUMNS)
        known = {f"review.{name}": value for name, value in figures.items() if value is not None}
        log_to_run(run_id, known, [table], folder="review")
