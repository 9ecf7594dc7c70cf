"""`--shard I/N`: one of N equal parts of an input, so that the jobs of an array share it out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from apps.cli.shared.options import Parsed
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries

T = TypeVar("T")


class NoInputs(Exception):
    """A shard has no input, which is no failure: there is nothing to do and nothing to write."""


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def read(cls, text: str) -> "Shard":
        """The shard that a text such as `3/10` names.

        Raises:
            InputError: the text names none.
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--shard {printable(text)}: expected I/N with I from 1 to N, such as 3/10")
        return cls(int(match[1]), int(match[2]))

    def rows(self, count: int) -> range:
        """The numbers of its items among `count`: a run of them; all shards together have each once.

        Raises:
            NoInputs: it has none.
        """
        rows = range(count * (self.number - 1) // self.count, count * self.number // self.count)
        if not rows:
            raise NoInputs(f"shard {self}: has none of {count} inputs; nothing to do")
        return rows

    def beside(self, path: Path) -> Path:
        """Where a table of this shard goes: `out.csv` becomes `out.3-of-10.csv`."""
        return path.with_name(f"{path.stem}.{self.number}-of-{self.count}{path.suffix}")


class ShardedTable:
    """Where the options of a verb put a table and pictures: of the whole input, or of a shard.

    Attributes:
        output: Table of the whole input.
        grad_cam: Folder for pictures of the whole input; None for none.
        shard: Part of the input that is taken alone.
    """

    output: Path
    grad_cam: Path | None
    shard: Shard | None

    @property
    def table(self) -> Path:
        """The table to write."""
        return self.shard.beside(self.output) if self.shard else self.output

    @property
    def cam_folder(self) -> Path | None:
        """The folder for pictures."""
        return self.shard.beside(self.grad_cam) if self.shard and self.grad_cam else self.grad_cam


def part_of(items: Sequence[T], shard: Shard | None) -> list[T]:
    """The shard's items; all without one.

    Raises:
        NoInputs: it has none.
    """
    return list(items) if shard is None else [items[row] for row in shard.rows(len(items))]


def part_facts(shard: Shard | None, inputs: int, facts: Entries) -> Entries:
    """What the side-car of a part says, so that the parts can become one table again; nothing for a whole one.

    Args:
        shard: The part.
        inputs: Number of inputs of all parts together.
        facts: What only the inputs themselves say, such as `digests`.
    """
    return {} if shard is None else {"shard": {"number": shard.number, "count": shard.count, "inputs": inputs, **facts}}


ShardOption = Annotated[
    Shard | None,
    Parsed(Shard.read),
    typer.Option(metavar="I/N", help="Take part I of N of the input alone, I from 1 to N."),
]
