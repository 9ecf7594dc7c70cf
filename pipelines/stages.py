"""The stages of a recipe, from raw files to a registered model, each found again by what it was made from."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.data.local_copy import local_copy
from pipelines.kinds.kind import find_kind
from pipelines.recipe.recipe import STAGES, Recipe
from pipelines.recipe.shown import shown, shown_model
from pipelines.report.results import read_summary
from pipelines.report.training import training_content, training_report
from pipelines.runtime import preemption
from pipelines.runtime.processes import first_process, launcher, tags
from pipelines.tracking import registry, runs, stores
from shared_backbones.card import read_card
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, replacing
from shared_backbones.json_values import Document

DONE = "done.json"
LOG = "DOMAIN_VISION_LOG"
"""Variable with the path of the job's log, which is kept with its run."""


@dataclass
class Job:
    """A recipe on its way through the stages.

    Attributes:
        recipe: Recipe to run.
        kind: What the stages do for the recipe's kind of data.
        output: Folder of everything that is made.
        stages: Stages to run.
        restart: Stages whose earlier results are not used.
        uri: Address of the tracking store.
        made: Folder of each stage's results.
        prepared: Prepared data, opened.
        summary: Summary of the evaluation.
    """

    recipe: Recipe
    kind: Any
    output: Path
    stages: Sequence[str]
    restart: Collection[str]
    uri: str
    made: dict[str, Path] = field(default_factory=dict)
    prepared: Any = None
    summary: Document | None = None

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.made["train"] / "model"

    @functools.cached_property
    def model_digest(self) -> str:
        """Digest of the trained model's whole folder, read once: nothing changes it after training."""
        return folder_digest(self.model)

    def folder(self, stage: str) -> Path:
        """The folder of a stage's results, named by a hash of its inputs; emptied under `restart`."""
        content = json.dumps(self.inputs(stage), sort_keys=True, default=str).encode()
        folder = self.output / stage / hashlib.sha256(content).hexdigest()[:12]
        if stage in self.restart and first_process():
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.made[stage] = folder
        return folder

    def inputs(self, stage: str) -> Document:
        """Everything that decides a stage's result: the one place where the stages say what they are made from."""
        recipe, kind = self.recipe, self.kind
        if stage == "prepare":
            return {"settings": kind.preparation_settings(), "sources": kind.identify(kind.find_sources())}
        if stage == "train":
            return {
                "data": self.prepared.training_digest(),
                "batches": kind.batch_settings(),
                "model": shown_model(recipe),
                "train": recipe.train.model_dump(exclude={"threads", "checkpoint_every", "devices", "local_copy"}),
                "seed": recipe.seed,
                "card": recipe.card,
            }
        if stage == "evaluate":
            return {
                "model": self.model_digest,
                "settings": recipe.evaluate.model_dump(),
                "data": kind.evaluation_settings(),
                "cases": kind.identify(kind.test_sources()),
                "seed": recipe.seed,
            }
        if stage == "report":
            return {
                "recipe": shown(recipe),
                "model": self.model_digest,
                "evaluation": folder_digest(self.made["evaluate"]) if self.summary is not None else None,
            }
        return {"model": self.model_digest, "as": recipe.register_as.model_dump(), "store": self.uri}


