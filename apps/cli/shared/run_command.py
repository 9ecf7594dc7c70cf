"""`run` and `recipes` of every program: recipes from raw files to a registered model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.shared.options import CommaSeparated, add_verb
from pipelines.runtime import preemption
from shared_backbones.errors import InputError, require

if TYPE_CHECKING:
    from pipelines.recipe.recipe import Recipe
    from pipelines.recipe.section import Domain

_Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a bundled recipe, or path of a YAML file.")]
_JOB = "With --on"


class _Scheduler(StrEnum):
    slurm = "slurm"
    kubernetes = "kubernetes"


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What a user asks of a recipe."""

    recipe: _Recipe
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, such as train.epochs=1.")
    ] = None
    stages: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Stages to run, with commas, of prepare,train,evaluate,report,register."),
    ] = None
    restart: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Stages, with commas, whose earlier results are not used again."),
    ] = None
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out cases that cannot be used, and count them.")
    ] = False

    def changes(self, settings: Sequence[str] = ()) -> list[str]:
        """All overrides, those of the command first."""
        skip = ["data.skip_unreadable=true"] if self.skip_unreadable else []
        return [*settings, *(self.overrides or []), *skip]


@dataclass(frozen=True, kw_only=True)
class RunOptions(RecipeOptions):
    """What a user asks `run` for: a recipe, here or as a job."""

    on: Annotated[
        _Scheduler | None, typer.Option(help="Queue it as a job of SLURM, or print it as one of Kubernetes.")
    ] = None
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines that train together.", rich_help_panel=_JOB)] = None
    gpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="Each gets a process; by default one per node.", rich_help_panel=_JOB)
    ] = None
    cpus_per_task: Annotated[
        int | None, typer.Option(min=1, help="CPU cores of each process.", rich_help_panel=_JOB)
    ] = None
    mem: Annotated[str | None, typer.Option(help="Memory of each node, such as 64G.", rich_help_panel=_JOB)] = None
    partition: Annotated[str | None, typer.Option(help="Of SLURM; sinfo lists them.", rich_help_panel=_JOB)] = None
    time: Annotated[
        str | None, typer.Option(help="Longest time of one start, such as 12:00:00.", rich_help_panel=_JOB)
    ] = None
    account: Annotated[str | None, typer.Option(help="Of SLURM.", rich_help_panel=_JOB)] = None
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="Another option of sbatch, such as qos=long; repeatable.", rich_help_panel=_JOB),
    ] = None
    image: Annotated[str | None, typer.Option(help="Kubernetes: image of the containers.", rich_help_panel=_JOB)] = None
    volume: Annotated[
        list[str] | None,
        typer.Option(
            help="Kubernetes: CLAIM:/PATH of a volume, CLAIM:/PATH:ro of one that is only read; repeatable.",
            rich_help_panel=_JOB,
        ),
    ] = None
    secret: Annotated[
        list[str] | None,
        typer.Option(
            help="Kubernetes: secret with MLflow's user and password, or NAME:KEY of another one; repeatable.",
            rich_help_panel=_JOB,
        ),
    ] = None
    env: Annotated[
        list[str] | None, typer.Option(help="Kubernetes: NAME=VALUE of a variable; repeatable.", rich_help_panel=_JOB)
    ] = None
    node_selector: Annotated[
        list[str] | None,
        typer.Option(help="Kubernetes: KEY=VALUE of a label that nodes must have; repeatable.", rich_help_panel=_JOB),
    ] = None
    toleration: Annotated[
        list[str] | None,
        typer.Option(help="Kubernetes: KEY[=VALUE][:EFFECT] of a taint; repeatable.", rich_help_panel=_JOB),
    ] = None
    form: Annotated[
        str | None,
        typer.Option(help="Kubernetes: trainjob (of Kubeflow, the default) or job.", rich_help_panel=_JOB),
    ] = None
    no_requeue: Annotated[
        bool, typer.Option("--no-requeue", help="End where the job would be requeued.", rich_help_panel=_JOB)
    ] = False
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job.", rich_help_panel=_JOB)] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the batch script, and queue nothing.", rich_help_panel=_JOB)
    ] = False

    @property
    def job_settings(self) -> dict[str, int | str | bool | list[str]]:
        """Settings of the job that were given, by the names that schedulers' settings have."""
        settings = {
            "nodes": self.nodes, "gpus_per_node": self.gpus_per_node, "cpus_per_task": self.cpus_per_task,
            "mem": self.mem, "partition": self.partition, "time": self.time, "account": self.account,
            "sbatch": self.sbatch or None, "requeue": False if self.no_requeue else None, "image": self.image,
            "volumes": self.volume or None, "form": self.form, "secrets": self.secret or None, "env": self.env or None,
            "node_selector": self.node_selector or None, "tolerations": self.toleration or None,
        }  # fmt: skip
        return {name: value for name, value in settings.items() if value is not None}


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

    def command(options: RecipeOptions) -> None:
        overrides = options.changes(settings)
        with preemption.listening():  # before what is slow to import
            require("lightning", "train")
            recipe = _load(options, overrides, domain)
            if recipe.data.kind != kind:
                raise InputError(
                    f"recipe {recipe.name}: its data is of kind {recipe.data.kind}, {name} takes {kind}; use "
                    f"`{domain} run`, or another recipe"
                )
            _run_here(recipe, options)

    add_verb(app, command, name, description)


def _load(options: RecipeOptions, overrides: Sequence[str], domain: "Domain") -> "Recipe":
    from pipelines.recipe.loading import load_recipe

    return load_recipe(options.recipe, overrides, domain)


def _run_here(recipe: "Recipe", options: RecipeOptions) -> None:
    from pipelines.stages import run_stages

    run_stages(recipe, options.stages, restart=options.restart or ())


def _queue(domain: "Domain", options: RunOptions) -> None:
    """Queue a recipe as a job, or print the job."""
    overrides = options.changes()
    with preemption.listening():
        require("pydantic", "train")
        recipe = _load(options, overrides, domain)
    if options.restart:
        raise InputError("--restart: a job would begin anew each time it is requeued; leave it out")
    stages = [f"--stages={','.join(options.stages)}"] if options.stages else []
    arguments = [options.recipe, *overrides, *stages]
    if options.on is _Scheduler.kubernetes:
        from apps.cluster.kubernetes import PodSettings, print_recipe

        print_recipe(recipe, arguments, PodSettings.read(options.job_settings))
        return
    from apps.cluster.slurm import SlurmSettings, run_recipe

    run_recipe(recipe, arguments, SlurmSettings.read(options.job_settings), dry_run=options.dry_run, wait=options.wait)


def add_run(app: typer.Typer, domain: "Domain") -> None:
    """Give a program the commands `run` and `recipes list|show|schema`, for the recipes of its domain."""

    def run(options: RunOptions) -> None:
        """Run a recipe: raw files, prepared data, training, metrics, report and a registered model.

        What an earlier run finished from the same inputs and settings is used again; what it began goes on.
        """
        if options.on is not None:
            _queue(domain, options)
            return
        if options.job_settings or options.wait or options.dry_run:
            raise InputError("options of a job are given, but not where; add --on slurm or --on kubernetes")
        with preemption.listening():  # before what is slow to import
            require("lightning", "train")
            _run_here(_load(options, options.changes(), domain), options)

    add_verb(app, run)
    _add_recipes(app, domain)


def _add_recipes(app: typer.Typer, domain: "Domain") -> None:
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
