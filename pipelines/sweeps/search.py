"""A search over a recipe's settings by Optuna, whose journal is a file: what an earlier start has tried is known."""

import contextlib
import hashlib
import io
import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipelines.kinds.kind import find_kind
from pipelines.outcome import figures_of
from pipelines.recipe.loading import load_recipe
from pipelines.recipe.recipe import STAGES, Recipe
from pipelines.recipe.search import SearchedValues, SearchSection
from pipelines.recipe.section import Domain
from pipelines.recipe.shown import is_shown, shown
from pipelines.report.sweep import search_report
from pipelines.runtime import locks, preemption
from pipelines.runtime.processes import first_process
from pipelines.stages import run_stages
from pipelines.tracking import runs, stores
from pipelines.tracking.notes import read_note, write_note
from pipelines.tracking.stores import shown_uri
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable, replacing, write_rows
from shared_backbones.json_values import Entries, Json

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_TRIED = ("prepare", "train")
_FAILED_IN_A_ROW = 5


@dataclass(frozen=True)
class Search:
    """A search.

    Attributes:
        source: Name or path of the recipe.
        overrides: Changes that all trials share.
        domain: Program that asks.
        recipe: The recipe with its section `search`.
        section: That section.
        monitor: Validation figure that trials are judged on.
        folder: Folder of the journal, the table and the page.
    """

    source: str
    overrides: tuple[str, ...]
    domain: Domain | None
    recipe: Recipe
    section: SearchSection
    monitor: str
    folder: Path

    def trial(self, values: Mapping[str, object]) -> Recipe:
        """The recipe of a trial."""
        changes = [f"{key}={_typed(value)}" for key, value in values.items()]
        with contextlib.redirect_stderr(io.StringIO()):  # notes on old names were printed before
            return load_recipe(self.source, [*self.overrides, *changes, "search=null"], self.domain)


def plan_search(source: str, overrides: Sequence[str], domain: Domain | None = None) -> Search:
    """A search, both ends of each range of which and all choices are tried on the recipe.

    Raises:
        InputError: the recipe has no search space, or one that does not suit it, or its data have no validation.
    """
    require("optuna", "search")
    recipe = load_recipe(source, overrides, domain)
    section = recipe.search
    if section is None:
        raise InputError(f"recipe {recipe.name}: has no section search; add one with trials and space")
    monitor = find_kind(recipe).monitor
    if not monitor:
        raise InputError(f"recipe {recipe.name}: no figure is validated, by which trials could be judged")
    content = [recipe.model_dump(exclude={"search"}), section.model_dump(exclude={"trials"})]
    name = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]
    folder = Path(recipe.output or f"runs/{recipe.name}") / "searches" / name
    search = Search(source, tuple(overrides), domain, recipe, section, monitor, folder)
    for key, values in section.space.items():
        for value in values.ends:
            search.trial({key: value})
    return search


def run_search(search: Search, stages: Sequence[str] | None = None) -> None:
    """Run the trials that are left, and take the best one through all stages.

    Args:
        search: The search.
        stages: Stages of the best trial; by default all but `register`.

    Raises:
        InputError: the journal, the tracking store or the output folder cannot be used, or no trial is complete.
        Preempted: the process was asked to stop.
    """
    if not first_process():
        raise InputError("--search: trials train in one process each; start it without torchrun or srun")
    uri = stores.tracking_uri()
    stores.open_store(uri)
    try:
        search.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{search.folder}: cannot be made ({error.strerror}); choose another output") from None
    busy = f"the same search is being run with this output ({search.folder}); waiting for what it makes"
    with locks.locked(search.folder / "lock", busy), _run_of(search, uri) as run:
        study = _study(search)
        _take_up(study)
        _run_trials(search, study, run.run_id)
        best = _best(study)
        recipe = search.trial(_values(best, search.section))
        print(f"best: trial {best.number}, {search.monitor} {best.value:.4g}", flush=True)
        _write(search, study, recipe, run)
        tags = {"mlflow.parentRunId": run.run_id, "search.trial": str(best.number)}
        run_stages(recipe, tuple(stages or STAGES[:-1]), tags=tags)