def folder_digest(folder: Path) -> str:
    """Digest of all files of a folder, by name and content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def run_stages(recipe: Recipe, stages: Sequence[str] | None = None, *, restart: Collection[str] = ()) -> Job:
    """Run stages of a recipe, in their order; results of an earlier run from the same inputs are used again.

    Args:
        recipe: what to run.
        stages: some of `prepare`, `train`, `evaluate`, `report`, `register`; by default all that apply. A stage that is
            left out must have been run before, where a later one needs it.
        restart: stages whose earlier results are not used.

    Returns:
        The job, with what was made.

    Raises:
        InputError: something in the recipe or the data is wrong, or the tracking store cannot be used.
        Preempted: the process was asked to stop, and has kept what is done.
    """
    if restart and launcher():
        raise InputError("--restart: would begin anew each time a scheduler starts the job again; leave it out")
    chosen = [stage for stage in STAGES if stage in (STAGES if stages is None else stages)]
    for stage in [*(stages or ()), *restart]:
        if stage not in STAGES:
            raise InputError(f"stage {stage!r} is unknown; expected some of: {', '.join(STAGES)}")
    init = recipe.model.init
    if init is not None and init.startswith(("models:/", "runs:/")):
        section = recipe.model.model_copy(update={"init": str(registry.resolve_model(init))})
        recipe = recipe.model_copy(update={"model": section})
    kind = find_kind(recipe)
    if kind.evaluates and "evaluate" in chosen:
        kind.test_sources()  # if there is none, that shows now, too
    output = Path(recipe.output or f"runs/{recipe.name}")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {output}: cannot be made ({error.strerror}); choose another folder") from None
    job = Job(recipe, kind, output, chosen, restart, stores.tracking_uri())
    if first_process():
        stores.open_store(job.uri)  # an unreachable store shows now, not after hours of training
    _prepare(job)
    with _tracked(job) as run:
        _train(job, run)
        if not first_process():
            return job
        with preemption.leaving_at_once():
            if kind.evaluates:
                _evaluate(job, run)
            _report(job, run)
            _register(job, run)
    return job


def _prepare(job: Job) -> None:
    kind, sources, folder = job.kind, job.kind.find_sources(), job.folder("prepare")
    if not _finished(folder):
        if "prepare" not in job.stages:
            raise InputError("stage prepare was not finished before from these inputs; add it to --stages")
        _say(f"prepare: {len(sources)} cases")
        with preemption.leaving_at_once():
            if first_process():
                kind.prepare(sources, folder)
                _finish(folder)
            else:
                _wait_for(folder)
    job.prepared = kind.open(folder)
    for line in kind.notices(job.prepared):
        _say(line)


def _train(job: Job, run: "runs.Run | None") -> None:
    recipe, folder = job.recipe, job.folder("train")
    if not _finished(folder):
        if "train" not in job.stages:
            raise InputError("stage train was not finished before with these settings; add it to --stages")
        prepared = job.prepared
        if recipe.train.local_copy:
            with preemption.leaving_at_once():
                prepared = local_copy(prepared, recipe.train.local_copy)
        _say(f"train: {recipe.model.architecture}")
        job.kind.train(prepared, folder, None if run is None else run.log_metrics)
        if first_process():
            _finish(folder)
    _say(f"model: {job.model}")


def _evaluate(job: Job, run: "runs.Run | None") -> None:
    kind, sources, folder = job.kind, job.kind.test_sources(), job.folder("evaluate")
    if not _finished(folder):
        if "evaluate" not in job.stages:
            return
        _say(f"evaluate: {len(sources)} cases")
        kind.evaluate(job.model, sources, folder)
        _finish(folder)
    job.summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for line in kind.lines(job.summary):
        _say(line)
    if run is not None:
        run.log_metrics(kind.figures(job.summary), read_card(job.model)["training"]["steps"])
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name != DONE and path.suffix != ".tif":  # maps stay where they are
                run.log_artifact(path, "evaluation")


def _report(job: Job, run: "runs.Run | None") -> None:
    if "report" not in job.stages:
        return
    history = job.made["train"] / "history.jsonl"
    folder = job.folder("report")
    page = folder / "report.html"
    made = sorted(job.made["evaluate"].iterdir()) if "evaluate" in job.made else []
    figures = [path for path in made if path.suffix in {".svg", ".png"}]
    summary = read_summary(job.made["evaluate"]) if job.summary else None
    content = training_content(shown(job.recipe), read_card(job.model), history, summary)
    texts = {page: training_report(content, figures), page.with_suffix(".json"): json.dumps(content, indent=1) + "\n"}
    for target, text in texts.items():
        with replacing(target) as path:
            path.write_text(text, encoding="utf-8")
    _say(f"report: {page}")
    if run is not None:
        run.log_artifact(page)


def _register(job: Job, run: "runs.Run | None") -> None:
    if "register" not in job.stages or run is None:
        return
    folder, section = job.folder("register"), job.recipe.register_as
    if _finished(folder):
        return
    name = section.name or job.recipe.name
    version = registry.register(run, job.model, name, section.alias, job.kind.example())
    _finish(folder, {"name": name, "version": version})
    _say(f"registered: models:/{name}@{section.alias} (version {version})")


@contextlib.contextmanager
def _tracked(job: Job) -> "Iterator[runs.Run | None]":
    """One run of the tracking store for a job, however often it is started again and however many processes it has."""
    if not first_process():
        yield None
        return
    recipe, uri = job.recipe, job.uri
    content = json.dumps(recipe.model_dump(), sort_keys=True, default=str).encode()
    note = job.output / "runs" / f"{hashlib.sha256(content).hexdigest()[:12]}.json"
    known = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    with runs.start_run(
        recipe.tracking.experiment or recipe.domain,
        recipe.name,
        uri=uri,
        parameters=shown(recipe),
        tags={"recipe": recipe.name, "domain": recipe.domain, **tags()},
        datasets=job.kind.dataset_records(job.made["prepare"]),
        spool=job.output / "runs",
        system_metrics=recipe.tracking.system_metrics,
        run_id=known.get("run_id") if known.get("uri") == uri else None,
    ) as run:
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps({"run_id": run.run_id, "uri": uri}), encoding="utf-8")
        try:
            yield run
        finally:
            if os.environ.get(LOG):
                run.log_artifact(Path(os.environ[LOG]), "logs")


def _wait_for(folder: Path) -> None:
    """Until the first process has finished a folder; should that one fail, whoever started both ends this one."""
    said = time.monotonic()
    while not _finished(folder):
        time.sleep(0.2)
        if time.monotonic() - said > 60:
            said = time.monotonic()
            print(f"waiting for {folder}: if the first process has finished it, nodes do not share it", flush=True)


def _finished(folder: Path) -> bool:
    return (folder / DONE).exists()


def _finish(folder: Path, content: Document | None = None) -> None:
    with replacing(folder / DONE) as path:
        path.write_text(json.dumps(content or {}), encoding="utf-8")


def _say(line: str) -> None:
    if first_process():
        print(line, flush=True)
