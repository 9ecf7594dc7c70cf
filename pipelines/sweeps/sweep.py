"""A sweep from its plan to its table: one run of the tracking store over the runs of its children."""

import contextlib
import json
import os
from collections.abc import Sequence

from pipelines.recipe.shown import shown
from pipelines.report.sweep import sweep_report
from pipelines.runtime import locks
from pipelines.runtime.processes import first_process
from pipelines.sweeps.children import TASK, Outcome, all_there, read_outcomes, run_child, run_children
from pipelines.sweeps.ensemble import evaluate_ensemble, make_ensembles
from pipelines.sweeps.plan import Sweep, varied_keys
from pipelines.sweeps.table import SweepTable, as_files, tabulate
from pipelines.tracking import runs, stores
from pipelines.tracking.stores import shown_uri
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing
from shared_backbones.json_values import Document, Entries

_SHOWN = 3  # figures on a line of the terminal
PARTLY_FAILED = 5


def run_sweep(sweep: Sweep, *, task: int | None = None) -> int:
    """Run a sweep, or one of its runs alone, as the jobs of a scheduler do.

    What earlier starts finished is used again, so that the same command goes on after any interruption.

    Args:
        sweep: The sweep.
        task: Number of the run that is run alone, from 1; the one that ends last makes the table. 0 for the table
            alone, of what the runs have left. By default all runs, and then the table.

    Returns:
        Exit code: 0, or 5 where a run failed.

    Raises:
        InputError: the tracking store or the output folder cannot be used.
        Preempted: the process was asked to stop.
    """
    if os.environ.get(TASK) and not first_process():
        task = int(os.environ[TASK])  # this process was started by a run, to train with it
    uri = stores.tracking_uri()
    if not first_process():
        return _code([run_child(sweep, task or 1, None)])
    if task:
        sweep.child(task)  # which is refused where there is none, before the store is looked at
    stores.open_store(uri)
    if not task:
        return _code(_make_table(sweep, uri, runs_too=task is None))
    outcome = run_child(sweep, task, sweep_run_id(sweep, uri))
    if all_there(sweep):
        _make_table(sweep, uri, runs_too=False)
    return _code([outcome])


def _make_table(sweep: Sweep, uri: str, *, runs_too: bool) -> Sequence[Outcome]:
    """The table and the ensembles of what the runs have left, after all runs where these are made, too."""
    busy = f"the same sweep is being run with this output ({sweep.output}); waiting for what it makes"
    with locks.locked(sweep.output / "locks" / f"sweep-{sweep.name}.lock", busy), _run_of(sweep, uri) as run:
        outcomes = run_children(sweep, run.run_id) if runs_too else read_outcomes(sweep)
        for outcome in outcomes:
            if outcome["failed"] and outcome["run_id"]:
                runs.close_run(uri, outcome["run_id"], "FAILED")  # one that was killed could not do so itself
        models = make_ensembles(sweep, outcomes)
        figures = {number: evaluate_ensemble(sweep, number, model) for number, model in models.items()}
        table = tabulate(sweep, outcomes, figures)
        for model in models.values():
            print(f"ensemble: {printable(model)}")
        _write(sweep, table, run)
    return outcomes


def _code(outcomes: Sequence[Outcome]) -> int:
    return PARTLY_FAILED if any(outcome["failed"] for outcome in outcomes) else 0


def sweep_run_id(sweep: Sweep, uri: str) -> str:
    """Id of the sweep's run in a store, which is made where no run of the sweep has made it yet."""
    note = sweep.folder / "sweep-run.json"
    with locks.locked(sweep.output / "locks" / f"parent-{sweep.name}.lock", "another run makes the sweep's; waiting"):
        with contextlib.suppress(OSError, ValueError):
            known: Document = json.loads(note.read_text(encoding="utf-8"))
            if known["uri"] == shown_uri(uri):
                return str(known["run_id"])
        recipe = sweep.recipe
        experiment = recipe.tracking.experiment
        name, asked = experiment or recipe.domain, experiment is not None
        run_id = runs.run_of_environment(uri, name, asked=asked, parameters=_parameters(sweep))
        run_id = run_id or runs.schedule_run(uri, name, f"{recipe.name} sweep", asked=asked)
        _note(sweep, uri, run_id)
    return run_id


