"""`run` and `recipes` of every program: recipes from raw files to a registered model."""

import json
from typing import Annotated

import typer

from apps.cli.program import split
from shared_backbones.errors import InputError, require

_Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a bundled recipe, or path of a YAML file.")]


def add_run(app: typer.Typer, domain: str) -> None:
    """Give a program the commands `run` and `recipes list|show|schema`, for the recipes of its domain."""

    @app.command()
    def run(
        recipe: _Recipe,
        overrides: Annotated[
            list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, such as train.epochs=1.")
        ] = None,
        stages: Annotated[
            str | None, typer.Option(help="Stages to run, with commas, of prepare,train,evaluate,report,register.")
        ] = None,
        restart: Annotated[
            str | None, typer.Option(help="Stages, with commas, whose earlier results are not used again.")
        ] = None,
        skip_unreadable: Annotated[
            bool, typer.Option("--skip-unreadable", help="Leave out cases that cannot be used, and count them.")
        ] = False,
    ) -> None:
        """Run a recipe: raw files, prepared data, training, metrics, report and a registered model.

        What an earlier run finished from the same inputs and settings is used again; what it began goes on.
        """
        require("lightning", "train")
        from pipelines.recipe import load_recipe
        from pipelines.stages import run_stages

        skipping = ["data.skip_unreadable=true"] if skip_unreadable else []
        loaded = load_recipe(recipe, [*(overrides or []), *skipping])
        if loaded.domain != domain:
            raise InputError(
                f"recipe {loaded.name}: is for {loaded.domain}, not {domain}; run it with: {loaded.domain} run"
            )
        run_stages(loaded, split(stages), restart=split(restart) or ())

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
