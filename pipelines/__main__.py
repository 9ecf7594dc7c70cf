"""`python -m pipelines run RECIPE [KEY=VALUE …]`: what `MLproject` starts; the same as `medvision run`."""

import argparse
import shlex
import sys

from pipelines.runtime import preemption
from pipelines.runtime.threads import sleep_while_waiting
from shared_backbones.errors import InputError, require


def main(arguments: list[str]) -> int:
    """Run the program; returns its exit code."""
    sleep_while_waiting()
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    parser.add_argument("command", choices=["run"], help="run a recipe's stages")
    parser.add_argument("recipe", help="name of a bundled recipe, or path of a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes, such as train.epochs=1")
    parser.add_argument("--set", default="", metavar="TEXT", help="more changes, in one text with spaces between")
    parser.add_argument("--stages", help="stages to run, with commas")
    parser.add_argument("--restart", default="", help="stages, with commas, whose earlier results are not used again")
    given = parser.parse_intermixed_args(arguments)
    try:
        require("lightning", extra="train")
        from pipelines.recipe.loading import load_recipe
        from pipelines.stages import run_stages

        recipe = load_recipe(given.recipe, [*given.overrides, *shlex.split(given.set)])
        run_stages(
            recipe, given.stages and given.stages.split(","), restart=given.restart.split(",") if given.restart else ()
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except preemption.Preempted:
        print(preemption.goodbye(), file=sys.stderr)
        return preemption.EXIT_CODE
    return 0


if __name__ == "__main__":
    with preemption.listening():  # before what is slow to import
        sys.exit(main(sys.argv[1:]))
