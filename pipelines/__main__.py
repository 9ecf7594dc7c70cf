"""`python -m pipelines run RECIPE [KEY=VALUE …]` is what `MLproject` starts, the same as `medvision run`.

`python -m pipelines runs compare A B` is the same as `medvision runs compare`.
"""

import argparse
import functools
import shlex
import sys
from collections.abc import Callable

from pipelines.runtime import preemption
from pipelines.runtime.threads import sleep_while_waiting
from shared_backbones.errors import InputError, require
from shared_backbones.terminal import lasting_output, say


def main(arguments: list[str]) -> int:
    """Run the program; returns its exit code."""
    sleep_while_waiting()
    if arguments[:1] == ["runs"]:
        return _guarded(functools.partial(_compare, arguments[1:]))
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    parser.add_argument("command", choices=["run"], help="run a recipe's stages")
    parser.add_argument("recipe", help="name of a bundled recipe, or path of a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes, such as train.epochs=1")
    parser.add_argument("--set", default="", metavar="TEXT", help="more changes, in one text with spaces between")
    parser.add_argument("--stages", help="stages to run, with commas")
    parser.add_argument("--restart", default="", help="stages, with commas, whose earlier results are not used again")
    parser.add_argument("--sweep", action="append", default=[], metavar="KEY=V1,V2", help="values of a key; repeatable")
    parser.add_argument("--seeds", help="seeds, such as 1-5 or 1,2,7")
    parser.add_argument("--folds", type=int, help="number of folds, each of which is validated on once")
    parser.add_argument("--task", type=int, help="one of these runs alone, from 1; 0 for the table of them")
    parser.add_argument("--search", choices=["optuna"], help="search the space of the recipe's section search")
    return _guarded(functools.partial(_run, parser.parse_intermixed_args(arguments)))


def _guarded(command: Callable[[], int]) -> int:
    """The exit code of a command; what a user can do something about is one line."""
    try:
        require("lightning", extra="train")
        with lasting_output():
            return command()
    except InputError as error:
        say(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except preemption.Preempted:
        print(preemption.goodbye(), file=sys.stderr)
        return preemption.EXIT_CODE


def _compare(arguments: list[str]) -> int:
    """Say what two runs differ in; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines runs", description="What two runs differ in.")
    parser.add_argument("command", choices=["compare"])
    parser.add_argument("first", metavar="A", help="id or name of a run, or its output folder")
    parser.add_argument("second", metavar="B", help="another one; differences are B less A")
    given = parser.parse_args(arguments)
    from pipelines.comparison import compare, lines_of, read_run

    print("\n".join(lines_of(compare(read_run(given.first), read_run(given.second)))))
    return 0


def _run(given: argparse.Namespace) -> int:
    """Run a recipe once, or many times; the exit code."""
    from pipelines.recipe.loading import load_recipe
    from pipelines.stages import run_stages
    from pipelines.sweeps.plan import Axes, plan_sweep
    from pipelines.sweeps.sweep import run_sweep

    overrides = [*given.overrides, *shlex.split(given.set)]
    stages, restart = given.stages and given.stages.split(","), given.restart.split(",") if given.restart else ()
    axes = Axes(tuple(given.sweep), given.seeds, given.folds)
    if given.search:
        from pipelines.sweeps.search import plan_search, run_search

        if axes or restart:
            raise InputError("--search: leave --sweep, --seeds, --folds and --restart out")
        run_search(plan_search(given.recipe, overrides), stages)
        return 0
    if not axes:
        run_stages(load_recipe(given.recipe, overrides), stages, restart=restart)
        return 0
    if restart:
        raise InputError("--restart: each run of a sweep would begin anew; leave it out")
    return run_sweep(plan_sweep(given.recipe, overrides, axes, stages=stages), task=given.task)


if __name__ == "__main__":
    with preemption.listening():  # before what is slow to import
        sys.exit(main(sys.argv[1:]))
