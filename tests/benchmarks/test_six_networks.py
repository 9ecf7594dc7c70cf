"""The six published networks, as they are and as an earlier commit had them: same weights, in turns, ratios alone.

    pytest -s tests/benchmarks/test_six_networks.py                 one thread, against e39ce30
    DOMAIN_VISION_BASE=COMMIT DOMAIN_VISION_THREADS=2 pytest -s tests/benchmarks/test_six_networks.py -k forward

Seconds are the processor's with one thread, and the clock's with more. Nothing is asserted but equal answers.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import torch

ROOT = Path(__file__).parents[2]
NETWORKS = ("HBFormer", "ParaTransCNN", "SatMAE++", "MedViTV2", "Astroformer", "DuoFormer")
BASE = os.environ.get("DOMAIN_VISION_BASE", "e39ce30")
THREADS = int(os.environ.get("DOMAIN_VISION_THREADS", "1"))
LAPS = 5
FORMS = {"forward": ("float32", "bfloat16", "openvino-float32", "openvino-bfloat16"), "step": ("float32", "bfloat16")}


class Side:
    """A process that runs one network of a tree."""

    def __init__(self, tree: Path, network: str, task: str, form: str, answer: Path) -> None:
        worker = str(ROOT / "tests" / "benchmarks" / "six_networks.py")
        self.process = subprocess.Popen(
            [sys.executable, "-P", worker, network, task, form, str(answer), str(THREADS)],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(THREADS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.grown = self._line()["grown"]
        self.answer: torch.Tensor = torch.load(answer, weights_only=True)

    def _line(self) -> dict[str, float]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def run(self) -> float:
        """Seconds of a run."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._line()["cpu" if THREADS == 1 else "wall"]

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree of the earlier commit."""
    tree = tmp_path_factory.mktemp("base") / "tree"
    subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), BASE], cwd=ROOT, check=True)
    yield tree
    subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


@pytest.mark.parametrize("task", FORMS)
def test_six_networks(task: str, base: Path, tmp_path: Path) -> None:
    faster: dict[str, list[float]] = {form: [] for form in FORMS[task]}
    memory = []
    for network in NETWORKS:
        before = Side(base, network, task, "float32", tmp_path / "before.pt")
        for form in FORMS[task]:
            now = Side(ROOT, network, task, form, tmp_path / "now.pt")
            away = float((now.answer - before.answer).abs().max() / before.answer.abs().max())
            if task == "forward" and form.endswith("float32"):
                assert away < 1e-3
            seconds = [(before.run(), now.run()) for _ in range(LAPS)]
            ratio = median(side[0] for side in seconds) / median(side[1] for side in seconds)
            faster[form].append(ratio)
            text = f"{network:14} {task:8} {form:18} {ratio:5.2f}x   answers differ by {away:.1e} of their range"
            if task == "step" and form == "float32":
                memory.append(now.grown / before.grown)
                text += f"   memory over the loaded model {memory[-1]:.2f}x"
            print(text)
            now.end()
        before.end()
    for form, ratios in faster.items():
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"{task} {form}: geometric mean {mean:.2f}x, least {min(ratios):.2f}x")
    if memory:
        print(f"memory of a step: geometric mean {math.exp(sum(map(math.log, memory)) / len(memory)):.2f}x")
