"""How threads of a program wait for one another."""

import os


def sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has chosen; to be called before torch is imported.

    By default they spin: beside another process, two threads then take three times the CPU time of one, and the whole
    takes three times as long (libgomp of torch 2.14.1, `medvision segment --fast` on two busy cores). On idle cores a
    sleeping thread answers later: `segment` takes a tenth less CPU time, and about 7 % longer.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