def _note(sweep: Sweep, uri: str, run_id: str) -> None:
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {sweep.output}: cannot be made ({error.strerror}); choose another folder") from None
    with replacing(sweep.folder / "sweep-run.json") as path:
        path.write_text(json.dumps({"run_id": run_id, "uri": shown_uri(uri)}) + "\n", encoding="utf-8")


def _run_of(sweep: Sweep, uri: str) -> runs.Run:
    """The sweep's run: the one that an earlier start made in the same store, or a new one."""
    recipe = sweep.recipe
    run_id = sweep_run_id(sweep, uri)
    run = runs.start_run(
        recipe.tracking.experiment or recipe.domain,
        f"{recipe.name} sweep",
        asked=recipe.tracking.experiment is not None,
        uri=uri,
        parameters=_parameters(sweep),
        tags={"recipe": recipe.name, "domain": recipe.domain, "sweep": sweep.name},
        datasets=(),
        spool=sweep.output / "runs",
        system_metrics=False,
        run_id=run_id,
    )
    if run.run_id != run_id:  # the store has lost it
        _note(sweep, uri, run.run_id)
    return run


def _parameters(sweep: Sweep) -> Entries:
    """What is varied, and what else is shown of the recipe."""
    varied = varied_keys(sweep)

    def without(content: Document, prefix: str) -> Entries:
        return {
            key: without(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in content.items()
            if f"{prefix}{key}" not in varied
        }

    return {"sweep": sweep.axes, **without(shown(sweep.recipe), "")}


def _write(sweep: Sweep, table: SweepTable, run: runs.Run) -> None:
    """Keep the table as JSON, as CSV and as a page, in the sweep's folder and with its run; and print it."""
    page = sweep_report(json.loads(json.dumps(table)), sweep.recipe.name, sweep.recipe.domain)
    texts = {"sweep.json": json.dumps(table, indent=1) + "\n", **as_files(table), "report.html": page}
    for name, text in texts.items():
        with replacing(sweep.folder / name) as path:
            path.write_text(text, encoding="utf-8")
        run.log_artifact(sweep.folder / name, "sweep" if name != "report.html" else "")
    for row in table["settings"]:
        figures = {
            f"{name}_{part}": spread[part]
            for name, spread in row["figures"].items()
            for part in ("mean", "lowest", "highest")
        }
        figures |= {f"{name}_ensemble": value for name, value in row["ensemble"].items()}
        run.log_metrics(figures, row["setting"])
    failed = sum(row["failed"] is not None for row in table["runs"])
    run.set_tag("sweep.failed", str(failed))
    _print(table, failed)
    print(f"table: {printable(sweep.folder / 'settings.csv')}")
    print(f"report: {printable(sweep.folder / 'report.html')}", flush=True)


def _print(table: SweepTable, failed: int) -> None:
    print(f"sweep: {len(table['runs'])} runs, {failed} failed")
    for row in table["settings"]:
        name = " ".join(f"{key}={value}" for key, value in row["values"].items()) or "all runs"
        figures = [
            f"{figure} {spread['mean']:.4g} [{spread['lowest']:.4g}, {spread['highest']:.4g}]"
            for figure, spread in list(row["figures"].items())[:_SHOWN]
        ]
        print(f"  {printable(name)}  {'  '.join(figures) or 'no run is complete'}")
    for row in table["differences"]:
        if row["figure"] == table["differences"][0]["figure"]:
            print(f"  setting {row['setting']} less 1: {row['figure']} {row['mean']:+.4g}, p {row['p_holm']:.3g}")
    for run in table["runs"]:
        if run["failed"]:
            print(f"  failed: run {run['run']}: {run['failed']}")
