"""The memory that may be used: one budget for a process, by default most of what is free, and estimates against it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shared_backbones.control_groups import groups
from shared_backbones.errors import InputError

_SHARE = 0.8  # of what is free
_ELSEWHERE = 8 * 2**30  # where the system does not say what is free
_RESERVED = 2**30  # of address space, for what libraries reserve and do not use
_chosen: int | None = None


def set_budget(gigabytes: float | None) -> None:
    """Choose the budget of this process, in GiB; None for what is free."""
    global _chosen
    _chosen = None if gigabytes is None else int(gigabytes * 2**30)


def budget() -> int:
    """Bytes that the data of an input may take: as chosen, else four fifths of what is free."""
    return int(_SHARE * free_memory()) if _chosen is None else _chosen


def limit(max_bytes: int | None) -> int:
    """The bytes that a caller allows; by default the budget."""
    return budget() if max_bytes is None else max_bytes


def free_memory() -> int:
    """Bytes that this process can still get: of the machine, of its control groups and of its own limit."""
    room = [*_free_of_machine(), *_free_of_group(), *_free_of_limit()]
    return max(0, min(room)) if room else _ELSEWHERE


def expect(needed: float, label: str, what: str) -> None:
    """Refuse what would take more memory than the budget, before it is taken.

    Args:
        needed: Estimate in bytes.
        label: Name of the input.
        what: What would take it, such as `the volume`.

    Raises:
        InputError: it would.
    """
    if needed > budget():
        raise InputError(
            f"{label}: {what} would take {_gigabytes(needed)} of memory; the limit is {_gigabytes(budget())}; "
            "raise it with --max-gigabytes if the file can be trusted"
        )


@contextlib.contextmanager
def hold(label: str, what: str) -> Iterator[None]:
    """Hold what a block allocates against the budget, where no header says it, or none that can be believed.

    Libraries get a GiB beside it for what they reserve. Systems without such a limit, and blocks in which others map
    large files, go without.

    Args:
        label: Name of the input.
        what: What the block makes of it, such as `the table`.

    Raises:
        InputError: it takes more.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
            import resource

            before = resource.getrlimit(resource.RLIMIT_AS)
            most = _mapped() + budget() + _RESERVED
            lower = [limit for limit in (most, *before) if limit != resource.RLIM_INFINITY]
            resource.setrlimit(resource.RLIMIT_AS, (min(lower), before[1]))
            stack.callback(resource.setrlimit, resource.RLIMIT_AS, before)
        try:
            yield
        except MemoryError:
            raise InputError(
                f"{label}: {what} would take more memory than the limit, {_gigabytes(budget())}; raise it with "
                "--max-gigabytes if the file can be trusted"
            ) from None


def _gigabytes(size: float) -> str:
    """Bytes as a reader takes them in; small ones round to what a user would type."""
    size_gb = size / 2**30
    return f"{size_gb:,.0f} GB" if size_gb >= 100 else f"{size_gb:.2g} GB"


def _free_of_machine() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _free_of_group() -> Iterator[int]:
    """What each control group that this process is in still has, up to the topmost that can be seen."""
    for version, group in groups("memory"):
        limit, used = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
        yield from _left(group / f"memory.{limit}", group / f"memory.{used}")


def _left(limit: Path, used: Path) -> Iterator[int]:
    """What a control group still has; nothing where it has no limit."""
    with contextlib.suppress(OSError, ValueError):
        yield int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))


def _free_of_limit() -> Iterator[int]:
    """What `ulimit -v` leaves."""
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            yield limit - _mapped()


def _mapped() -> int:
    """Bytes of this process's address space that are taken."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
