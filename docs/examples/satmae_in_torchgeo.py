"""SatMAE++ in torchgeo's trainers, with a pretrained encoder if one is given: python satmae_in_torchgeo.py [ENCODER]"""

import sys
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader
from torchgeo.trainers import ClassificationTask, SemanticSegmentationTask

from geovision.models.mapper import SatMAEMapper
from geovision.models.satmae_pp import GroupVisionTransformer
from shared_backbones import weights

# Of the encoder: a trained one, a folder that `geovision pretrain` or `geovision import` wrote, has its own.
TRUNK: dict[str, Any] = {
    "img_size": 32, "patch_size": 4, "in_chans": 10, "channel_groups": [[0, 1, 2, 6], [3, 4, 5, 7], [8, 9]],
    "embed_dim": 48, "channel_embed": 16, "depth": 4, "num_heads": 3,
}  # fmt: skip


class SatMAEClassification(ClassificationTask):
    network = GroupVisionTransformer

    def configure_models(self) -> None:
        trained = weights.load(self.weights) if self.weights else None
        own = trained.card["arguments"] if trained else TRUNK
        self.model = self.network(num_classes=self.hparams["num_classes"], **{name: own[name] for name in TRUNK})
        if trained:
            self.model.load_autoencoder(trained.module)


class SatMAESegmentation(SemanticSegmentationTask):
    network, configure_models = SatMAEMapper, SatMAEClassification.configure_models


def images(side: int) -> DataLoader:
    """Stands for a data module of torchgeo: reflectance x 10000, normalised as the encoder's card says."""
    samples = [
        {"image": torch.randn(10, side, side), "label": torch.tensor(n % 3), "mask": torch.randint(0, 3, (side, side))}
        for n in range(4)
    ]
    return DataLoader(samples, batch_size=2)  # pyright: ignore[reportArgumentType]


def main(encoder: str | None = None) -> list[float]:
    loader, losses = images(weights.read_card(encoder)["arguments"]["img_size"] if encoder else 32), []
    for kind in (SatMAEClassification, SatMAESegmentation):
        task = kind(weights=encoder, in_channels=10, num_classes=3)
        trainer = lightning.Trainer(max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.fit(task, loader, loader)
        losses.append(float(trainer.callback_metrics["train_loss"]))
    print("losses:", ", ".join(f"{loss:.2f}" for loss in losses))
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:])
