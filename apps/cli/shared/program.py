"""What all programs share: exit codes, one-line errors, and words for the terminal."""

import errno
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from pipelines.runtime import preemption
from pipelines.runtime.stopping import Terminated, stopping
from pipelines.runtime.threads import sleep_while_waiting
from shared_backbones.catalogue import Catalogue, by_name
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.terminal import lasting_output

OUT_OF_MEMORY = "out of memory; use a machine with more, or a smaller input"
_NO_MEMORY = re.compile(
    r"can't allocate memory|failed to map segment|cannot allocate memory|unable to allocate|out of memory", re.I
)
_IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES)  # paths of which not even this can be asked: is it there
_LONGEST_LINE = 1400  # characters of an error
COMPLETE, BUG, USER_ERROR, PARTLY_FAILED, INTERRUPTED = 0, 1, 2, 5, 130


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run a program and return its exit code.

    0 complete, 2 something the user can fix (one line on stderr), 5 part of a batch failed, 130 interrupted, 128 and
    the signal's number where SIGTERM or SIGHUP ended it. A bug raises, and the interpreter exits with 1. Commands that
    listen to SIGTERM and SIGUSR1 return 143 when preempted. Work goes on where the reader of its output leaves.
    """
    sleep_while_waiting()
    with lasting_output() as outputs:
        try:
            os.getcwd()  # which libraries look for while they load, and end the process
        except OSError:
            return _refuse("the current folder was deleted, or may not be read; change to another one")
        try:
            with stopping():
                code = _run(app, arguments)
                sys.stdout.flush()
        except KeyboardInterrupt:
            return _refuse("interrupted; nothing was left half-written", INTERRUPTED)
        except Terminated as signal:
            return _refuse("terminated; nothing was left half-written", 128 + signal.number)
        failure = outputs[0].failure
        if failure is not None and code == COMPLETE:
            return _refuse(f"standard output: cannot be written ({failure.strerror}); results that are files are there")
        return code


def _run(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    # Not by calling `app`: that turns interrupts and broken pipes into exit codes of its own.
    command = typer.main.get_command(app)
    try:
        with command.make_context(command.name, list(sys.argv[1:] if arguments is None else arguments)) as context:
            code = command.invoke(context)
    except InputError as error:
        return _refuse(OUT_OF_MEMORY if is_out_of_memory(error) else str(error))
    except preemption.Preempted:
        return _refuse(preemption.goodbye(), preemption.EXIT_CODE)
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:
        if is_out_of_memory(error):
            return _refuse(OUT_OF_MEMORY)
        if isinstance(error, OSError) and error.errno in _IMPOSSIBLE and error.filename is not None:
            return _refuse(f"{str(error.filename)[:200]}: cannot be used ({error.strerror}); check the path")
        message = getattr(error, "format_message", None)  # what the command line's parser raises
        if message is None:
            raise
        return _refuse(f"{message().rstrip('.')}; see --help")
    return code if isinstance(code, int) else COMPLETE


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it came from, says that there is no memory left; libraries say so in many ways."""
    seen: BaseException | None = error
    while seen is not None:
        no_room = isinstance(seen, OSError) and seen.errno == errno.ENOMEM
        if no_room or isinstance(seen, MemoryError) or _NO_MEMORY.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _refuse(line: str, code: int = USER_ERROR) -> int:
    text = by_name(printable(" ".join(line.split())))
    if len(text) > _LONGEST_LINE:  # the way out is at its end
        text = f"{text[: _LONGEST_LINE // 2]}[...]{text[-_LONGEST_LINE // 2 :]}"
    print(f"error: {text}", file=sys.stderr)
    return code


def find_model(model: str, domain: str) -> Path:
    """Folder of what `--model` names: a registered model's copy, a model that comes with the domain, or a folder.

    Raises:
        InputError: there is none of that name.
    """
    if model.startswith(("models:/", "runs:/")):
        from pipelines.tracking.registry import resolve_model

        return resolve_model(model)
    return Catalogue(domain).find_model(model)
