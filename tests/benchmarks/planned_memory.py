"""What a training step of a planned network takes, beside what the plan says: python -m tests.benchmarks.planned_memory

Each case runs in a process of its own, whose peak is read from the system.
"""

import json
import subprocess
import sys

PROGRAM = """
import json, re, sys
from pathlib import Path
import torch
from pipelines.recipe.planning import gigabytes_of, network_arguments, topology_of
from pipelines.recipe.recipe import TrainSection
from pipelines.runtime.memory import keep_freed_memory
from pipelines.training.tasks.segmentation import SegmentationTask
from shared_backbones import architectures

keep_freed_memory()
case = json.loads(sys.argv[1])
topology = topology_of(case["spacing"], case["patch"])
classes, channels = case["classes"], case.get("channels", 1)
network = architectures.build("monai", network_arguments(topology, case["width"], classes, channels)).train()
task = SegmentationTask(network, TrainSection(steps=1), 1, [str(number) for number in range(classes)])
task.log = lambda *arguments, **options: None
optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
images = torch.randn(case["batch"], channels, *topology.patch)
targets = (images[:, 0] > 0).to(torch.uint8)
for _ in range(2):
    task.training_step((images, targets), 0).backward()
    optimizer.step()
    optimizer.zero_grad()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e9
print(json.dumps([gigabytes_of(topology, case["width"], classes, case["batch"], channels), peak]))
"""
CASES = [
    {"spacing": [1, 1, 1], "patch": [40, 56, 40], "width": 16, "classes": 3, "batch": 6},
    {"spacing": [1, 1, 1], "patch": [64, 64, 64], "width": 8, "classes": 3, "batch": 2},
    {"spacing": [1, 1, 1], "patch": [64, 64, 64], "width": 16, "classes": 14, "batch": 2},
    {"spacing": [0.8, 0.8, 5], "patch": [128, 128, 12], "width": 16, "classes": 2, "batch": 2},
    {"spacing": [1, 1, 1], "patch": [96, 96, 96], "width": 16, "classes": 3, "batch": 2},
    {"spacing": [1, 1, 1], "patch": [96, 96, 96], "width": 8, "classes": 4, "batch": 2, "channels": 4},
]


def measure(case: dict[str, object]) -> tuple[float, float]:
    """Gigabytes that the plan says, and those that a process takes."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(case)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    planned, taken = json.loads(run.stdout.splitlines()[-1])
    return planned, taken


if __name__ == "__main__":
    for case in CASES:
        planned, taken = measure(case)
        print(f"{json.dumps(case)}: planned {planned:.2f} GB, taken {taken:.2f} GB", flush=True)
