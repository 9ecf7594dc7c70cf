"""`run` and `recipes` of every program: recipes from raw files to a registered model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.cli.shared.program import split
from pipelines.runtime import preemption
from shared_backbones.errors import InputError, require

if TYPE_CHECKING:
    from pipelines.recipe.section import Domain

_Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a bundled recipe, or path of a YAML file.")]


_Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, such as train.epochs=1.")]
_Stages = Annotated[
    str | None, typer.Option(help="Stages to run, with commas, of prepare,train,evaluate,report,register.")
]
_Restart = Annotated[str | None, typer.Option(help="Stages, with commas, whose earlier results are not used again.")]
_Skip = Annotated[bool, typer.Option("--skip-unreadable", help="Leave out cases that cannot be used, and count them.")]


def _of_job(help: str, *names: str, min: int | None = None) -> Any:
    return typer.Option(*names, min=min, help=help, rich_help_panel="With --on")


def add_run_of_kind(
    app: typer.Typer, domain: "Domain", name: str, kind: str, description: str, settings: Sequence[str] = ()
) -> None:
    """Give a program a command that runs recipes of one kind of data.

    Args:
        app: the program.
        domain: domain of the recipes.
        name: name of the command.
        kind: kind of the recipe's data; another one is refused.
        description: text for `--help`.
        settings: overrides that come before the user's.
    """

    @app.command(name, help=description)
    def command(
        recipe: _Recipe,
        overrides: _Overrides = None,
        stages: _Stages = None,
        restart: _Restart = None,
        skip_unreadable: _Skip = False,
    ) -> None:
        _run(domain, recipe, [*settings, *(overrides or [])], stages, restart, skip_unreadable, (name, kind))


def _run(
    domain: "Domain",
    recipe: str,
    overrides: Sequence[str],
    stages: str | None,
    restart: str | None,
    skip_unreadable: bool,
    only: tuple[str, str] | None = None,
    job: "_Job | None" = None,
) -> None:
    overrides = [*overrides, *(["data.skip_unreadable=true"] if skip_unreadable else [])]
    with preemption.listening():  # before what is slow to import
        require("lightning" if job is None else "pydantic", "train")
        from pipelines.recipe.loading import load_recipe

        loaded = load_recipe(recipe, overrides, domain)
        if only is not None and loaded.data.kind != only[1]:
            raise InputError(
                f"recipe {loaded.name}: its data is of kind {loaded.data.kind}, {only[0]} takes {only[1]}; use "
                f"`{domain} run`, or another recipe"
            )
        if job is None:
            from pipelines.stages import run_stages

            run_stages(loaded, split(stages), restart=split(restart) or ())
    if job is not None:
        if restart:
            raise InputError("--restart: a job would begin anew each time it is requeued; leave it out")
        arguments = [recipe, *overrides, *([f"--stages={stages}"] if stages else [])]
        if job.on is _Scheduler.kubernetes:
            from apps.cluster.kubernetes import PodSettings, print_recipe

            print_recipe(loaded, arguments, PodSettings.read(job.settings))
            return
        from apps.cluster.slurm import SlurmSettings, run_recipe

        run_recipe(loaded, arguments, SlurmSettings.read(job.settings), dry_run=job.dry_run, wait=job.wait)


@dataclass(frozen=True)
class _Job:
    """What is queued in place of running here."""

    on: "_Scheduler"
    settings: dict[str, Any]
    dry_run: bool
    wait: bool


class _Scheduler(StrEnum):
    slurm = "slurm"
    kubernetes = "kubernetes"


def add_run(app: typer.Typer, domain: "Domain") -> None:
    """Give a program the commands `run` and `recipes list|show|schema`, for the recipes of its domain."""

    @app.command()
    def run(
        recipe: _Recipe,
        overrides: _Overrides = None,
        stages: _Stages = None,
        restart: _Restart = None,
        skip_unreadable: _Skip = False,
        on: Annotated[
            _Scheduler | None, typer.Option(help="Queue it as a job of SLURM, or print it as one of Kubernetes.")
        ] = None,
        nodes: Annotated[int | None, _of_job("Machines that train together.", min=1)] = None,
        gpus_per_node: Annotated[int | None, _of_job("Each gets a process; by default one per node.", min=1)] = None,
        cpus_per_task: Annotated[int | None, _of_job("CPU cores of each process.", min=1)] = None,
        mem: Annotated[str | None, _of_job("Memory of each node, such as 64G.")] = None,
        partition: Annotated[str | None, _of_job("Of SLURM; sinfo lists them.")] = None,
        time: Annotated[str | None, _of_job("Longest time of one start, such as 12:00:00.")] = None,
        account: Annotated[str | None, _of_job("Of SLURM.")] = None,
        sbatch: Annotated[list[str] | None, _of_job("Another option of sbatch, such as qos=long; repeatable.")] = None,
        image: Annotated[str | None, _of_job("Kubernetes: image of the containers.")] = None,
        volume: Annotated[list[str] | None, _of_job("Kubernetes: CLAIM:/PATH of a volume; repeatable.")] = None,
        form: Annotated[str | None, _of_job("Kubernetes: trainjob (of Kubeflow, the default) or job.")] = None,
        no_requeue: Annotated[bool, _of_job("End where the job would be requeued.", "--no-requeue")] = False,
        wait: Annotated[bool, _of_job("Wait for the end of the job.", "--wait")] = False,
        dry_run: Annotated[bool, _of_job("Print the batch script, and queue nothing.", "--dry-run")] = False,
    ) -> None:
        """Run a recipe: raw files, prepared data, training, metrics, report and a registered model.

        What an earlier run finished from the same inputs and settings is used again; what it began goes on.
        """
        asked = {
            "nodes": nodes, "gpus_per_node": gpus_per_node, "cpus_per_task": cpus_per_task, "mem": mem,
            "partition": partition, "time": time, "account": account, "sbatch": sbatch or None,
            "requeue": False if no_requeue else None, "image": image, "volumes": volume or None, "form": form,
        }  # fmt: skip
        settings = {name: value for name, value in asked.items() if value is not None}
        if on is None and (settings or wait or dry_run):
            raise InputError("options of a job are given, but not where; add --on slurm or --on kubernetes")
        job = None if on is None else _Job(on, settings, dry_run, wait)
        _run(domain, recipe, overrides or [], stages, restart, skip_unreadable, job=job)

    recipes = typer.Typer(help="The bundled recipes.")
    app.add_typer(recipes, name="recipes")

    @recipes.command("list")
    def list_() -> None:
        """List the bundled recipes."""
        from pipelines.recipe.loading import bundled_recipes

        for name, path in bundled_recipes().items():
            if path.parent.name == domain:
                first = path.read_text(encoding="utf-8").partition("\n")[0]
                print(f"{name}  {first.removeprefix('#').strip()}")

    @recipes.command("show")
    def show(recipe: _Recipe) -> None:
        """Print a recipe as it stands."""
        from pipelines.recipe.loading import find_recipe, load_recipe

        load_recipe(recipe)  # says what is wrong with it before it is shown as one
        print(find_recipe(recipe).read_text(encoding="utf-8"), end="")

    @recipes.command("schema")
    def schema() -> None:
        """Print the JSON schema of recipes, for editors."""
        from pipelines.recipe.recipe import Recipe

        print(json.dumps(Recipe.model_json_schema(), indent=2))
