"""What comes of a run: where its figures go, and what its note in the output folder says once it is complete."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pipelines.recipe.shown import run_name, shown
from pipelines.tracking.notes import write_note
from pipelines.tracking.runs import as_parameters
from pipelines.tracking.stores import shown_uri
from shared_backbones.card import read_card

if TYPE_CHECKING:
    from pipelines.stages import Job
    from pipelines.tracking.runs import Run

Watch: TypeAlias = Callable[[Mapping[str, float], int], None]
"""Takes figures of a training and their step."""


def figures_of(job: "Job") -> dict[str, float]:
    """The validation figure that chose the checkpoint, and the figures of the test; those that there are."""
    chosen = read_card(job.model)["training"].get(job.kind.monitor) if "train" in job.made else None
    figures = {} if chosen is None else {job.kind.monitor: float(chosen)}
    return figures if job.summary is None else figures | job.kind.figures(job.summary)


def note_outcome(job: "Job", path: Path) -> None:
    """Add to a run's note what it is of and what came of it."""
    evaluation = job.made["evaluate"].relative_to(job.output).as_posix() if job.summary else None
    records = job.kind.dataset_records(job.made["prepare"])
    write_note(
        path,
        {
            "run_id": job.run_id or "",
            "uri": shown_uri(job.uri),
            "name": run_name(job.recipe),
            "settings": as_parameters(shown(job.recipe)),
            "data": {record.context: record.digest for record in records},
            "figures": figures_of(job),
            "evaluation": evaluation,
        },
    )


def sink_of(run: "Run | None", watch: Watch | None) -> Watch | None:
    """Where the figures of a training go: to its run, and to who else watches it."""
    if run is None or watch is None:
        return None if run is None else run.log_metrics

    def both(figures: Mapping[str, float], step: int) -> None:
        run.log_metrics(figures, step)
        watch(figures, step)

    return both
