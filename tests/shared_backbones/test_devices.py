"""Devices and number formats, on machines with and without a GPU."""

import pytest
import torch

from shared_backbones import devices
from shared_backbones.devices import choose_device, choose_precision
from shared_backbones.errors import InputError


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that so many CUDA devices are there, and that they work or fail."""

    def pretend(count: int, problem: str | None = None) -> None:
        zeros = torch.zeros

        def allocate(*size, device="cpu"):
            if str(device).startswith("cuda") and problem:
                raise RuntimeError(problem)
            return zeros(*size)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(devices.torch, "zeros", allocate)

    return pretend


def test_auto_takes_a_gpu_that_works_and_else_the_cpu(gpus):
    gpus(0)
    assert choose_device("auto") == (torch.device("cpu"), [])
    gpus(1)
    assert choose_device("auto") == (torch.device("cuda"), [])


def test_auto_falls_back_from_a_gpu_that_does_not_work_and_says_so(gpus):
    gpus(1, "no kernel image is available\nsecond line")
    device, (warning,) = choose_device("auto")
    assert device == torch.device("cpu")
    assert warning == "cuda is there but does not work (no kernel image is available); the CPU was used"


def test_a_device_that_was_asked_for_is_taken_or_refused(gpus):
    gpus(2)
    assert choose_device("cpu") == (torch.device("cpu"), [])
    assert choose_device("cuda:1") == (torch.device("cuda:1"), [])
    with pytest.raises(InputError, match=r"device cuda:2: .*found 2 CUDA devices.*--device cpu"):
        choose_device("cuda:2")
    with pytest.raises(InputError, match=r"device mps: .*no Metal device"):
        choose_device("mps")
    gpus(1, "driver too old\nsecond line")
    with pytest.raises(InputError, match="driver too old") as caught:
        choose_device("cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:01", "cuda:٣", "cuda:1 ", "mps:0"]
)
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(InputError, match="expected auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


@pytest.mark.parametrize(
    ("native", "agreement", "expected"), [(True, 0.999, True), (True, 0.9989, False), (False, 1, False)]
)
def test_bfloat16_has_to_be_native_and_harmless(monkeypatch, native, agreement, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    for device in ("cpu", "cuda"):
        assert choose_precision("auto", torch.device(device), agreement) == ("bfloat16" if expected else "float32")
    assert choose_precision("auto", torch.device("mps"), agreement) == "float32"
    assert choose_precision("bfloat16", torch.device("cpu"), 0) == "bfloat16"
    with pytest.raises(InputError, match="'half'"):
        choose_precision("half", torch.device("cpu"), 1)
