"""Run a call in a process of its own that may take only so much, reach nothing, and touch one folder."""

import contextlib
import ctypes
import functools
import gc
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from shared_backbones.errors import InputError

GIB = 2**30
_SECONDS, _FILES, _LARGEST_FILE = 30, 256, 4 * GIB
_TOUCHED = 97
_CHANGING = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}


@dataclass(frozen=True)
class Ended:
    """How a confined call ended.

    Attributes:
        code: exit code; 2 where it raised an InputError, 1 where it raised anything else, negative for a signal.
        out: what it printed.
        err: what it printed as errors.
        peak: bytes that it took beyond what this process had.
    """

    code: int
    out: str
    err: str
    peak: int


def confined(
    call: Callable[[], Any],
    folder: Path,
    *,
    memory: int = 3 * GIB,
    bait: Path | None = None,
    seconds: int = _SECONDS,
    program: bool = False,
) -> Ended:
    """Run a call in a forked process.

    Sockets and other programs are forbidden, and so is writing anywhere but below `folder` and the system's folder for
    temporary files, and opening `bait`. Address space, processor time and open files have limits. What a `program`
    gives is its exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        told, tells = os.pipe()
        _give_back()
        child = os.fork()
        if not child:
            os.write(tells, str(_resident()).encode())
            limits = functools.partial(_limit, memory, seconds)
            _run(call, program, limits, _guard(folder, bait), out.fileno(), err.fileno())
        _, status, used = os.wait4(child, 0)
        before = int(os.read(told, 64))
        os.close(told)
        os.close(tells)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], used.ru_maxrss * 1024 - before)


def _run(
    call: Callable[[], Any], program: bool, limit: Callable[[], None], guard: Callable[..., None], out: int, err: int
) -> NoReturn:
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        if "torch" in sys.modules:  # a fork has none of the threads that its parent's torch may count on
            sys.modules["torch"].set_num_threads(1)
        gc.freeze()  # what the tests before this one left is not gone through again and again within its limits
        limit()
        sys.addaudithook(guard)
        answer = call()
        code = int(answer or 0) if program else 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BaseException:  # the parent looks at it
        traceback.print_exc()
    finally:
        try:  # a stream may be full, closed or None
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _limit(memory: int, seconds: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    space = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    files = _FILES + max(map(int, os.listdir("/proc/self/fd")))  # beyond those that the tests before this one left open
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(2 * seconds)  # of waiting, such as for the other end of a pipe


def _guard(folder: Path, bait: Path | None) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook: what it forbids ends the process at once, as an exception could be caught."""

    allowed = [folder.resolve(), Path(tempfile.gettempdir()).resolve()]

    def end(what: str) -> NoReturn:
        os.write(2, f"forbidden: {what}\n".encode("utf-8", "replace"))
        os._exit(_TOUCHED)

    def inside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True  # a descriptor
        place = Path(os.path.realpath(os.fsdecode(path)))
        return place == Path(os.devnull) or any(place.is_relative_to(parent) for parent in allowed)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith("socket.") and event not in ("socket.gethostname", "socket.__new__"):
            end(event)
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else "w" in mode
            if bait is not None and isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path) == str(bait):
                end("opened what a file named")
            if writes and not inside(path):
                end(f"wrote {path!r}")
        elif event in _CHANGING and not inside(_below(event, arguments)):
            end(f"{event} {arguments[0]!r}")

    return hook


def _below(event: str, arguments: tuple[Any, ...]) -> Any:
    """The path of an event, which may be relative to an open folder."""
    path = arguments[0]
    folder = arguments[-1] if event in ("os.remove", "os.rmdir") else -1
    return Path(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path)) if folder not in (-1, None) else path


def _give_back() -> None:
    """Return memory that the tests before this one freed: what is taken of it anew would not be counted."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