def _run_of(search: Search, uri: str) -> runs.Run:
    """The search's run in the tracking store."""
    recipe, note = search.recipe, search.folder / "search-run.json"
    known = read_note(note)
    run = runs.start_run(
        recipe.tracking.experiment or recipe.domain,
        f"{recipe.name} search",
        asked=recipe.tracking.experiment is not None,
        uri=uri,
        parameters={"search": _shown_section(search.section), **shown(recipe)},
        tags={"recipe": recipe.name, "domain": recipe.domain, "search": search.folder.name},
        datasets=(),
        spool=search.folder.parent.parent / "runs",
        system_metrics=False,
        run_id=known["run_id"] if known and known["uri"] == shown_uri(uri) else None,
    )
    write_note(note, {"run_id": run.run_id, "uri": shown_uri(uri)})
    os.environ.pop("MLFLOW_RUN_ID", None)  # the search's, not a trial's
    return run


def _study(search: Search) -> "optuna.Study":
    """The study of the journal, with the sampler that its next trial is drawn by."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(search.folder / "journal.log")))
    pruners = {"none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner}
    study = optuna.create_study(
        storage=storage,
        study_name=search.folder.name,
        direction="maximize",
        pruner=pruners[search.section.pruner](),
        load_if_exists=True,
    )
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    # by what is done: a search that goes on draws as one that was never interrupted
    study.sampler = samplers[search.section.sampler](seed=search.recipe.seed + len(_done(study)))
    return study


def _take_up(study: "optuna.Study") -> None:
    """Let trials that were interrupted be tried first: their training goes on from its last checkpoint."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=TrialState.FAIL)


def _done(study: "optuna.Study") -> "list[FrozenTrial]":
    """Trials that are complete or were ended early."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])


def _best(study: "optuna.Study") -> "FrozenTrial":
    from optuna.trial import TrialState

    if not study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        raise InputError("search: no trial is complete; the lines above say why")
    return study.best_trial


def _run_trials(search: Search, study: "optuna.Study", parent: str) -> None:
    """Trials, each in a process of its own, until there are enough."""
    failed = 0
    while len(_done(study)) < search.section.trials:
        before = len(_done(study))
        process = get_context("spawn").Process(target=_serve, args=(search, parent))
        process.start()
        try:
            with preemption.leaving_at_once():
                process.join()
        except (preemption.Preempted, KeyboardInterrupt):
            process.terminate()
            process.join()
            raise
        if process.exitcode == preemption.EXIT_CODE:
            raise preemption.Preempted
        failed = 0 if len(_done(study)) > before else failed + 1
        if failed:
            _give_up(study)
        if failed == _FAILED_IN_A_ROW:
            raise InputError(f"search: {failed} trials in a row failed; the lines above say why")


def _give_up(study: "optuna.Study") -> None:
    """Note a trial whose process died as failed."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        print(f"error: trial {trial.number}: its process was killed, most likely for want of memory", file=sys.stderr)
        study.tell(trial.number, state=TrialState.FAIL)


def _serve(search: Search, parent: str) -> None:
    """Run trials in this process until there are enough or one fails."""
    with preemption.listening():
        try:
            while True:
                study = _study(search)
                if len(_done(study)) >= search.section.trials or not _run_trial(search, study, parent):
                    return
        except (preemption.Preempted, KeyboardInterrupt):
            sys.exit(preemption.EXIT_CODE)


