"""The stages of a recipe, from raw files to a registered model, each found again by what it was made from."""

import contextlib
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.data.local_copy import local_copy
from pipelines.kinds.kind import find_kind
from pipelines.outcome import Watch, sink_of
from pipelines.recipe.recipe import STAGES, Recipe
from pipelines.recipe.shown import shown, shown_model
from pipelines.report.results import read_summary
from pipelines.report.training import training_content, training_report
from pipelines.runtime import locks, preemption
from pipelines.runtime.processes import first_process, launcher
from pipelines.tracked import tracked
from pipelines.tracking import registry, runs, stores
from pipelines.tracking.stores import shown_uri
from pipelines.training.outcome import HISTORY, Diverged, read_lines
from shared_backbones.card import read_card
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, replacing
from shared_backbones.json_values import Document
from shared_backbones.work_folders import is_work, sweep

DONE = "done.json"
_NO_RESULT = {"threads", "checkpoint_every", "log_every", "devices", "local_copy"}
"""Keys of the section `train` that decide no result."""


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
        tags: Tags of the run, beside those of every run.
        watch: Function that is given each validation's figures and its step, and may end the training by an error.
        run_id: Id of the run, once there is one.
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
    tags: Mapping[str, str] = field(default_factory=dict)
    watch: Watch | None = None
    run_id: str | None = None
    made: dict[str, Path] = field(default_factory=dict)
    prepared: Any = None
    summary: Document | None = None

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.made["train"] / "model"

    @property
    def last(self) -> int:
        """Number of the last stage to run: those after it are not looked at."""
        return max(map(STAGES.index, self.stages), default=0)

    @functools.cached_property
    def model_digest(self) -> str:
        """Digest of the trained model's whole folder, read once: nothing changes it after training."""
        return folder_digest(self.model)

    def folder(self, stage: str) -> Path:
        """The folder of a stage's results, named by a hash of its inputs."""
        if stage not in self.made:
            content = json.dumps(self.inputs(stage), sort_keys=True, default=str).encode()
            folder = self.output / stage / hashlib.sha256(content).hexdigest()[:12]
            folder.mkdir(parents=True, exist_ok=True)
            self.made[stage] = folder
        return self.made[stage]

    def lock(self, stage: str) -> Path:
        """The file of a stage's lock."""
        return self.output / "locks" / f"{stage}-{self.folder(stage).name}.lock"

    @contextlib.contextmanager
    def alone(self, stage: str) -> Iterator[Path]:
        """The folder of a stage, for this run alone: without what a killed one left, and empty under `restart`."""
        folder = self.folder(stage)
        with locks.locked(self.lock(stage), f"{stage}: another run is at it in {folder}; waiting for what it makes"):
            for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
                sweep(place)
            if stage in self.restart:
                shutil.rmtree(folder)
                folder.mkdir()
            yield folder

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
                "init": kind.init_digest(),
                "train": recipe.train.model_dump(exclude=_NO_RESULT),
                "seed": recipe.seed,
                "card": kind.card(self.prepared),
            }
        if stage == "evaluate":
            return {
                "model": self.model_digest,
                "settings": recipe.evaluate.model_dump(),
                "data": {**kind.evaluation_settings(), "skip_unreadable": kind.skips_unreadable()},
                "cases": kind.identify(kind.test_sources()),
                "seed": recipe.seed,
            }
        if stage == "report":
            return {
                "recipe": shown(recipe),
                "model": self.model_digest,
                "evaluation": folder_digest(self.made["evaluate"]) if self.summary is not None else None,
            }
        name = recipe.register_as.name or recipe.name
        return {
            "model": self.model_digest,
            "name": name,
            "alias": recipe.register_as.alias,
            "store": shown_uri(self.uri),
        }


