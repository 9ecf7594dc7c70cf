"""Bundled models by OpenVINO beside our inference form in torch: CPU seconds of one thread, in turns, and agreement.

    pytest -s tests/benchmarks/test_engines.py

Nothing is asserted but agreement in float32.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pipelines.runtime.memory import keep_freed_memory
from shared_backbones import engines, weights
from shared_backbones.catalogue import Catalogue
from shared_backbones.engines import Accelerated
from shared_backbones.inference import optimize_for_inference

MODELS = {
    "galaxy-morphology": ("astrovision", (16, 3, 64, 64)),
    "surface-types": ("geovision", (2, 6, 256, 256)),
    "hippocampus": ("medvision", (1, 1, 48, 64, 48)),
    "brain-structures": ("medvision", (1, 1, 96, 128, 96)),
}


@pytest.mark.parametrize("name", MODELS)
def test_engines(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "_INPUTS", 1)
    keep_freed_memory()
    torch.set_num_threads(1)
    domain, shape = MODELS[name]
    network: nn.Module = optimize_for_inference(weights.load(Catalogue(domain).find_model(name)).module)
    images = torch.rand(shape)

    def in_torch(precision: str) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                return network(images).float()

        return run

    def by_openvino(precision: str) -> Callable[[], torch.Tensor]:
        run = Accelerated(network, name, precision=precision, is_asked_for=True, warnings=[])
        return lambda: run(images)[0]

    ways = {f"{engine} {precision}": way(precision) for precision in ("float32", "bfloat16")
            for engine, way in (("torch", in_torch), ("openvino", by_openvino))}  # fmt: skip
    answers = {label: run() for label, run in ways.items()}  # the first answers of an engine are torch's
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    for _ in range(5):
        for label, run in ways.items():
            start = time.process_time()
            answers[label] = run()
            seconds[label].append(time.process_time() - start)
    expected = answers["torch float32"].argmax(1)
    medians = {label: sorted(values)[2] for label, values in seconds.items()}
    for label, median in medians.items():
        alike = float((answers[label].argmax(1) == expected).float().mean())
        print(f"{name:18} {label:18} {medians['torch float32'] / median:5.2f}x  same labels {alike:.5f}")
        assert label != "openvino float32" or alike >= engines.AGREEMENT