def _run_trial(search: Search, study: "optuna.Study", parent: str) -> bool:
    """Draw a trial, train it, and tell the study its figure; whether it did not fail."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    trial = study.ask()
    values = {key: _draw(trial, key, space) for key, space in search.section.space.items()}
    label = " ".join(f"{key}={_shown(search.section, key, value)}" for key, value in values.items())
    print(f"trial {trial.number}: {printable(label)}", flush=True)

    def watch(figures: Mapping[str, float], step: int) -> None:
        if search.monitor in figures:
            trial.report(figures[search.monitor], step)
            if trial.should_prune():
                raise TrialPruned

    tags = {"mlflow.parentRunId": parent, "search.trial": str(trial.number)}
    recipe = search.trial(values)
    try:
        job = run_stages(recipe, _TRIED, tags=tags, watch=watch)
        study.tell(trial, figures_of(job)[search.monitor])
    except TrialPruned:
        print(f"trial {trial.number}: ended early, as it is worse than the median", flush=True)
        study.tell(trial, state=TrialState.PRUNED)
        note = read_note(search.folder.parent.parent / "runs" / f"{recipe.digest}.json")
        if note is not None:
            runs.close_run(stores.tracking_uri(), note["run_id"], "KILLED")  # it has not failed
    except Exception as problem:
        if not isinstance(problem, InputError):
            traceback.print_exc()
        print(f"error: trial {trial.number}: {printable(str(problem))}", file=sys.stderr, flush=True)
        study.tell(trial, state=TrialState.FAIL)
        return False
    return True


def _draw(trial: "optuna.Trial", key: str, space: SearchedValues) -> Json:
    """A value of a key; a choice is drawn as its text, so that lists can be chosen, too."""
    low, high = space.low, space.high
    if low is None or high is None:
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in space.choices or ()]))
    if isinstance(low, int) and isinstance(high, int) and not isinstance(space.step, float):
        return trial.suggest_int(key, low, high, log=space.log, step=space.step or 1)
    return trial.suggest_float(key, low, high, log=space.log, step=space.step)


def _values(trial: "FrozenTrial", section: SearchSection) -> dict[str, Json]:
    """The values of a trial, by key."""
    return {
        key: json.loads(value) if section.space[key].choices is not None else value
        for key, value in trial.params.items()
    }


def _typed(value: object) -> str:
    """A value as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _shown(section: SearchSection, key: str, value: object) -> str:
    """A value as tables, logs and the tracking store have it: `value 2` where a choice names a folder or a file."""
    choices = section.space[key].choices or ()
    return f"value {choices.index(value) + 1}" if not is_shown(key) and value in choices else _typed(value)


def _shown_section(section: SearchSection) -> Entries:
    """The section without the number of trials, as the tracking store has it."""
    content: Entries = section.model_dump(exclude={"trials"})
    for key, values in section.space.items():
        if values.choices is not None:
            content["space"][key]["choices"] = [
                choice if is_shown(key) else _shown(section, key, choice) for choice in values.choices
            ]
    return content


def _write(search: Search, study: "optuna.Study", best: Recipe, run: runs.Run) -> None:
    """Keep the trials as a table and a page, and the best trial's recipe."""
    keys = list(search.section.space)
    rows: list[list[str | float | None]] = [
        [
            trial.number,
            trial.state.name.lower(),
            trial.value,
            *(_shown(search.section, key, values.get(key)) for key in keys),
        ]
        for trial in study.get_trials(deepcopy=False)
        for values in [_values(trial, search.section)]
    ]
    table = io.StringIO(newline="")
    write_rows(table, [["trial", "state", search.monitor, *keys], *rows])
    page = search_report(search.monitor, keys, rows, search.recipe.name, search.recipe.domain)
    content = yaml.safe_dump(best.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    for name, text in {"trials.csv": table.getvalue(), "report.html": page, "best.yaml": content}.items():
        with replacing(search.folder / name) as path:
            path.write_text(text, encoding="utf-8")
        if name != "best.yaml":  # which names folders
            run.log_artifact(search.folder / name)
    run.log_metrics({f"{search.monitor}_best": study.best_value}, study.best_trial.number)
    print(f"trials: {printable(search.folder / 'trials.csv')}")
    print(f"recipe: {printable(search.folder / 'best.yaml')}", flush=True)
