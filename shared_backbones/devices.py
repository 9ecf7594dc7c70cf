"""Which device and which number format a network runs in."""

import os
import re

import torch

from shared_backbones.control_groups import usable_cpus
from shared_backbones.errors import InputError

_AGREEMENT = 0.999  # share of outputs that bfloat16 must leave as they are


def choose_device(name: str) -> tuple[torch.device, list[str]]:
    """Turn a device's name into a device that works here.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Returns:
        The device, and a warning where `auto` found a GPU that does not work and fell back to the CPU.

    Raises:
        InputError: the name is unknown, or the device is not there or does not work.
    """
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        available = next((kind for kind in there if there[kind]), None)
        problem = _problem(available) if available else None
        if problem:
            return torch.device("cpu"), [f"{available} is there but does not work ({problem}); the CPU was used"]
        return torch.device(available or "cpu"), []
    if not re.fullmatch(r"cpu|mps|cuda(:(0|[1-9][0-9]{0,2}))?", name):
        raise InputError(f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps")
    problem = _problem(name)
    if problem:
        raise InputError(f"device {name}: cannot be used ({problem}); run with --device cpu or auto")
    return torch.device(name), []


def _problem(device: str) -> str | None:
    """Why nothing can be computed on a device, in one line; None where it works."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        return f"found {torch.cuda.device_count()} CUDA devices"
    if kind == "mps" and not torch.backends.mps.is_available():
        return "found no Metal device"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        return str(error).partition("\n")[0]
    return None


def choose_threads(threads: int | None) -> None:
    """Choose the CPU threads of this process.

    Args:
        threads: As many; None for torch's choice, and no more than the CPUs that this process may use, of which torch
            knows no quota (as of `docker run --cpus`). Where `OMP_NUM_THREADS` is set, that is kept.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    elif "OMP_NUM_THREADS" not in os.environ and usable_cpus() < torch.get_num_threads():
        torch.set_num_threads(usable_cpus())


def choose_precision(name: str, device: torch.device, agreement: float) -> str:
    """Number format of the network's arithmetic.

    Args:
        name: `auto`, `float32` or `bfloat16`.
        device: where the network runs.
        agreement: share of outputs that were measured to be the same in bfloat16 as in float32; 0 if never measured.

    Returns:
        `float32` or `bfloat16`; `auto` takes bfloat16 where the hardware computes in it and `agreement` is at least
        0.999.

    Raises:
        InputError: the name is unknown.
    """
    if name not in {"auto", "float32", "bfloat16"}:
        raise InputError(f"precision {name!r}: expected auto, float32 or bfloat16")
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if native and agreement >= _AGREEMENT else "float32"
