"""Ten minutes on a GPU: how fast heads are drawn there, then a network for the brain, trained and judged.

python -m tests.benchmarks.brain_gpu MAPS VALIDATION OUTPUT [--seconds 600] [--device cuda]

OUTPUT/figures.json has the rate of drawing, in volumes of 128 x 128 x 128 a second, and the scores on the drawn heads;
OUTPUT/unet_3d the weights and the checkpoint. The same command goes on where it was killed. Other devices do for a try.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from medvision.datasets.brain_labels import PART_IDS
from medvision.datasets.synthetic import LabelMapSynthesizer
from shared_backbones.files import replacing
from shared_backbones.networks.skip_unet import SkipUnet
from tests.benchmarks.brain_judging import judge, summary
from tests.benchmarks.brain_training import OUTPUTS, Parts, PartsLoss, Training
from tests.benchmarks.drawn_heads import NORMALISATION, TRAINING, draw, read

WIDTHS = (16, 32, 64, 128, 256)
BATCH_SIZE = 4
LEARNING_RATE = 4e-3


def drawing_rate(synthesizer: LabelMapSynthesizer, seconds: float) -> float:
    """Volumes of 128^3 voxels that are drawn in a second; on a GPU, an error where a step waits for it."""
    on_gpu = synthesizer.device.type == "cuda"
    generator = torch.Generator().manual_seed(0)
    synthesizer(generator)  # kernels are loaded
    voxels, started = 0, time.monotonic()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    try:
        while time.monotonic() - started < seconds:
            voxels += synthesizer(generator)[0].numel()
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.synchronize()
    return voxels / 128**3 / (time.monotonic() - started)


def main() -> None:
    """Measure the drawing, train, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, help="label maps to train on")
    parser.add_argument("validation", type=Path, help="label maps that validation is drawn from")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    synthesizer = LabelMapSynthesizer(
        given.maps, TRAINING, targets=PART_IDS, normalisation=NORMALISATION, device=given.device
    )
    figures = {"volumes_a_second": drawing_rate(synthesizer, min(5.0, given.seconds))}
    print(json.dumps(figures), flush=True)
    torch.manual_seed(1)
    network = SkipUnet(OUTPUTS, widths=given.widths)
    training = Training(
        network,
        given.output / "unet_3d",
        given.seconds,
        given.device,
        seed=1,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
    )
    training.run(synthesizer, PartsLoss(Parts(given.device), synthesizer))
    draw(given.validation, given.output / "validation")
    figures |= summary(judge(training.trained(), read(given.output / "validation"), given.device))
    figures |= {"training_seconds": training.clock.seconds, "steps": training.steps, "rounds": training.rounds}
    with replacing(given.output / "figures.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
