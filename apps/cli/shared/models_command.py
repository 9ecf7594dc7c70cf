"""`models list` and `models show`: the trained models at hand."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.options import add_verb
from shared_backbones.card import Card
from shared_backbones.catalogue import Catalogue
from shared_backbones.json_values import Json
from shared_backbones.terminal import say


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What a user asks `models list` for."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """What a user asks `models show` for."""

    name: Annotated[str, typer.Argument(help="Bundled name or trained-model folder.")]
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as it is.")] = False


def add_models(app: typer.Typer, domain: str, listing: Callable[..., None] | None = None) -> typer.Typer:
    """Give a program the commands `models list|show`, for the trained models of a domain; returns their group.

    Args:
        app: The program.
        domain: Its domain.
        listing: What lists the models, where there are others than the bundled ones.
    """
    models = typer.Typer(help="Trained models: list them, show what one can and cannot do.")
    app.add_typer(models, name="models")

    def list_models(options: ListOptions) -> None:
        """List the bundled models: what each takes and does, how well, how large it is, and its licence."""
        list_bundled(domain, options)

    def show_model(options: ShowOptions) -> None:
        """Show what a model does, expects, was trained on, and cannot do."""
        card = Catalogue(domain).model_card(options.name)
        if options.as_json:
            print(json.dumps(card, indent=2))
        else:
            _print_card(card)

    add_verb(models, listing or list_models, "list")
    add_verb(models, show_model, "show")
    return models


def list_bundled(domain: str, options: ListOptions) -> None:
    """Print the bundled models of a domain."""
    catalogue = Catalogue(domain)
    models = catalogue.bundled_models()
    cards = {name: catalogue.model_card(name) for name in models}
    if options.as_json:
        print(json.dumps(list(cards.values()), indent=2))
        return
    rows = [
        [name, card["version"], card["license"], _size(models[name]), _takes(card), card["description"]]
        for name, card in cards.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for name, *row in rows:
        say("  ".join(f"{text:{width}}" for text, width in zip([name, *row], [*widths, 0], strict=True)).rstrip())
        if headline := cards[name].get("metrics", {}).get("headline"):
            say(f"{'':{widths[0]}}  {headline}")


def _size(folder: Path) -> str:
    """Size of a model's weights."""
    from shared_backbones.weights import WEIGHTS

    return f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB"


def _takes(card: Card) -> str:
    """What a model is for, in a few words: the modality or the bands of its input."""
    given = card["input"]
    if given.get("needed"):
        return f"any bands with {_words(given['needed'])}"
    return _words(given.get("modality") or given.get("channels") or given.get("bands"))


def _print_card(card: Card) -> None:
    """The card for a reader, what the model cannot do first."""
    about = ("name", "version", "description", "license", "architecture", "weights_sha256")
    _print_entries({key: card.get(key) for key in about})
    print()
    say("limits")
    for limit in card.get("limits", []):
        say(f"  {limit}")
    for key in ("input", "training", "metrics"):
        if card.get(key):
            print()
            say(key)
            _print_entries(card[key], "  ")
    print()
    say("labels")
    for entry in card.get("classes", []):
        say(f"  {entry['id']:3} {entry['name']}")


def _print_entries(entries: Mapping[str, Json], indent: str = "") -> None:
    for key, value in entries.items():
        name = f"{indent}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            say(name)
            _print_entries(value, indent + "  ")
        else:
            say(f"{name:28}{_words(value)}")


def _words(value: Json) -> str:
    """A value of a card for a reader; of lists in a list, each after a semicolon."""
    if isinstance(value, list):
        return ("; " if any(isinstance(part, list) for part in value) else ", ").join(map(_words, value))
    return "-" if value is None else str(value)
