"""Compares networks for the brain at equal cost, with one command that can be killed at any time.

python -m tests.benchmarks.brain_networks MAPS VALIDATION OUTPUT [--seconds 2000] [--device cuda]

Every network is trained from scratch for the same CPU seconds of this process (on a GPU: seconds), with the same
generator, loss, optimiser and finished schedule, and judged on drawn heads of maps that nothing is trained on (see
`drawn_heads`). OUTPUT/results.json has the figures, OUTPUT/NETWORK the last checkpoint, the trained weights and a
line of figures a round. The same command goes on where it was killed.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvision.datasets.brain_labels import PART_IDS
from medvision.datasets.synthetic import LabelMapSynthesizer
from medvision.models.hbformer import HBFormer
from shared_backbones.files import replacing
from shared_backbones.networks.skip_unet import SkipUnet
from tests.benchmarks.brain_judging import judge, summary
from tests.benchmarks.brain_training import CONTEXT, OUTPUTS, SLICE, VOLUMES_PER_ROUND, Parts, PartsLoss, Training
from tests.benchmarks.drawn_heads import NORMALISATION, TRAINING, read


class StemSkip(nn.Module):
    """A network of slices with a skip at full resolution into its head.

    Args:
        body: maps `(B, in_chans, H, W)` to `(B, width, H, W)`.
        in_chans: channels of the image.
        width: channels at full resolution.
        num_classes: output channels.
    """

    def __init__(self, body: nn.Module, in_chans: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.stem = nn.Sequential(nn.Conv2d(in_chans, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.refine = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes, H, W)`."""
        return self.head(F.relu(self.refine(self.body(x) + F.relu(self.stem(x)))))


def _hbformer(outputs: int) -> HBFormer:
    """The network of `brain-structures` 1.0, but for its number of classes."""
    channels = 2 * CONTEXT + 1
    return HBFormer(
        outputs,
        channels,
        channels,
        feature_size=16,
        depths=(2, 2, 6, 2),
        head_dim=16,
        window_size=8,
        img_size=(SLICE, SLICE),
        drop_path_rate=0.0,
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet_3d": lambda: SkipUnet(OUTPUTS, 1, dimensions=3, widths=(8, 24, 48, 96, 128)),
    "unet_2d": lambda: SkipUnet(OUTPUTS, 2 * CONTEXT + 1, dimensions=2, widths=(16, 32, 64, 128, 192)),
    "hbformer": lambda: _hbformer(OUTPUTS),
    "hbformer_stem_skip": lambda: StemSkip(_hbformer(16), 2 * CONTEXT + 1, 16, OUTPUTS),
}
LEARNING_RATES = {"unet_3d": 4e-3, "unet_2d": 4e-3, "hbformer": 2e-3, "hbformer_stem_skip": 2e-3}
"""HBFormer's is that of its recipe."""


def main() -> None:
    """Train and judge every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, help="label maps to train on")
    parser.add_argument("validation", type=Path, help="folder of `drawn_heads`")
    parser.add_argument("output", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seconds", type=float, default=2000.0)
    parser.add_argument("--start", type=Path, help="weights that the one network named starts from")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    results = given.output / "results.json"
    done = json.loads(results.read_text()) if results.exists() else {}
    waiting = [name for name in given.networks if name not in done]
    synthesizer = LabelMapSynthesizer(
        given.maps, TRAINING, targets=PART_IDS, normalisation=NORMALISATION, device=given.device
    )
    loss = PartsLoss(Parts(given.device), synthesizer)
    for name in waiting:
        torch.manual_seed(1)
        training = Training(
            NETWORKS[name](),
            given.output / name,
            given.seconds,
            given.device,
            seed=1,
            learning_rate=LEARNING_RATES[name],
            start=given.start,
        )
        training.run(synthesizer, loss)
        scores = judge(training.trained(), read(given.validation), given.device)
        (given.output / name / "heads.json").write_text(json.dumps([asdict(score) for score in scores]))
        done[name] = {
            **summary(scores),
            "parameters": sum(parameter.numel() for parameter in training.network.parameters()),
            "training_seconds": round(training.clock.seconds, 1),
            "steps": training.steps,
            "volumes": training.rounds * VOLUMES_PER_ROUND,
        }
        with replacing(results) as temporary:
            temporary.write_text(json.dumps(done, indent=1))
        print(name, json.dumps(done[name]), flush=True)


if __name__ == "__main__":
    main()
