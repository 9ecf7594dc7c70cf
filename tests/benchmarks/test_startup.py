"""How soon the program answers, as a share of what importing torch costs."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 7


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def test_help_against_import_torch():
    commands = {
        "medvision --help": [str(Path(sys.executable).with_name("medvision")), "--help"],
        'python -c "import torch"': [sys.executable, "-c", "import torch"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for round_number in range(ROUNDS + 1):
        for name, command in commands.items():
            taken = seconds(command)
            if round_number:  # the first round fills the file cache
                times[name].append(taken)
    median = {name: statistics.median(values) for name, values in times.items()}
    help_seconds, torch_seconds = median.values()
    print("\nwhole processes, median of", ROUNDS)
    for name, value in median.items():
        print(f"  {name:26} {value:6.3f} s")
    print(f"  ratio {help_seconds / torch_seconds:.3f} (promised: below 0.25)")
