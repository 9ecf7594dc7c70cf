"""What a training leaves beside its model: its figures by step and, where it went wrong, what happened."""

import contextlib
import json
from pathlib import Path

from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

HISTORY = "history.jsonl"
STOPPED = "stopped.json"


class Diverged(InputError):
    """Training stopped at a loss or a gradient that is not finite.

    Attributes:
        what: What was found, and where, in a few words.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"training: {what}; lower train.learning_rate, lengthen train.warmup_steps, set train.gradient_clip=1, or "
            "look for extreme values in the data"
        )
        self.what = what


def read_lines(history: Path) -> list[tuple[int, dict[str, float]]]:
    """Figures by step, in order; a step that was done again has its later figures, and a line cut off is none."""
    figures: dict[int, dict[str, float]] = {}
    for line in history.read_text(encoding="utf-8").splitlines() if history.exists() else ():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            figures.setdefault(int(entry.pop("step")), {}).update(entry)
    return sorted(figures.items())


def note_stop(folder: Path, problem: Diverged) -> None:
    """Keep what happened, for the next start of the training."""
    (folder / STOPPED).write_text(json.dumps({"what": problem.what}) + "\n", encoding="utf-8")


def read_stop(folder: Path) -> str | None:
    """What stopped the last start of a training, if anything did."""
    with contextlib.suppress(OSError, ValueError):
        content: Document = json.loads((folder / STOPPED).read_text(encoding="utf-8"))
        return str(content["what"])
    return None
