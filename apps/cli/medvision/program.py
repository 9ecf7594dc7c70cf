"""The program `medvision`."""

from typing import TYPE_CHECKING

import typer

from apps.cli.medvision.classify import classify
from apps.cli.medvision.enhance import enhance
from apps.cli.medvision.export import export
from apps.cli.medvision.export_labels import export_labels
from apps.cli.medvision.import_model import import_model
from apps.cli.medvision.list_corrections import list_corrections
from apps.cli.medvision.plan import plan
from apps.cli.medvision.robustness import robustness
from apps.cli.medvision.segment import segment
from apps.cli.medvision.series import series
from apps.cli.shared.cache_command import add_cache
from apps.cli.shared.doctor_command import add_doctor
from apps.cli.shared.merge_command import add_merge
from apps.cli.shared.models_command import add_models
from apps.cli.shared.options import VersionOption, add_verb
from apps.cli.shared.review_command import add_review
from apps.cli.shared.run_command import add_run
from apps.cli.shared.runs_command import add_runs
from apps.cli.start import start

if TYPE_CHECKING:
    from apps.cli.shared.merging import Join

app = typer.Typer(name="medvision")
add_verb(app, segment)
add_verb(app, series)
add_verb(app, classify)
add_verb(app, enhance)
add_verb(app, robustness)
add_verb(app, plan)
add_verb(app, import_model, "import")
add_verb(app, export)
add_verb(add_models(app, "medvision"), export_labels, "export-labels")
add_doctor(app, "medvision")
add_cache(app)
add_run(app, "medvision")
add_runs(app)
add_verb(add_review(app), list_corrections, "list")


def _join() -> "Join":
    from apps.cli.medvision.joined_tables import join_tables

    return join_tables


add_merge(app, _join)


@app.callback()
def medvision(version: VersionOption = False) -> None:
    """Segment medical volumes, classify medical images, and say how far to trust the result.

    Research use only, not for diagnosis.
    """


def main() -> None:
    """Run the program, and end the process with its exit code."""
    start("medvision")


if __name__ == "__main__":
    main()
