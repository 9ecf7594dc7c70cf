"""`medvision import`, `geovision import`, `astrovision import`: official checkpoints become trained-model folders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from apps.cli.shared.options import add_verb
from shared_backbones.architectures import Arguments
from shared_backbones.card import Card
from shared_backbones.documents import parse_json
from shared_backbones.errors import InputError
from shared_backbones.files import check_new_folder, new_folder
from shared_backbones.json_values import Entries
from shared_backbones.terminal import say

if TYPE_CHECKING:
    from torch import nn

DOMAINS = ("medvision", "geovision", "astrovision")


ARCHITECTURE = typer.Option(
    help="Published model; an unknown name lists those there are. geovision: or torchgeo:NAME, as `models list "
    "--torchgeo` names them."
)
CHECKPOINT = typer.Option(help="Official checkpoint (.pth, .pt, .tar or .safetensors).")
OUTPUT = typer.Option("--output", "-o", help="Folder of the trained model to write.")
ARGUMENTS = typer.Argument(metavar="NAME=VALUE", help="The model's arguments, values in JSON: num_classes=9")
NAME = typer.Option(help="Name of the model; by default the folder's.")
LICENSE = typer.Option(help="Licence of the weights.")
ACCEPT_LICENSE = typer.Option("--accept-license", help="Accept terms that forbid some uses, or that nobody names.")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a user asks `import` for."""

    architecture: Annotated[str, ARCHITECTURE]
    checkpoint: Annotated[Path, CHECKPOINT]
    output: Annotated[Path, OUTPUT]
    arguments: Annotated[list[str] | None, ARGUMENTS] = None
    name: Annotated[str | None, NAME] = None
    license: Annotated[str, LICENSE] = "unknown"
    accept_license: Annotated[bool, ACCEPT_LICENSE] = False


Libraries: TypeAlias = "Mapping[str, Callable[[str, ImportOptions], tuple[nn.Module, Entries]]]"
"""By the name of a library, what reads a checkpoint of weights that it names: a network, and entries of its card."""


def add_import(app: typer.Typer, domain: str, libraries: "Libraries | None" = None) -> None:
    """Give a program the command `import`, which reads published weights, not those of another domain.

    Args:
        app: The program.
        domain: Its domain.
        libraries: Libraries whose weights it takes by name, too: `--architecture LIBRARY:NAME`.
    """

    def import_model(options: ImportOptions) -> None:
        """Turn an official checkpoint into a trained-model folder (model.safetensors and model.json).

        The checkpoint is read as plain tensors: nothing in it is executed.
        """
        library, _, member = options.architecture.partition(":")
        if libraries and library in libraries and member:
            card = import_named(libraries, library, member, options)
            return report_import(options.output, card)
        import_published(
            domain,
            options.architecture,
            options.checkpoint,
            options.output,
            options.arguments,
            options.name,
            options.license,
            options.accept_license,
        )

    add_verb(app, import_model, "import")


def import_published(
    domain: str,
    architecture: str,
    checkpoint: Path,
    output: Path,
    arguments: Sequence[str] | None,
    name: str | None,
    license: str,
    accept_license: bool,
) -> None:
    """Import a checkpoint of a domain's network, and say what came of it."""
    refuse_other_domains(architecture, domain)
    terms = limiting_terms(architecture, accept_license)
    license = terms if terms and license == "unknown" else license
    given = parse_arguments(arguments or [])
    report_import(output, import_checkpoint(architecture, checkpoint, output, given, name, license))


def import_named(libraries: Libraries, library: str, member: str, options: ImportOptions) -> Card:
    """Read a checkpoint of weights that a library names and write a trained-model folder; returns the card as written.

    Raises:
        InputError: the library names no such weights, the checkpoint is none of them, an argument does not suit, nobody
            names a licence, or the folder is not empty.
    """
    check_new_folder(options.output)
    network, entries = libraries[library](member, options)
    given = {} if options.license == "unknown" else {"license": options.license}
    return _write(options.output, network, options.checkpoint, {**entries, **given}, options.name)


def report_import(output: Path, card: Card) -> None:
    """Print the line of an imported model."""
    say(f"{output}: {card['name']}, {card['architecture']}, {card['parameters']:,} parameters")


def refuse_other_domains(architecture: str, domain: str) -> None:
    """Leave the networks of a domain to its own program; those of plug-ins are everybody's.

    Raises:
        InputError: the architecture is unknown, or lies in another domain's package.
    """
    from shared_backbones import architectures

    home = architectures.find(architecture).__module__.partition(".")[0]
    if home in DOMAINS and home != domain:
        raise InputError(f"architecture {architecture!r} is a network of {home}; run `{home} import`")


def limiting_terms(architecture: str, accepted: bool) -> str | None:
    """The licence of the released weights, where it forbids some uses and the class says so (`weights_license`).

    Raises:
        InputError: there is one, and it is not accepted.
    """
    from shared_backbones import architectures

    terms: str | None = getattr(architectures.find(architecture), "weights_license", None)
    if terms and not accepted:
        raise InputError(
            f"released weights of {architecture!r} are under {terms}, which forbids commercial use; "
            "where that suits you, add --accept-license"
        )
    return terms


def import_checkpoint(
    architecture: str,
    checkpoint: Path,
    output: Path,
    arguments: Arguments,
    name: str | None,
    license: str,
) -> Card:
    """Read an official checkpoint and write a trained-model folder; returns the card as written.

    Where the network knows what the released code feeds it (`official_input`), that becomes the card's `input`.

    Raises:
        InputError: the checkpoint cannot be read or does not fit, or the folder is not empty or cannot be written.
    """
    from shared_backbones import official

    check_new_folder(output)
    network = official.load_official(architecture, checkpoint, **arguments)
    described = network.official_input() if isinstance(network, official.Described) else None
    entries = {
        "description": f"{type(network).__name__} with official weights",
        "license": license,
        **({"input": described} if described else {}),
        "training": {"source": "official checkpoint"},
    }
    return _write(output, network, checkpoint, entries, name)


def _write(output: Path, network: "nn.Module", checkpoint: Path, entries: Entries, name: str | None) -> Card:
    """Write a trained-model folder, with the hash of the checkpoint that it came of; returns the card as written."""
    import hashlib

    from shared_backbones import weights

    with checkpoint.open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    card = {
        "name": name or output.resolve().name,
        "version": "1.0.0",
        **entries,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "training": {**entries["training"], "checkpoint_sha256": source},
    }
    with new_folder(output) as folder:
        weights.save(folder, network, card)
        return weights.read_card(folder)


def parse_arguments(assignments: Sequence[str]) -> Arguments:
    """Arguments from `name=value`; a value that is no JSON is text.

    Raises:
        InputError: a word is no assignment, or a name comes twice.
    """
    arguments: Arguments = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"{assignment!r}: expected NAME=VALUE, for example num_classes=9")
        if name in arguments:
            raise InputError(f"{name}: given twice; give it once")
        try:
            arguments[name] = parse_json(value)
        except ValueError:
            arguments[name] = value
    return arguments
