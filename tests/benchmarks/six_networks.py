"""One side of `test_six_networks.py`: a process that runs the six networks as the tree that it is started in has them.

It runs one network once, and then once more for each line that it is sent; each run is answered with a line of JSON.
Nothing is imported that the other tree may lack, but by forms that it has not.
"""

import argparse
import json
import resource
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

Case = tuple[Callable[[], nn.Module], tuple[int, ...]]


def cases(task: str) -> dict[str, Case]:
    """How each network is built, and the shape of its images: the default sizes, or for steps smaller ones."""
    from astrovision.models.astroformer import VARIANTS as ASTROFORMER
    from geovision.models.satmae_pp_mae import MaskedAutoencoder
    from medvision.models.duoformer import DuoFormer
    from medvision.models.hbformer import HBFormer
    from medvision.models.medvitv2 import VARIANTS as MEDVITV2
    from medvision.models.paratranscnn import ParaTransCNN

    if task == "forward":
        return {
            "HBFormer": (HBFormer, (1, 3, 256, 256)),
            "ParaTransCNN": (ParaTransCNN, (1, 3, 224, 224)),
            "SatMAE++": (MaskedAutoencoder, (1, 3, 224, 224)),
            "MedViTV2": (lambda: MEDVITV2["medvitv2_base"](num_classes=9), (1, 3, 224, 224)),
            "Astroformer": (lambda: ASTROFORMER["astroformer_4"](num_classes=10, img_size=256), (1, 3, 256, 256)),
            "DuoFormer": (lambda: DuoFormer(num_classes=3), (1, 3, 224, 224)),
        }
    return {
        "HBFormer": (HBFormer, (2, 3, 256, 256)),
        "ParaTransCNN": (lambda: ParaTransCNN(dim=64), (2, 3, 224, 224)),
        "SatMAE++": (lambda: MaskedAutoencoder(embed_dim=768, depth=12, num_heads=12), (2, 3, 224, 224)),
        "MedViTV2": (lambda: MEDVITV2["medvitv2_tiny"](num_classes=9), (4, 3, 224, 224)),
        "Astroformer": (lambda: ASTROFORMER["astroformer_0"](num_classes=10, img_size=256), (2, 3, 256, 256)),
        "DuoFormer": (lambda: DuoFormer(num_classes=3, backbone="r18"), (2, 3, 224, 224)),
    }


def drawn(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose weights depend on their names and shapes alone."""
    network = build()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point() or name.endswith("running_mean"):
                continue
            draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(1 + 0.1 * torch.rand(tensor.shape, generator=draw))
            else:
                fan = max(tensor[0].numel() if tensor.ndim > 1 else 1, 16)
                tensor.copy_(torch.randn(tensor.shape, generator=draw) * (0.5 / fan) ** 0.5)
    return network


class Reconstructed(nn.Module):
    """A masked autoencoder with its mask settled, so that it is a function of images alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.linspace(0, 1, 196).repeat(len(images), 1)[:, torch.arange(196) * 37 % 196]
        return self.network(images, noise=noise).prediction


def build(task: str, name: str) -> tuple[nn.Module, Tensor]:
    make, shape = cases(task)[name]
    network = drawn(make)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    return network, images.contiguous(memory_format=torch.channels_last)


def forward(name: str, form: str) -> Callable[[], Tensor]:
    from shared_backbones import optimize_for_inference

    network, images = build("forward", name)
    network = optimize_for_inference(network)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if name == "SatMAE++":
        network = Reconstructed(network)
    if not form.startswith("openvino"):

        def run() -> Tensor:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=form == "bfloat16"):
                return network(images)

        return run
    from shared_backbones import engines

    mock.patch.object(engines, "_INPUTS", 1).start()  # the first image alone is torch's
    accelerated = engines.Accelerated(
        network, name, precision=form.removeprefix("openvino-"), is_asked_for=True, warnings=[]
    )
    accelerated(images)
    return lambda: accelerated(images)[0]


def step(name: str, form: str) -> Callable[[], Tensor]:
    network, images = build("step", name)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if name == "SatMAE++":
        network = Reconstructed(network)
    optimizer = torch.optim.AdamW(network.train().parameters(), 1e-5)

    def run() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=form == "bfloat16"):
            answer: Any = network(images)
        answer = answer if isinstance(answer, Tensor) else answer[0]
        loss = answer.float().square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("task", choices=("forward", "step"))
    parser.add_argument("form")
    parser.add_argument("answer", type=Path, help="file for what the first run gives")
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = {"forward": forward, "step": step}[options.task](options.network, options.form)
    before = peak_bytes()
    torch.save(run().float(), options.answer)
    print(json.dumps({"grown": peak_bytes() - before}), flush=True)
    for _ in sys.stdin:
        start, begun = time.process_time(), time.perf_counter()
        run()
        print(json.dumps({"cpu": time.process_time() - start, "wall": time.perf_counter() - begun}), flush=True)


if __name__ == "__main__":
    main()
