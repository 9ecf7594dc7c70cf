"""Every recipe that was bundled is still there by its name, and its file of that time still loads.

`python -m tests.golden.write_recipes` writes those files.
"""

import json
from pathlib import Path

import pytest
import yaml

from tests.golden.programs import run_program
from tests.golden.write_recipes import EXPECTED, PROGRAMS, bundled

ALL = json.loads(EXPECTED.read_text("utf-8"))
EACH = [(program, name) for program, recipes in ALL.items() for name in recipes]


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_bundled_recipe_is_lost(program: str):
    assert set(ALL[program]) <= set(bundled(program))


@pytest.mark.parametrize(("program", "name"), EACH, ids=[name for _, name in EACH])
def test_a_recipe_as_it_was_still_loads(program: str, name: str, tmp_path: Path):
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(ALL[program][name]))
    assert yaml.safe_load(run_program(program, "recipes", "show", path)) == ALL[program][name]
