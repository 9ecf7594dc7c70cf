"""`python -m pipelines run RECIPE [section.key=value …]`: train what a recipe describes."""

import sys

from shared_backbones.errors import InputError, require


def main(arguments: list[str]) -> int:
    """Run the program; returns its exit code."""
    if len(arguments) < 2 or arguments[0] != "run":
        print("usage: python -m pipelines run RECIPE [section.key=value ...]", file=sys.stderr)
        return 2
    try:
        require("lightning", extra="train")
        from pipelines.recipe import load_recipe
        from pipelines.stages import train

        print(train(load_recipe(arguments[1], arguments[2:])))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
