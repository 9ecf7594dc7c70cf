"""The run of the tracking store that a job writes its figures and files to."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.outcome import note_outcome
from pipelines.recipe.shown import run_name, shown
from pipelines.runtime import locks
from pipelines.runtime.processes import first_process, launcher, tags
from pipelines.tracking import runs
from pipelines.tracking.notes import read_note, write_note
from pipelines.tracking.source import source_tags
from pipelines.tracking.stores import shown_uri

if TYPE_CHECKING:
    from pipelines.stages import Job

LOG = "DOMAIN_VISION_LOG"
"""Variable with the path of the job's log, which is kept with its run."""


@contextlib.contextmanager
def tracked(job: "Job") -> Iterator[runs.Run | None]:
    """One run of the tracking store for a job, however often it is started again and however many processes it has."""
    if not first_process():
        yield None
        return
    name = job.recipe.digest
    path = job.output / "runs" / f"{name}.json"
    busy = f"the same recipe is being run with this output ({job.output}); waiting for what it makes"
    with locks.locked(job.output / "locks" / f"run-{name}.lock", busy), _run_of(job, path) as run:
        try:
            yield run
            note_outcome(job, path)
        finally:
            if os.environ.get(LOG):
                run.log_artifact(Path(os.environ[LOG]), "logs")


def _run_of(job: "Job", note: Path) -> runs.Run:
    """The run that an earlier start of the same recipe made in the same store, or a new one."""
    recipe, uri, known = job.recipe, job.uri, read_note(note)
    run = runs.start_run(
        recipe.tracking.experiment or recipe.domain,
        run_name(recipe),
        asked=recipe.tracking.experiment is not None,
        uri=uri,
        parameters=shown(recipe),
        tags={
            "recipe": recipe.name,
            "domain": recipe.domain,
            **source_tags(f"{recipe.domain} run {recipe.name}", is_job=bool(launcher() or os.environ.get(LOG))),
            **tags(),
            **job.tags,
        },
        datasets=job.kind.dataset_records(job.made["prepare"]),
        spool=job.output / "runs",
        system_metrics=recipe.tracking.system_metrics,
        run_id=known["run_id"] if known and known["uri"] == shown_uri(uri) else None,
    )
    job.run_id = run.run_id
    write_note(note, {"run_id": run.run_id, "uri": shown_uri(uri)})
    return run
