"""The verb `merge`: what the shards of an array wrote, as one result."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.shared.journal import journal_folder, records
from apps.cli.shared.options import JsonOption, QuietOption, add_verb
from apps.cli.shared.outputs import OverwriteOption
from apps.cli.shared.program import run
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.terminal import say

if TYPE_CHECKING:
    from apps.cli.shared.merging import Join


_VERBS = ("segment", "map")  # those whose output is a folder


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """What a user asks `merge` for."""

    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table or folder that was the output of all shards together.")
    ]
    overwrite: OverwriteOption = False
    as_json: JsonOption = False
    quiet: QuietOption = False


def add_merge(app: typer.Typer, join: "Callable[[], Join]") -> None:
    """Give a program the verb `merge`.

    Args:
        app: The program.
        join: Gives the function that writes rows of its tables; called when it is needed, as it imports much.
    """

    def merge(options: MergeOptions) -> int:
        """Put together what the shards of an array wrote: one table and side-car, or the index of a folder."""
        if options.output.is_dir() or not options.output.suffix:
            return _merge_folder(app, options)
        return _merge_tables(options, join())

    add_verb(app, merge)


def _merge_tables(options: MergeOptions, join: "Join") -> int:
    from apps.cli.shared.classification import report
    from apps.cli.shared.merging import merge_tables

    content, code = merge_tables(options.output, join, overwrite=options.overwrite)
    if options.as_json or "classes" in content:
        report(content, options.output, as_json=options.as_json, quiet=options.quiet)
    elif not options.quiet:
        say(f"{printable(options.output)}: {content['vectors']} vectors from {len(content['inputs'])} scenes")
    if content["failed"]:
        say(f"error: {content['failed']} inputs failed; the logs of the shards name them", file=sys.stderr)
    return code


def _merge_folder(app: typer.Typer, options: MergeOptions) -> int:
    """Do the verb's work over the whole input: all that is left of it is the index."""
    from apps.cli.shared.merging import check_ended

    folder = journal_folder(options.output)
    notes = list(records(folder).values())
    if not notes:
        raise InputError(
            f"{printable(folder)}: has no notes of shards; expected those of --on, or of --journal {folder}"
        )
    check_ended(options.output)
    first = notes[0]
    if any(note.get("command") != first.get("command") for note in notes):
        raise InputError(
            f"{printable(folder)}: shards were made with different models or settings; repeat all of them, without "
            "--resume"
        )
    flags = {"--overwrite": options.overwrite, "--json": options.as_json, "--quiet": options.quiet}
    command = [str(part) for part in first.get("command", ())]
    if not command or command[0] not in _VERBS:
        raise InputError(f"{printable(folder)}: is not of {' or '.join(_VERBS)}; name the table that shards wrote")
    command += ["--resume", f"--journal={folder}", f"--output={options.output.absolute()}"]
    command += [flag for flag, asked in flags.items() if asked and flag not in command]
    home = Path(str(first.get("folder")))
    with contextlib.chdir(home if home.is_dir() else "."):
        return run(app, command)
