"""A trained network for satellite images, loaded once, with its contract, on the device where it runs."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geovision.contract import InputContract
from shared_backbones import weights
from shared_backbones.devices import choose_device, choose_precision
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.inference import optimize_for_inference
from shared_backbones.json_values import Entries


class LoadedNetwork:
    """What mapping and embedding share.

    Args:
        model: folder of a trained model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads of this process; by default torch's choice.
        precision: `auto`, `float32` or `bfloat16`; `auto` takes bfloat16 where the hardware computes in it and the card
            says that it was measured to agree.

    Attributes:
        card: the model's `model.json`.
        sha256: SHA-256 of its weights.
        contract: what it expects of a scene.
        warnings: what a user should know.

    Raises:
        InputError: no such model, device or precision, or its card is of no model for satellite images.
    """

    def __init__(
        self, model: str | Path, *, device: str = "auto", threads: int | None = None, precision: str = "auto"
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if not os.path.isdir(model):
            raise InputError(f"model {printable(model)}: no such folder; expected one with model.json")
        self.device, self.warnings = choose_device(device)
        trained = weights.load(model)
        self.card, self.sha256 = trained.card, trained.sha256
        self.contract = InputContract.from_card(trained.card, str(model))
        agreement = float(self.card.get("bfloat16_agreement", 0))
        self.precision = choose_precision(precision, self.device, agreement)
        network: Any = optimize_for_inference(trained.module)
        self.network = network.to(device=self.device, memory_format=torch.channels_last)

    def __call__(self, numbers: Tensor, valid: Tensor, method: str = "forward") -> Tensor:
        """Run a method of the network on a batch.

        Args:
            numbers: `(B, C, H, W)` float32, in the model's numbers, on the CPU.
            valid: `(B, H, W)` bool.
            method: name of a method of the network.

        Returns:
            What the method returns, float32, on the device.
        """
        numbers = numbers.to(self.device, non_blocking=True)
        images = self.contract.normalise(numbers, valid.to(self.device, non_blocking=True))
        images = images.contiguous(memory_format=torch.channels_last)
        bfloat16 = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            return getattr(self.network, method)(images).float()

    def provenance(self) -> Entries:
        """What a side-car says of the model."""
        return {
            "name": self.card.get("name"),
            "version": self.card.get("version"),
            "architecture": self.card["architecture"],
            "sha256": self.sha256,
            "license": self.card.get("license"),
        }
