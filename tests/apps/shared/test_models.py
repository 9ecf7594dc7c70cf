"""`models list` and `models show`: of a program that comes without a model, and of models of one's own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from apps.cli.astrovision import program as astrovision
from apps.cli.geovision import program as geovision
from apps.cli.shared.program import run
from shared_backbones.card import read_card
from tests.astrovision import small_models as sky_models
from tests.geovision import small_models as land_models

BUNDLED = [
    (geovision.app, "surface-types", "any bands with green, red, nir, swir"),
    (astrovision.app, "galaxy-morphology", "red, green, blue"),
]


@pytest.mark.parametrize(("app", "name", "takes"), BUNDLED, ids=["geovision", "astrovision"])
def test_bundled_models_are_listed_with_what_they_take_and_how_well(app: typer.Typer, name: str, takes: str, capsys):
    assert run(app, ["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first, second = next(pair for pair in zip(lines[::2], lines[1::2], strict=True) if pair[0].startswith(name))
    assert takes in first and "accuracy" in second and "balanced" in second
    assert run(app, ["models", "list", "--json"]) == 0
    assert name in [card["name"] for card in json.loads(capsys.readouterr().out)] and len(lines) % 2 == 0


@pytest.mark.parametrize(("app", "name", "takes"), BUNDLED, ids=["geovision", "astrovision"])
def test_what_is_no_model_is_refused_in_one_line(app: typer.Typer, name: str, takes: str, tmp_path: Path, capsys):
    assert run(app, ["models", "show", "nix"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: model nix: neither a bundled model (") and f"{name}) nor a folder with" in line
    assert run(app, ["models", "show", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("app", "build"),
    [
        (geovision.app, land_models.mapper),
        (geovision.app, land_models.classifier),
        (astrovision.app, sky_models.classifier),
    ],
    ids=["mapper", "classifier", "galaxies"],
)
def test_a_model_of_ones_own_is_shown(app: typer.Typer, build: Callable[[Path], Path], tmp_path: Path, capsys):
    folder = build(tmp_path / "m")
    card = read_card(folder)
    assert run(app, ["models", "show", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == card
    assert run(app, ["models", "show", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in (card["weights_sha256"], *(entry["name"] for entry in card["classes"])))
    assert not set(shown) & set("[]{}"), "Python's own notation"
