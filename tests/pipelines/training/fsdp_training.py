"""Small trainings of two processes that torchrun starts: with the whole network in each (DDP), and with shares (FSDP).

One of the latter is told to leave after its first step, in one process alone, and goes on.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipelines.runtime import preemption
from pipelines.training.tasks.segmentation import SegmentationTask
from shared_backbones.networks.unet import Unet
from tests.pipelines import small_training
from tests.test_models import CASES

STEPS = 3
# SGD shows the size of a gradient, and so whether it was clipped; AdamW has the larger state.
SGD = {"optimizer": "sgd", "learning_rate": 0.5, "momentum": 0.9, "gradient_clip": 0.01, "weight_decay": 0}


def main(folder: Path) -> None:
    small_training.STEPS = STEPS

    def train(name: str, network: Any, **changes: Any) -> None:
        settings = {"steps": STEPS, "batch_size": 4, "ema_decay": 0, "checkpoint_every": 100}
        small_training.train(folder / name, network, **settings, **changes)
        seen = {name: buffer for name, buffer in network.named_buffers() if "running" in name}
        save_file(seen, folder / name / f"norms-{os.environ['RANK']}.safetensors")

    train("ddp", transformer(), **SGD)
    train("fsdp", transformer(), strategy="fsdp", **SGD)
    train("whole", convolutions(), strategy="fsdp")
    original = SegmentationTask.training_step

    def told(self: Any, batch: Any, batch_index: int) -> Any:
        if self.trainer.global_rank == 1 and self.global_step == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, batch, batch_index)

    with preemption.listening():
        SegmentationTask.training_step = told
        try:
            train("left", convolutions(), strategy="fsdp")
        except preemption.Preempted:
            SegmentationTask.training_step = original
    train("left", convolutions(), strategy="fsdp")


def transformer() -> Any:
    """Blocks in a `ModuleList`, and no batch norm."""
    return CASES["satmae_pp_fpn"].build()


def convolutions() -> Any:
    """Blocks in `Sequential`s, with batch norms."""
    torch.manual_seed(0)
    return Unet(2, encoder="tu-test_resnet", decoder_channels=(8, 8, 8, 8, 8))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
