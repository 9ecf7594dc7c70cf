"""A trained network for satellite images, loaded once, with its contract, on the device where it runs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geovision.contract import InputContract
from shared_backbones import weights
from shared_backbones.card import Provenance, provenance_of
from shared_backbones.devices import choose_device, choose_precision, choose_threads
from shared_backbones.engines import TORCH, Accelerated, check_engine, describe, identity_of, same_labels, same_values
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.inference import COPIES, PeakOfTensors, optimize_for_inference
from shared_backbones.json_values import Entries

_MULTIPLE = 32  # of pixels: sides of tiles, mostly
_GROUP = 2 * 256**2  # pixels that the network sees at once on a CPU: more takes memory, and no less time


class LoadedNetwork:
    """What mapping and embedding share.

    Args:
        model: folder of a trained model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads of this process; by default torch's choice, within its quota of CPUs.
        precision: `auto`, `float32` or `bfloat16`; `auto` takes bfloat16 where the hardware computes in it and the card
            says that it was measured to agree.
        engine: `torch`, or `openvino` for the CPU; see `shared_backbones.engines`.

    Attributes:
        card: the model's `model.json`.
        sha256: SHA-256 of its weights.
        contract: what it expects of a scene.
        any_size: whether the network takes images of any size.
        warnings: what a user should know.

    Raises:
        InputError: no such model, device, precision or engine, or its card is of no model for satellite images.
    """

    any_size = False
    _pixel_bytes = 0.0

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        engine: str = "torch",
    ) -> None:
        choose_threads(threads)
        if not os.path.isdir(model):
            raise InputError(f"model {printable(model)}: no such folder; expected one with model.json")
        self.device, self.warnings = choose_device(device)
        trained = weights.load(model)
        self.card, self.sha256 = trained.card, trained.sha256
        self.contract = InputContract.from_card(trained.card, str(model))
        agreement = float(self.card.get("bfloat16_agreement", 0))
        self._precision = choose_precision(precision, self.device, agreement)
        self._is_asked_for = precision == self._precision
        check_engine(engine, self.device)
        self._engine = engine
        self._accelerated: dict[str, Accelerated] = {}
        network: Any = optimize_for_inference(trained.module)
        self.network = network.to(device=self.device, memory_format=torch.channels_last)

    def __call__(self, numbers: Tensor, valid: Tensor, method: str = "forward", *, trial: bool = False) -> Tensor:
        """Run a method of the network on a batch.

        Args:
            numbers: `(B, C, H, W)` float32, in the model's numbers, on the CPU.
            valid: `(B, H, W)` bool.
            method: name of a method of the network.
            trial: whether this only finds out what the network takes: torch runs it then.

        Returns:
            What the method returns, float32, on the device.
        """
        numbers = numbers.to(self.device, non_blocking=True)
        images = self.contract.normalise(numbers, valid.to(self.device, non_blocking=True))
        images = images.contiguous(memory_format=torch.channels_last)
        if self._engine != TORCH and not trial:
            return self._accelerate(method)(images)[0]
        on_cpu = self.device.type == "cpu"
        group = group_of(images.shape[2] * images.shape[3]) if on_cpu else max(1, len(images))
        run, bfloat16 = getattr(self.network, method), self._precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            return torch.cat([run(part).float() for part in images.split(group)])

    def _measured(self, size: int, run: Callable[[Tensor, Tensor], Tensor]) -> tuple[int, ...]:
        """Run on one image of zeros, and keep what the network takes for a pixel; returns the shape of its answer.

        Args:
            size: side of the image.
            run: given the image and its valid pixels.
        """
        zeros = torch.zeros(1, len(self.contract.bands), size, size)
        with PeakOfTensors() as tensors:
            shape = tuple(run(zeros, torch.ones(1, size, size, dtype=torch.bool)).shape)
        self._pixel_bytes = COPIES * tensors.peak / size**2
        return shape

    def _network_bytes(self, size: int, images: int = 1) -> float:
        """Estimate of the bytes of this machine's memory that the network takes for some images of a size."""
        at_once = min(images, group_of(size**2))
        return self._pixel_bytes * size**2 * at_once if self.device.type == "cpu" else 0.0

    @property
    def precision(self) -> str:
        """Number format of the network's arithmetic: `float32` or `bfloat16`."""
        return [self._precision, *(used.precision for used in self._accelerated.values())][-1]

    def described(self) -> Entries:
        """What a side-car says of where and how the network ran."""
        how = describe(self.network, [None, *self._accelerated.values()][-1])
        return {"device": str(self.device), "precision": self.precision, **how}

    def _accelerate(self, method: str) -> Accelerated:
        """A method of the network as the engine runs it."""
        key = json.dumps([method, getattr(self.network, "wavelengths", None)])  # which a scene's sensor may set anew
        if key not in self._accelerated:
            self._accelerated[key] = Accelerated(
                self.network if method == "forward" else _Method(self.network, method),
                identity_of(self.card, self.sha256, key),
                precision=self._precision,
                warnings=self.warnings,
                is_asked_for=self._is_asked_for,
                multiple_of=_MULTIPLE if self.any_size else 0,
                same=same_labels if "classes" in self.card and method == "forward" else same_values,
            )
        return self._accelerated[key]

    def provenance(self) -> Provenance:
        """What a side-car says of the model."""
        return provenance_of(self.card, self.sha256)


def group_of(pixels: int) -> int:
    """Images of so many pixels that a network sees at once on a CPU."""
    return max(1, _GROUP // pixels)


class _Method(nn.Module):
    """A method of a network as a module."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self.network, self.method)(images)
