"""The program `geovision`."""

from typing import TYPE_CHECKING

import typer

from apps.cli.geovision.classify import classify
from apps.cli.geovision.embed import embed
from apps.cli.geovision.enhance import enhance
from apps.cli.geovision.info import info
from apps.cli.geovision.map import map_scenes
from apps.cli.geovision.robustness import robustness
from apps.cli.geovision.torchgeo import list_models, read_encoder
from apps.cli.shared.cache_command import add_cache
from apps.cli.shared.doctor_command import add_doctor
from apps.cli.shared.import_command import add_import
from apps.cli.shared.merge_command import add_merge
from apps.cli.shared.models_command import add_models
from apps.cli.shared.options import VersionOption, add_verb
from apps.cli.shared.review_command import add_review
from apps.cli.shared.run_command import add_run, add_run_of_kind
from apps.cli.shared.runs_command import add_runs
from apps.cli.start import start

if TYPE_CHECKING:
    from apps.cli.shared.merging import Join

app = typer.Typer(name="geovision")
add_import(app, "geovision", {"torchgeo": read_encoder})
add_doctor(app, "geovision")
add_cache(app)
add_models(app, "geovision", list_models)
add_review(app)
add_run(app, "geovision")
add_runs(app)
add_run_of_kind(
    app, "geovision", "pretrain", "scene_pretraining", "Pretrain an encoder: `run`, for recipes that pretrain."
)
add_run_of_kind(app, "geovision", "finetune", "satellite_images", "Fine-tune a classifier: `run`, for such recipes.")
add_run_of_kind(
    app, "geovision", "probe", "satellite_images",
    "Judge an encoder as it is: a linear probe and its nearest neighbours; `run` with train.trainable=head.",
    ["train.trainable=head"],
)  # fmt: skip
add_verb(app, info)
add_verb(app, map_scenes, "map")
add_verb(app, embed)
add_verb(app, enhance)
add_verb(app, classify)
add_verb(app, robustness)


def _join() -> "Join":
    from apps.cli.geovision.joined_tables import join_tables

    return join_tables


add_merge(app, _join)


@app.callback()
def geovision(version: VersionOption = False) -> None:
    """Published vision models for satellite images: georeferenced maps, classes, embeddings and encoders."""


def main() -> None:
    """Run the program, and end the process with its exit code."""
    start("geovision")


if __name__ == "__main__":
    main()
