"""Control groups of Linux, versions 1 and 2, as SLURM and containers set them: what they leave to this process."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_TOP, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def groups(controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of each group that limits this process in `memory` or `cpu`, up to the topmost one seen."""
    with contextlib.suppress(OSError, ValueError):
        for line in _OWN.read_text(encoding="utf-8").splitlines():
            number, controllers, name = line.split(":", 2)
            if number != "0" and controller not in controllers.split(","):
                continue
            version, top = (2, _TOP) if number == "0" else (1, _TOP / controller)
            folder = top / name.lstrip("/")
            yield from ((version, group) for group in (folder, *folder.parents) if group.is_relative_to(top))


def usable_cpus() -> int:
    """CPUs that this process can keep busy: those it may run on, within its groups' quotas of time, rounded up."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([here, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """CPUs' time that each group has; nothing for one without a limit."""
    for version, group in groups("cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # `max` is no number
            if version == 2:
                time, period = map(float, (group / "cpu.max").read_text(encoding="ascii").split())
            else:
                time, period = (
                    float((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii")) for name in ("quota", "period")
                )
            if time > 0:
                yield time / period
