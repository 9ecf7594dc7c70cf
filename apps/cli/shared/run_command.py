"""`run` and `recipes` of every program: recipes from raw files to a registered model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.shared.job_options import JOB, JobOptions, JobSettings, Scheduler, given
from apps.cli.shared.options import CommaSeparated, add_verb
from pipelines.runtime import preemption
from shared_backbones.errors import InputError, require

if TYPE_CHECKING:
    from pipelines.recipe.recipe import Recipe
    from pipelines.recipe.section import Domain
    from pipelines.sweeps.plan import Sweep

_Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a bundled recipe, or path of a YAML file.")]
_SWEEP = "Many runs"


class _Searcher(StrEnum):
    optuna = "optuna"


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
class RunOptions(JobOptions, RecipeOptions):
    """What a user asks `run` for: a recipe once or many times, here or as a job."""

    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2", help="Run the recipe with each value of a key; repeatable, for all combinations.",
            rich_help_panel=_SWEEP,
        ),
    ] = None  # fmt: skip
    seeds: Annotated[
        str | None,
        typer.Option(help="Run it with these seeds, such as 1-5 or 1,2,7, on one split.", rich_help_panel=_SWEEP),
    ] = None
    folds: Annotated[
        int | None,
        typer.Option(min=2, max=100, help="Validate on each of so many folds in turn.", rich_help_panel=_SWEEP),
    ] = None
    search: Annotated[
        _Searcher | None,
        typer.Option(help="Search the space of the recipe's section search.", rich_help_panel=_SWEEP),
    ] = None
    task: Annotated[
        int | None,
        typer.Option(
            min=0, help="Run one of these runs alone, from 1; 0 makes the table of them.", rich_help_panel=_SWEEP
        ),
    ] = None
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines that train together.", rich_help_panel=JOB)] = None
    form: Annotated[
        str | None,
        typer.Option(help="Kubernetes: trainjob (of Kubeflow, the default) or job.", rich_help_panel=JOB),
    ] = None

    @property
    def is_sweep(self) -> bool:
        """Whether there are several runs.

        Raises:
            InputError: one of several is asked for, but no several are.
        """
        several = bool(self.sweep) or self.seeds is not None or self.folds is not None
        if self.search and (several or self.on is not None):
            raise InputError(
                "--search: runs its trials here, one after another; leave --sweep, --seeds, --folds and --on out"
            )
        if self.task is not None and not several:
            raise InputError("--task: which runs there are is missing; add --sweep, --seeds or --folds")
        return several

    @property
    def job_settings(self) -> JobSettings:
        """Settings of the job that were given, by the names that schedulers' settings have."""
        return super().job_settings | given({"nodes": self.nodes, "form": self.form})


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


def _plan(domain: "Domain", options: RunOptions) -> "Sweep":
    from pipelines.sweeps.plan import Axes, plan_sweep

    axes = Axes(tuple(options.sweep or ()), options.seeds, options.folds)
    return plan_sweep(options.recipe, options.changes(), axes, stages=options.stages, domain=domain)


def _run_sweep(domain: "Domain", options: RunOptions) -> int:
    from pipelines.sweeps.sweep import run_sweep

    if options.restart:
        raise InputError("--restart: each run of a sweep would begin anew; leave it out")
    return run_sweep(_plan(domain, options), task=options.task)


def _run_search(domain: "Domain", options: RunOptions) -> None:
    from pipelines.sweeps.search import plan_search, run_search

    if options.restart:
        raise InputError("--restart: each trial of a search would begin anew; leave it out")
    run_search(plan_search(options.recipe, options.changes(), domain), options.stages)


def _queue(domain: "Domain", options: RunOptions) -> None:
    """Queue a recipe as a job, or print the job."""
    if options.restart:
        raise InputError("--restart: a job would begin anew each time it is requeued; leave it out")
    overrides = options.changes()
    stages = [f"--stages={','.join(options.stages)}"] if options.stages else []
    arguments = [options.recipe, *overrides, *stages]
    require("pydantic", "train")
    if options.is_sweep:
        _queue_sweep(domain, options, arguments)
        return
    with preemption.listening():
        recipe = _load(options, overrides, domain)
    if options.on is Scheduler.kubernetes:
        from apps.cluster.kubernetes import PodSettings, print_recipe

        print_recipe(recipe, arguments, PodSettings.read(options.job_settings))
        return
    from apps.cluster.slurm import SlurmSettings, run_recipe

    run_recipe(recipe, arguments, SlurmSettings.read(options.job_settings), dry_run=options.dry_run, wait=options.wait)


def _queue_sweep(domain: "Domain", options: RunOptions, arguments: Sequence[str]) -> None:
    """Queue a sweep as an array, or print its jobs."""
    if options.task is not None:
        raise InputError("--task: is what the jobs of a sweep are given; leave it out")
    sweep = _plan(domain, options)
    axes = {"sweep": options.sweep or [], "seeds": [options.seeds], "folds": [options.folds]}
    chosen = [f"--{name}={value}" for name, values in axes.items() for value in values if value is not None]
    if options.on is Scheduler.kubernetes:
        from apps.cluster.kubernetes import PodSettings
        from apps.cluster.sweeps import print_sweep

        print_sweep(sweep, [*arguments, *chosen], PodSettings.read(options.job_settings))
        return
    from apps.cluster.slurm import SlurmSettings
    from apps.cluster.sweeps import queue_sweep

    settings = SlurmSettings.read(options.job_settings)
    queue_sweep(sweep, [*arguments, *chosen], settings, dry_run=options.dry_run, wait=options.wait)


def add_run(app: typer.Typer, domain: "Domain") -> None:
    """Give a program the commands `run` and `recipes list|show|schema`, for the recipes of its domain."""

    def run(options: RunOptions) -> int | None:
        """Run a recipe: raw files, prepared data, training, metrics, report and a registered model.

        What an earlier run finished from the same inputs and settings is used again; what it began goes on.
        """
        if options.on is not None:
            _queue(domain, options)
            return None
        if options.job_settings or options.wait or options.dry_run:
            raise InputError("options of a job are given, but not where; add --on slurm or --on kubernetes")
        with preemption.listening():  # before what is slow to import
            require("lightning", "train")
            if options.is_sweep:
                return _run_sweep(domain, options)
            if options.search is not None:
                _run_search(domain, options)
                return None
            _run_here(_load(options, options.changes(), domain), options)
        return None

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
