"""What all programs share: exit codes, one-line errors, and words for the terminal."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from pipelines.runtime import preemption
from pipelines.runtime.threads import sleep_while_waiting
from shared_backbones.catalogue import Catalogue
from shared_backbones.errors import InputError
from shared_backbones.files import printable

COMPLETE, BUG, USER_ERROR, PARTLY_FAILED, INTERRUPTED = 0, 1, 2, 5, 130


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run a program and return its exit code.

    0 complete, 2 something the user can fix (one line on stderr), 5 part of a batch failed, 130 interrupted. A bug
    raises, and the interpreter exits with 1. Commands that listen to SIGTERM and SIGUSR1 return 143 when preempted.
    """
    sleep_while_waiting()
    # Not by calling `app`: that turns interrupts and broken pipes into exit codes of its own.
    command = typer.main.get_command(app)
    try:
        with command.make_context(command.name, list(sys.argv[1:] if arguments is None else arguments)) as context:
            code = command.invoke(context)
        sys.stdout.flush()
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _refuse("interrupted; nothing was left half-written", INTERRUPTED)
    except preemption.Preempted:
        return _refuse(preemption.goodbye(), preemption.EXIT_CODE)
    except MemoryError:
        return _refuse("out of memory; use a machine with more, or a smaller scan")
    except BrokenPipeError:
        # Whoever read our output has left. The interpreter's last flush must not complain of it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:
        message = getattr(error, "format_message", None)  # what the command line's parser raises
        if message is None:
            raise
        return _refuse(f"{message().rstrip('.')}; see --help")
    return code if isinstance(code, int) else COMPLETE


def _refuse(line: str, code: int = USER_ERROR) -> int:
    print(f"error: {printable(' '.join(line.split()))}", file=sys.stderr)
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
