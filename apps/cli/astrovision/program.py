"""The program `astrovision`."""

from typing import TYPE_CHECKING

import typer

from apps.cli.astrovision.classify import classify
from apps.cli.astrovision.robustness import robustness
from apps.cli.shared.cache_command import add_cache
from apps.cli.shared.doctor_command import add_doctor
from apps.cli.shared.import_command import add_import
from apps.cli.shared.merge_command import add_merge
from apps.cli.shared.models_command import add_models
from apps.cli.shared.options import VersionOption, add_verb
from apps.cli.shared.review_command import add_review
from apps.cli.shared.run_command import add_run
from apps.cli.shared.runs_command import add_runs
from apps.cli.start import start

if TYPE_CHECKING:
    from apps.cli.shared.merging import Join

app = typer.Typer(name="astrovision")
add_import(app, "astrovision")
add_doctor(app, "astrovision")
add_cache(app)
add_models(app, "astrovision")
add_review(app)
add_run(app, "astrovision")
add_runs(app)
add_verb(app, classify)
add_verb(app, robustness)


def _join() -> "Join":
    from apps.cli.astrovision.joined_tables import join_tables

    return join_tables


add_merge(app, _join)


@app.callback()
def astrovision(version: VersionOption = False) -> None:
    """Published vision models for astronomical images: classes of galaxies, with what their probabilities are worth."""


def main() -> None:
    """Run the program, and end the process with its exit code."""
    start("astrovision")


if __name__ == "__main__":
    main()
