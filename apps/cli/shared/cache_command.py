"""The verbs `cache list` and `cache clear`: what this user's cache holds, which is fetched or made anew when needed."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import typer

from apps.cli.shared.options import JsonOption, add_verb
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.terminal import say
from shared_backbones.user_cache import Kept, cache_folder, drop, kept


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What a user asks `cache list` for."""

    as_json: JsonOption = False


@dataclass(frozen=True, kw_only=True)
class ClearOptions:
    """What a user asks `cache clear` for."""


def add_cache(app: typer.Typer) -> None:
    """Give a program the commands `cache list|clear`."""
    cache = typer.Typer(help="Models that were fetched, and networks that an engine converted, in this user's cache.")
    app.add_typer(cache, name="cache")

    def list_cache(options: ListOptions) -> None:
        """List what the cache holds: kind, size, when it was used last, and the name of its folder."""
        entries = kept()
        if options.as_json:
            print(json.dumps({"folder": str(cache_folder()), "entries": [_row(entry) for entry in entries]}, indent=2))
            return
        for entry in entries:
            row = _row(entry)
            say(f"{row['kind']:6}  {entry.size / 1e6:8.1f} MB  {row['used']}  {row['name']}")
        say(f"cache: {printable(cache_folder())}: {sum(entry.size for entry in entries) / 1e6:.1f} MB")

    def clear_cache(options: ClearOptions) -> None:
        """Empty the cache; its models are fetched, and its networks converted, anew when they are needed."""
        entries = kept()
        for entry in entries:
            try:
                drop(entry)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise InputError(f"{printable(entry.path)}: cannot be removed ({reason}); remove it by hand") from None
        say(f"cache: removed {sum(entry.size for entry in entries) / 1e6:.1f} MB from {printable(cache_folder())}")

    add_verb(cache, list_cache, "list")
    add_verb(cache, clear_cache, "clear")


def _row(entry: Kept) -> dict[str, str | int]:
    """An entry in JSON types."""
    used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
    return {"kind": entry.kind, "name": entry.path.name, "bytes": entry.size, "used": used}
