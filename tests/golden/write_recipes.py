"""`python -m tests.golden.write_recipes`: write what `recipes show` prints of every bundled recipe, parsed."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.golden.programs import run_program

EXPECTED = Path(__file__).with_name("recipes.json")
PROGRAMS = ("medvision", "geovision", "astrovision")


def bundled(program: str) -> dict[str, Any]:
    """A program's recipes, by name."""
    lines = run_program(program, "recipes", "list").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    return {name: yaml.safe_load(run_program(program, "recipes", "show", name)) for name in names}


if __name__ == "__main__":
    content = {program: bundled(program) for program in PROGRAMS}
    rows = [
        f" {json.dumps(program)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(recipe)}" for name, recipe in recipes.items())
        + "\n }"
        for program, recipes in content.items()
    ]
    EXPECTED.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
