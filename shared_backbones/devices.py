"""Which device and which number format a network runs in."""

import torch

from shared_backbones.errors import InputError

_AGREEMENT = 0.999  # share of outputs that bfloat16 must leave as they are


def choose_device(name: str) -> tuple[torch.device, list[str]]:
    """Turn a device's name into a device that works here.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Returns:
        The device, and a warning where `auto` found a GPU that does not work and fell back to the CPU.

    Raises:
        InputError: the name is unknown, or the device is not there.
    """
    if name == "auto":
        for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
            if not there:
                continue
            try:
                torch.zeros(1, device=kind)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                return torch.device("cpu"), [f"{kind} is there but does not work ({reason}); the CPU was used"]
            return torch.device(kind), []
        return torch.device("cpu"), []
    kind, _, number = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (number and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name}: found {torch.cuda.device_count()} CUDA devices; run with --device cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps: there is no Metal device here; run with --device cpu or auto")
    return torch.device(name), []


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
