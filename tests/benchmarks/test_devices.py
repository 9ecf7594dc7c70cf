"""What each network takes of the device at hand: images a second, memory, and the share of the chip's peak.

On a GPU the published sizes, batches of 64 (of the autoencoder 32), in float32, in bfloat16, and compiled; on a CPU,
where there is no peak to compare with, batches of 2 as they are and compiled. Nothing is asserted.
"""

import copy
import functools
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from astrovision.models.astroformer import VARIANTS
from geovision.models.satmae_pp import GroupMaskedAutoencoder
from geovision.pretraining import pyramid
from medvision.models.duoformer import DuoFormer
from medvision.models.hbformer import HBFormer
from medvision.models.medvitv2 import MedViTV2
from medvision.models.paratranscnn import ParaTransCNN
from shared_backbones import optimize_for_inference

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bfloat16 operations a second by a part of the device's name, from the makers' data sheets."""

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def by_mean(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).float().square().mean()


def by_reconstruction(model: nn.Module, images: Tensor) -> Tensor:
    *targets, inputs = pyramid(images, 2)
    return model(inputs, *reversed(targets), mask_ratio=0.75).loss


Loss = Callable[[nn.Module, Tensor], Tensor]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], Loss]] = {
    "MedViTV2 tiny": (lambda: MedViTV2(num_classes=2), (3, 224, 224), by_mean),
    "DuoFormer r50": (lambda: DuoFormer(num_classes=4, backbone="r50"), (3, 224, 224), by_mean),
    "HBFormer": (lambda: HBFormer(num_classes=9, img_size=224), (3, 224, 224), by_mean),
    "ParaTransCNN": (lambda: ParaTransCNN(), (3, 224, 224), by_mean),
    "SatMAE++ group ViT-L": (lambda: GroupMaskedAutoencoder(), (10, 384, 384), by_reconstruction),
    "Astroformer 4": (lambda: VARIANTS["astroformer_4"](num_classes=10, img_size=256), (3, 256, 256), by_mean),
}


def modes() -> Mapping[str, tuple[torch.dtype, bool]]:
    compiled = shutil.which("g++") is not None
    if DEVICE.type == "cpu":
        return {"float32": (torch.float32, False)} | ({"compiled": (torch.float32, True)} if compiled else {})
    found = {"float32": (torch.float32, False), "bfloat16": (torch.bfloat16, False)}
    return found | ({"bfloat16, compiled": (torch.bfloat16, True)} if compiled else {})


def seconds(step: Callable[[], Any], steps: int) -> float:
    """Of one step, after two that warm up."""
    for number in range(2 + steps):
        if number == 2:
            wait()
            start = time.perf_counter()
        step()
    wait()
    return (time.perf_counter() - start) / steps


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
@pytest.mark.parametrize("name", list(NETWORKS))
def test_network(name: str) -> None:
    build, shape, loss_of = NETWORKS[name]
    gpu = DEVICE.type == "cuda"
    batch = (32 if "SatMAE" in name else 64) if gpu else 2
    steps = 20 if gpu else 2
    peak = next((value for part, value in PEAKS.items() if gpu and part in torch.cuda.get_device_name()), None)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = build().train().to(DEVICE, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.rand(batch, *shape, device=DEVICE).contiguous(memory_format=torch.channels_last)
    served = optimize_for_inference(copy.deepcopy(model).eval())
    with FlopCounterMode(display=False) as counter:
        loss_of(model, images[:1].repeat(2, 1, 1, 1)).backward()
    operations = counter.get_total_flops() / 2
    print(f"\n{name}: {operations / 1e9:.1f} GFLOP an image, forwards and backwards; batch {batch}, {DEVICE.type}")
    for mode, (dtype, compiled) in modes().items():
        torch._dynamo.reset()
        learning, serving = (torch.compile(model), torch.compile(served)) if compiled else (model, served)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=dtype is torch.bfloat16)
        learn = functools.partial(learn_once, learning, optimizer, autocast, loss_of, images)
        serve = functools.partial(serve_once, serving, autocast, loss_of, images)
        for doing, step, share in (("training", learn, 1.0), ("inference", serve, 1 / 3)):
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            taken = seconds(step, steps)
            row = f"  {mode:20} {doing:10} {batch / taken:9.2f} images/s"
            if gpu:
                row += f"  {torch.cuda.max_memory_allocated() / 1e9:6.2f} GB"
            if peak:
                row += f"  {operations * share * batch / taken / peak:6.1%} of the peak"
            print(row)


def learn_once(model: Any, optimizer: Any, autocast: Any, loss_of: Loss, images: Tensor) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        with autocast:
            loss = loss_of(model, images)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def serve_once(model: Any, autocast: Any, loss_of: Loss, images: Tensor) -> None:
    with torch.inference_mode(), autocast:
        loss_of(model, images)
