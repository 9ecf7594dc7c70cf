"""`run` and `recipes` of every program: recipes from raw files to a registered model."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from apps.cli.program import split
from shared_backbones.errors import InputError, require

_Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a bundled recipe, or path of a YAML file.")]


_Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, such as train.epochs=1.")]
_Stages = Annotated[
    str | None, typer.Option(help="Stages to run, with commas, of prepare,train,evaluate,report,register.")
]
_Restart = Annotated[str | None, typer.Option(help="Stages, with commas, whose earlier results are not used again.")]
_Skip = Annotated[bool, typer.Option("--skip-unreadable", help="Leave out cases that cannot be used, and count them.")]


def add_run_of_kind(
    app: typer.Typer, domain: str, name: str, kind: str, description: str, settings: Sequence[str] = ()
) -> None:
    """Give a program a command that runs recipes of one kind of data.

    Args:
        app: the program.
        domain: of the recipes.
        name: of the command.
        kind: of the recipe's data; another one is refused.
        description: for `--help`.
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
    domain: str,
    recipe: str,
    overrides: Sequence[str],
    stages: str | None,
    restart: str | None,
    skip_unreadable: bool,
    only: tuple[str, str] | None = None,
) -> None:
    require("lightning", "train")
    from pipelines.recipe import load_recipe
    from pipelines.stages import run_stages

    loaded = load_recipe(recipe, [*overrides, *(["data.skip_unreadable=true"] if skip_unreadable else [])])
    if loaded.domain != domain:
        raise InputError(
            f"recipe {loaded.name}: is for {loaded.domain}, not {domain}; run it with: {loaded.domain} run"
        )
    if only is not None and loaded.data.kind != only[1]:
        raise InputError(
            f"recipe {loaded.name}: its data is of kind {loaded.data.kind}, {only[0]} takes {only[1]}; use "
            f"`{domain} run`, or another recipe"
        )
    run_stages(loaded, split(stages), restart=split(restart) or ())


def add_run(app: typer.Typer, domain: str) -> None:
    """Give a program the commands `run` and `recipes list|show|schema`, for the recipes of its domain."""

    @app.command()
    def run(
        recipe: _Recipe,
        overrides: _Overrides = None,
        stages: _Stages = None,
        restart: _Restart = None,
        skip_unreadable: _Skip = False,
    ) -> None:
        """Run a recipe: raw files, prepared data, training, metrics, report and a registered model.

        What an earlier run finished from the same inputs and settings is used again; what it began goes on.
        """
        _run(domain, recipe, overrides or [], stages, restart, skip_unreadable)

    recipes = typer.Typer(help="The bundled recipes.")
    app.add_typer(recipes, name="recipes")

    @recipes.command("list")
    def list_() -> None:
        """List the bundled recipes."""
        from pipelines.recipe import bundled_recipes

        for name, path in bundled_recipes().items():
            if path.parent.name == domain:
                first = path.read_text(encoding="utf-8").partition("\n")[0]
                print(f"{name}  {first.removeprefix('#').strip()}")

    @recipes.command("show")
    def show(recipe: _Recipe) -> None:
        """Print a recipe as it stands."""
        from pipelines.recipe import find_recipe, load_recipe

        load_recipe(recipe)  # says what is wrong with it before it is shown as one
        print(find_recipe(recipe).read_text(encoding="utf-8"), end="")

    @recipes.command("schema")
    def schema() -> None:
        """Print the JSON schema of recipes, for editors."""
        from pipelines.recipe import Recipe

        print(json.dumps(Recipe.model_json_schema(), indent=2))
