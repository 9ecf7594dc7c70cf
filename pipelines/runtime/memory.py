"""What becomes of memory that is freed: a long training keeps it, a program that is short of it gives it back."""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`, see its manual page."""
_SMALL = 2**23
_CHOICES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let the C library keep memory that is freed, unless the user has set how; a step asks for the same again.

    glibc gives each large block back to the system as soon as a tensor is freed, and the system clears every page of
    the next one: a fifth to two fifths of the CPU time of a step of a 3-D network, up to a tenth of one of slices
    (glibc 2.36, torch 2.14). The price is a process that is up to a quarter larger.

    Returns:
        Whether it was set: glibc is the C library, and no `MALLOC_...` variable of it says otherwise.
    """
    return _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})


def _set(parameters: dict[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _CHOICES):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) for parameter, value in parameters.items())
