"""Options of the programs: a verb declares its own once, as a dataclass, and `add_verb` turns it into a command.

    @dataclass(frozen=True, kw_only=True)
    class ClassifyOptions:
        input: Annotated[Path, typer.Option("--input", "-i", help="Image, or a folder of images.")]
        bands: Annotated[list[str] | None, CommaSeparated, typer.Option(help="Names, with commas.")] = None
        network: NetworkOptions = field(default_factory=NetworkOptions)

    def classify(options: ClassifyOptions) -> int:
        \"\"\"Classify images.\"\"\"

    add_verb(app, classify)

A field without a default is required. A field that is a dataclass itself stands for its fields, in its place. The
order of the fields is that of `--help`. Annotations and defaults are Typer's; a field marked with `Parsed` is typed as
one text and kept as what the function makes of it.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar, get_args, get_type_hints

import typer
from typer.models import OptionInfo


class Dataclass(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field]]


Options = TypeVar("Options", bound=Dataclass)
Value = TypeVar("Value")
Annotation: TypeAlias = Any
"""A type, or a form such as `int | None` or `Annotated[...]`, for which there is no type before Python 3.15."""


class Precision(StrEnum):
    """Number formats of the network's arithmetic."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Engine(StrEnum):
    """What runs the network."""

    torch = "torch"
    openvino = "openvino"


@dataclass(frozen=True)
class Parsed(Generic[Value]):
    """Marks a field that is typed as one text.

    Attributes:
        parse: Function that makes the value of the text, or raises an InputError.
        show: Function that makes the text of the value.
    """

    parse: Callable[[str], Value]
    show: Callable[[Value], str] = str


def _split(text: str) -> list[str]:
    """Items of a comma-separated option."""
    return [item.strip() for item in text.split(",") if item.strip()]


CommaSeparated = Parsed(_split, ",".join)


def _choose_budget(gigabytes: float | None) -> float | None:
    from shared_backbones.memory import set_budget

    set_budget(gigabytes)
    return gigabytes


BudgetOption = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=1e6,
        callback=_choose_budget,
        help="Most memory in GB that an input may take; by default most of what is free.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="CPU threads; by default all that this process may use.")
]
PrecisionOption = Annotated[Precision, typer.Option(help="Number format of the network.")]
EngineOption = Annotated[Engine, typer.Option(help="Engine that runs the network; openvino is an extra, for CPUs.")]
TrainedModelOption = Annotated[
    str, typer.Option(help="Bundled name, folder of a trained model, or models:/NAME@ALIAS.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors alone.")]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Where and how a network runs, and in how much memory."""

    device: DeviceOption = "auto"
    threads: ThreadsOption = None
    precision: PrecisionOption = Precision.auto
    engine: EngineOption = Engine.torch
    max_gigabytes: BudgetOption = None

    def keywords(self) -> dict[str, Any]:
        """What classes that run a network are given; the whole process keeps to the budget, and keeps freed memory."""
        from pipelines.runtime.memory import keep_freed_memory

        keep_freed_memory()
        return {
            "device": self.device,
            "threads": self.threads,
            "precision": self.precision.value,
            "engine": self.engine.value,
        }


def _show_version(context: typer.Context, asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from apps.cli.shared.doctor_command import commit

        made = f", commit {commit()}" if commit() else ""
        print(f"{context.find_root().info_name} (domain-vision {version('domain-vision')}{made})")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
]


def add_verb(
    app: typer.Typer, verb: Callable[[Options], int | None], name: str | None = None, help: str | None = None
) -> None:
    """Add a command to a program.

    Args:
        app: program, or group of a program's commands.
        verb: function that takes the options, an instance of a dataclass, and returns the exit code, None for 0.
        name: name of the command; by default the function's.
        help: text of the command's `--help`; by default the function's docstring.
    """
    (options,) = (hint for key, hint in get_type_hints(verb).items() if key != "return")

    def command(**values: Any) -> int | None:
        return verb(_build(options, values))

    command.__dict__["__signature__"] = inspect.Signature(list(_parameters(options)))
    command.__doc__ = verb.__doc__
    app.command(name or verb.__name__, help=help)(command)


def arguments_of(options: Dataclass, without: Collection[str] = ()) -> list[str]:
    """What to type to get the options: those that differ from their defaults.

    Args:
        options: Options of a verb.
        without: Names of fields that are left out.
    """
    arguments: list[str] = []
    for field, hint in _fields(type(options)):
        value = getattr(options, field.name)
        if field.name in without or value is None:
            continue
        if is_dataclass(value) and not isinstance(value, type):
            arguments += arguments_of(value, without)
        elif field.default is MISSING or value != field.default:
            arguments += _typed(field.name, hint, value)
    return arguments


def _typed(name: str, hint: Annotation, value: Any) -> list[str]:
    """What to type to give an option a value."""
    option = next(mark for mark in get_args(hint)[1:] if isinstance(mark, OptionInfo))
    names = [str(option.default), *(option.param_decls or ())]  # in `Annotated`, Typer has the first name as default
    flag = next((part for part in names if part.startswith("--")), f"--{name.replace('_', '-')}")
    if isinstance(value, bool):
        return [flag]
    parsed = next((mark for mark in get_args(hint)[1:] if isinstance(mark, Parsed)), None)
    texts = [parsed.show(value)] if parsed else value if isinstance(value, list) else [value]
    return [f"{flag}={text}" for text in texts]


def _parameters(options: type[Options]) -> Iterator[inspect.Parameter]:
    """Parameters as Typer reads them, one for each field."""
    for field, hint in _fields(options):
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _parameters(hint)
            continue
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        if _parser(hint) is not None:
            text = str if field.default is MISSING else str | None
            hint = Annotated[text, *(mark for mark in get_args(hint)[1:] if not isinstance(mark, Parsed))]
        yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _build(options: type[Options], values: Mapping[str, Any]) -> Options:
    """The options, of the values that the command line gives."""
    arguments = {}
    for field, hint in _fields(options):
        if isinstance(hint, type) and is_dataclass(hint):
            arguments[field.name] = _build(hint, values)
            continue
        value, parse = values[field.name], _parser(hint)
        arguments[field.name] = value if parse is None or value is None else parse(value)
    return options(**arguments)


def _fields(options: type[Options]) -> Iterator[tuple[Field, Annotation]]:
    """Fields of a dataclass, and their annotations."""
    hints = get_type_hints(options, include_extras=True)
    return ((field, hints[field.name]) for field in fields(options))


def _parser(hint: Annotation) -> Callable | None:
    """The function of an annotation's `Parsed`."""
    return next((mark.parse for mark in get_args(hint)[1:] if isinstance(mark, Parsed)), None)
