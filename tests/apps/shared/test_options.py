"""A verb's options, declared once as a dataclass."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from apps.cli.shared.options import CommaSeparated, NetworkOptions, Precision, add_verb, arguments_of
from apps.cli.shared.program import run
from apps.cli.shared.sharding import Shard, ShardOption


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """What a user asks `copy` for."""

    source: Annotated[Path, typer.Argument(help="File to copy.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to.")]
    bands: Annotated[list[str] | None, CommaSeparated, typer.Option(help="Bands to keep.")] = None
    shard: ShardOption = None
    network: NetworkOptions = field(default_factory=NetworkOptions)
    times: Annotated[int, typer.Option(min=1, help="How often.")] = 1


@pytest.fixture
def copied() -> list[CopyOptions]:
    return []


@pytest.fixture
def app(copied: list[CopyOptions]) -> typer.Typer:
    app = typer.Typer()

    @app.callback()
    def program() -> None:
        """A program of several verbs."""

    def copy(options: CopyOptions) -> int:
        """Copy a file."""
        copied.append(options)
        return 5

    add_verb(app, copy)
    return app


def test_options_become_the_dataclass(app, copied):
    assert run(app, ["copy", "a", "-o", "b"]) == 5
    assert run(app, ["copy", "a", "-o", "b", "--bands", "r, g,", "--shard", "2/3", "--threads", "3"]) == 5
    plain, full = copied
    assert plain == CopyOptions(source=Path("a"), output=Path("b"))
    assert (full.bands, full.shard) == (["r", "g"], Shard(2, 3))
    assert full.network == NetworkOptions(device="auto", threads=3, precision=Precision.auto)
    assert json.loads(json.dumps(asdict(full.network)))["precision"] == "auto"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a"], "--output"),
        (["a", "-o", "b", "--times", "0"], "--times"),
        (["a", "-o", "b", "--shard", "4/3"], "--shard 4/3: expected I/N"),
        (["a", "-o", "b", "--precision", "float8"], "float32"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(app, copied, capsys, arguments, said):
    assert run(app, ["copy", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not copied


def test_help_has_the_fields_in_their_order(app, capsys):
    assert run(app, ["copy", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Copy a file." in text
    names = ["File to copy.", "--output", "--bands", "--shard", "--device", "--threads", "--precision", "--times"]
    places = [text.index(name) for name in names]
    assert places == sorted(places)


@dataclass(frozen=True, kw_only=True)
class _Inner:
    scale: Annotated[float | None, typer.Option(help="A number.")] = None
    names: Annotated[list[str] | None, CommaSeparated, typer.Option(help="Names.")] = None


@dataclass(frozen=True, kw_only=True)
class _Everything:
    input: Annotated[Path, typer.Option("--input", "-i", help="A path.")]
    precision: Annotated[Precision, typer.Option(help="A choice.")] = Precision.auto
    as_json: Annotated[bool, typer.Option("--json", help="A flag.")] = False
    count: Annotated[int, typer.Option(help="A whole number.")] = 3
    many: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None
    inner: _Inner = field(default_factory=_Inner)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5)
NAMES = st.text("abc_é ", min_size=1, max_size=4).filter(lambda name: name == name.strip() != "")


@given(
    st.builds(
        _Everything, input=WORDS.map(Path), precision=st.sampled_from(Precision), as_json=st.booleans(),
        count=st.integers(-9, 9), many=st.none() | st.lists(WORDS, min_size=1, max_size=3),
        inner=st.builds(
            _Inner, scale=st.none() | st.floats(allow_nan=False, allow_infinity=False),
            names=st.none() | st.lists(NAMES, min_size=1, max_size=3),
        ),
    )
)  # fmt: skip
def test_what_is_typed_again_gives_the_same_options(options: _Everything):
    given_again: list[_Everything] = []

    def verb(options: _Everything) -> None:
        given_again.append(options)

    app = typer.Typer()
    add_verb(app, verb)
    assert run(app, arguments_of(options)) == 0
    assert given_again == [options]
    assert not any(part.startswith("--scale") for part in arguments_of(options, without=("inner",)))
