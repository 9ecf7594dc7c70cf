"""A training of a few seconds on volumes made from a seed; started by tests as a program, to be killed."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from medvision.datasets.slices import Augment, LabelledSlices, SliceOrder
from medvision.models.hbformer import HBFormer
from pipelines.recipe.recipe import TrainSection
from pipelines.recipe.volumes import Augmentation
from pipelines.runtime import preemption
from pipelines.training.loop import Batches, fit
from pipelines.training.tasks.segmentation import SegmentationTask

STEPS = 24
CARD = {"name": "small", "training": {}}


class Boxes:
    """Four volumes, each with a bright box of label 1 on noise."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(index)
        image = random.random((20, 24, 18), dtype=np.float32) * 0.5
        labels = np.zeros(image.shape, np.uint8)
        start = random.integers(2, 8, 3)
        box = tuple(slice(s, s + 8) for s in start)
        image[box] += 0.5
        labels[box] = 1
        return image, labels


def train(folder: Path, network: nn.Module | None = None, statistics: bool = False, **changes: object) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = TrainSection(
        **{"steps": STEPS, "batch_size": 2, "warmup_steps": 2, "checkpoint_every": 3, "ema_decay": 0.9, **changes}
    )
    data = {"offsets": (-1, 0, 1), "views": ("axial", "coronal"), "size": 32}
    learnt = LabelledSlices(Boxes(), **data, augment=Augment(Augmentation().model_dump(), (32, 32)))
    held_out = DataLoader(LabelledSlices(Boxes(), **data), batch_size=16)

    def loader(start: int, rank: int, world_size: int) -> DataLoader:
        order = SliceOrder(
            learnt.labelled,
            batch_size=settings.batch_size,
            steps=STEPS * settings.accumulate,
            foreground=0.5,
            seed=1,
            start=start,
            rank=rank,
            world_size=world_size,
        )
        return DataLoader(learnt, batch_sampler=order)

    return fit(
        SegmentationTask(network or small_network(), settings, STEPS, ["background", "box"]),
        Batches(loader, held_out, held_out if statistics else None),
        settings,
        steps=STEPS,
        validate_every=8,
        seed=1,
        folder=folder,
        card=CARD,
    )


def small_network() -> nn.Module:
    return HBFormer.compact(
        num_classes=2,
        in_chans=3,
        feature_size=4,
        depths=(1, 1, 1, 1),
        head_dim=4,
        window_size=4,
        img_size=32,
        drop_path_rate=0.3,
    )


if __name__ == "__main__":
    with preemption.listening():
        print("training", flush=True)
        try:
            train(Path(sys.argv[1]))
        except preemption.Preempted:
            sys.exit(preemption.EXIT_CODE)