def folder_digest(folder: Path) -> str:
    """Digest of all files of a folder, by name and content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not is_work(path.relative_to(folder)))
    content = [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def run_stages(
    recipe: Recipe,
    stages: Sequence[str] | None = None,
    *,
    restart: Collection[str] = (),
    tags: Mapping[str, str] | None = None,
    watch: Watch | None = None,
) -> Job:
    """Run stages of a recipe, in their order; results of an earlier run from the same inputs are used again.

    Args:
        recipe: what to run.
        stages: some of `prepare`, `train`, `evaluate`, `report`, `register`; by default all that apply. A stage that is
            left out must have been run before, where a later one needs it.
        restart: stages whose earlier results are not used.
        tags: tags of the run, such as the sweep that it belongs to.
        watch: function that is given figures of the training and their step, and may end it by an error.

    Returns:
        The job, with what was made.

    Raises:
        InputError: something in the recipe or the data is wrong, or the tracking store cannot be used.
        Preempted: the process was asked to stop, and has kept what is done.
    """
    job = _planned(recipe, STAGES if stages is None else stages, restart)
    job.tags, job.watch = tags or {}, watch
    if first_process():
        stores.open_store(job.uri)  # an unreachable store shows now, not after hours of training
    _prepare(job)
    if job.last and "train" not in job.stages and not _finished(job.folder("train")):
        raise InputError("stage train was not finished before with these settings; add it to --stages")
    with tracked(job) as run:
        for number, stage in enumerate((_train, _evaluate, _report, _register), start=1):
            if number <= job.last and (first_process() or stage is _train):
                stage(job, run)
    return job


def _planned(recipe: Recipe, stages: Sequence[str], restart: Collection[str]) -> Job:
    """The job, once all is checked that can be before anything is made."""
    if restart and launcher():
        raise InputError("--restart: would begin anew each time a scheduler starts the job again; leave it out")
    for stage in [*stages, *restart]:
        if stage not in STAGES:
            raise InputError(f"stage {stage!r} is unknown; expected some of: {', '.join(STAGES)}")
    init = recipe.model.init
    if init is not None and init.startswith(("models:/", "runs:/")):
        section = recipe.model.model_copy(update={"init": str(registry.resolve_model(init))})
        recipe = recipe.model_copy(update={"model": section})
    kind = find_kind(recipe)
    if kind.evaluates and "evaluate" in stages:
        kind.test_sources()  # if there is none, that shows now, too
    output = Path(recipe.output or f"runs/{recipe.name}")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {output}: cannot be made ({error.strerror}); choose another folder") from None
    return Job(recipe, kind, output, stages, restart, stores.tracking_uri())


def _prepare(job: Job) -> None:
    kind, sources = job.kind, job.kind.find_sources()
    with preemption.leaving_at_once():
        if first_process():
            with job.alone("prepare") as folder:
                if not _finished(folder):
                    if "prepare" not in job.stages:
                        raise InputError("stage prepare was not finished before from these inputs; add it to --stages")
                    _say(f"prepare: {len(sources)} cases")
                    kind.prepare(sources, folder)
                    _finish(folder)
        else:
            _wait_for(job.folder("prepare"))
    job.prepared = kind.open(job.folder("prepare"))
    kind.check_left_out(job.prepared)
    for line in kind.notices(job.prepared):
        _say(line)


def _train(job: Job, run: "runs.Run | None") -> None:
    folder = job.folder("train")
    if not first_process():
        if _is_to_train(job):
            _fit(job, folder, None)
        return
    with job.alone("train"):
        if not _finished(folder):
            _say(f"train: {job.recipe.model.architecture}")
            for line in job.kind.label_warnings(job.prepared):
                _say(f"warning: {line}")
            _fit(job, folder, run)
            _finish(folder, None if run is None else {"run_id": run.run_id, "experiment_id": run.experiment_id})
        elif run is not None:
            run.show_training(read_lines(folder / HISTORY), json.loads((folder / DONE).read_text(encoding="utf-8")))
    _say(f"model: {job.model}")


def _fit(job: Job, folder: Path, run: "runs.Run | None") -> None:
    prepared, disk = job.prepared, job.recipe.train.local_copy
    if disk:
        with preemption.leaving_at_once():
            prepared = local_copy(prepared, disk)
    try:
        job.kind.train(prepared, folder, sink_of(run, job.watch))
    except Diverged as problem:
        if run is not None:
            run.set_tag("training.stopped", problem.what)
        raise


def _is_to_train(job: Job) -> bool:
    """Whether the first process of this job trains, once it has decided; the others of the job follow it."""
    if launcher() is None:
        return True  # it has started this one, to train
    with preemption.leaving_at_once():
        while not _finished(job.folder("train")):
            if locks.held_by_us(job.lock("train")):
                return True
            time.sleep(0.2)
    return False


def _evaluate(job: Job, run: "runs.Run | None") -> None:
    kind = job.kind
    if not kind.evaluates:
        return
    sources = kind.test_sources()
    with preemption.leaving_at_once(), job.alone("evaluate") as folder:
        if not _finished(folder):
            if "evaluate" not in job.stages:
                return
            _say(f"evaluate: {len(sources)} cases")
            kind.evaluate(job.model, sources, folder)
            _finish(folder)
        job.summary = read_summary(folder)
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
    with preemption.leaving_at_once(), job.alone("report") as folder:
        page = folder / "report.html"
        made = sorted(job.made["evaluate"].iterdir()) if "evaluate" in job.made else []
        figures = [path for path in made if path.suffix in {".svg", ".png"}]
        summary = read_summary(job.made["evaluate"]) if job.summary else None
        history = job.made["train"] / HISTORY
        content = training_content(shown(job.recipe), read_card(job.model), history, summary)
        texts = {
            page: training_report(content, figures),
            page.with_suffix(".json"): json.dumps(content, indent=1) + "\n",
        }
        for target, text in texts.items():
            with replacing(target) as path:
                path.write_text(text, encoding="utf-8")
        _say(f"report: {page}")
        if run is not None:
            run.log_artifact(page)


def _register(job: Job, run: "runs.Run | None") -> None:
    if "register" not in job.stages or run is None:
        return
    kind, section = job.kind, job.recipe.register_as
    name = section.name or job.recipe.name
    with preemption.leaving_at_once(), job.alone("register") as folder:
        version = registry.find_version(run, name, job.model_digest) if _finished(folder) else None
        if version is None:
            version = registry.register(
                run, job.model, name, section.alias, kind.example(), digest=job.model_digest, monitor=kind.monitor
            )
            _finish(folder, {"name": name, "version": version})
            _say(f"registered: models:/{name}@{section.alias} (version {version})")
        else:
            _say(f"registered: models:/{name}/{version} (before)")
        steps = int(read_card(job.model)["training"]["steps"])
        figures = dict(read_lines(job.made["train"] / HISTORY)).get(steps, {})
        registry.show_figures(run, name, version, figures | (kind.figures(job.summary) if job.summary else {}), steps)


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
