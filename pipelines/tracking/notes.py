"""What an output folder says of a run: which one of the store it is, what it is of, and what came of it."""

import json
from pathlib import Path
from types import UnionType
from typing import NotRequired, TypedDict, cast

from shared_backbones.files import replacing
from shared_backbones.json_values import Entries, Json


class RunNote(TypedDict):
    """A run, as `OUTPUT/runs/NAME.json` has it.

    Attributes:
        run_id: Its id in the tracking store.
        uri: Address of that store, without user and password.
        name: Name of the run; this and what follows is there once the run is complete.
        settings: What is shown of the recipe, by dotted key, as the store has it.
        data: Digest of the data of each split.
        figures: Figures of validation and test.
        evaluation: Folder of the evaluation, below the output folder; None where there is none.
    """

    run_id: str
    uri: str
    name: NotRequired[str]
    settings: NotRequired[dict[str, str]]
    data: NotRequired[dict[str, str]]
    figures: NotRequired[dict[str, float]]
    evaluation: NotRequired[str | None]


def read_note(path: Path) -> RunNote | None:
    """The note of an earlier start; None where there is none, or what is there is none."""
    try:
        note: Entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("RunNote", note) if _is_note(note) else None


def _is_note(note: Json) -> bool:
    return (
        isinstance(note, dict)
        and all(isinstance(note.get(key), str) for key in ("run_id", "uri"))
        and all(_is_mapping(note.get(key, {}), str) for key in ("settings", "data"))
        and _is_mapping(note.get("figures", {}), int | float)
        and isinstance(note.get("evaluation"), str | None)
    )


def _is_mapping(value: Json, kind: type | UnionType) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, kind) for entry in value.values())


def write_note(path: Path, note: RunNote) -> None:
    """Keep a note."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(note), encoding="utf-8")
