"""What more processes give: training under DDP over gloo, and reading a store, with 1, 2 and 4 of them.

Beside images a second stands the CPU time that all processes together take for an image: where there are fewer cores
than processes, that alone tells what working together costs. Nothing is asserted but that the work was done.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geovision.datasets.patches import Patches
from pipelines.data.store import Sample, Store, write_store
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from tests.conftest import ROOT
from tests.pipelines.kinds.test_medical_images import npz

COUNTS = (1, 2, 4)
FIRST, LAST = 5, 20
"""Steps that a training is timed between."""
BATCH = 48
LAPS = 5


def recipe(folder: Path, processes: int, batch: int) -> Any:
    settings = {
        "data.root": folder / "pneumoniamnist.npz", "data.corruption_images": 0, "train.epochs": "null",
        "train.steps": LAST,
        "train.batch_size": batch, "train.devices": processes, "train.threads": 1, "train.validate_every": LAST,
        "train.checkpoint_every": LAST, "train.log_every": FIRST, "train.norm_images": 0,
    }  # fmt: skip
    return load_recipe("pneumoniamnist_medvitv2_cpu", [f"{key}={value}" for key, value in settings.items()])


def train(folder: Path, processes: int, batch: int) -> None:
    """In processes of their own: the first one notes its clock and its CPU time after two of the steps."""
    clocks: dict[int, tuple[float, float]] = {}

    def log(figures: Mapping[str, float], step: int) -> None:
        clocks.setdefault(step, (time.perf_counter(), time.process_time()))  # before the validation of that step

    kind = find_kind(recipe(folder, processes, batch))
    kind.train(kind.open(folder / "store"), folder / f"{processes}-{batch}", log)
    if clocks:
        (wall, cpu), images = np.subtract(clocks[LAST], clocks[FIRST]), (LAST - FIRST) * batch
        figures = {"images a second": images / wall, "CPU ms an image": 1000 * cpu * processes / images}
        (folder / f"{processes}-{batch}.json").write_text(json.dumps(figures))


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\n{title}; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    first = next(iter(rows.values()))
    for row, figures in rows.items():
        told = [f"{name} {value:.3g} ({value / first[name]:.2f} x)" for name, value in figures.items()]
        print(f"  {row}: {', '.join(told)}")


def test_training_together(tmp_path: Path):
    npz(tmp_path / "pneumoniamnist.npz", counts=(LAST * BATCH, 48, 48))
    kind = find_kind(recipe(tmp_path, 1, BATCH))
    kind.prepare(kind.find_sources(), tmp_path / "store")
    environment, rows = os.environ | {"OMP_NUM_THREADS": "1"}, {}
    # one alone with the share of one of several: what those take more is the price of summing gradients
    for count, batch in [(count, BATCH) for count in COUNTS] + [(1, BATCH // count) for count in COUNTS[1:]]:
        command = [sys.executable, "-m", "tests.benchmarks.test_processes", *map(str, (tmp_path, count, batch))]
        subprocess.run(command, check=True, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
        rows[f"{count} processes, batches of {batch}"] = json.loads((tmp_path / f"{count}-{batch}.json").read_text())
    show("training a MedViTV2 of 28 x 28 pixels, DDP over gloo", rows)


def read(folder: Path, rank: int, count: int, together: Any, told: Any) -> None:
    """In a process of its own: read every `count`-th batch of a store in random order, in laps."""
    store = Store(folder)
    patches = Patches([{"image": store.array(case, "image")} for case in store.cases()])
    order = np.random.default_rng(0).permutation(len(patches)).reshape(-1, 64)[rank::count].tolist()
    for laps in (1, LAPS):  # the first one fills the page cache
        together.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        done = sum(len(patches.__getitems__(batch)["image"]) for _ in range(laps) for batch in order)
    told.put((done, time.perf_counter() - wall, time.process_time() - cpu))


def test_reading_together(tmp_path: Path):
    random = np.random.default_rng(0)

    def convert(number: int) -> Sample:
        images = random.integers(0, 9999, (256, 10, 96, 96)).astype(np.uint16)
        return Sample(f"case-{number}", str(number), "train", {"image": images}, {})

    write_store(tmp_path, range(6), convert, settings={})
    spawn, rows = multiprocessing.get_context("spawn"), {}
    for count in COUNTS:
        together, told = spawn.Barrier(count), spawn.SimpleQueue()
        readers = [spawn.Process(target=read, args=(tmp_path, rank, count, together, told)) for rank in range(count)]
        for reader in readers:
            reader.start()
        notes = [told.get() for _ in readers]
        for reader in readers:
            reader.join()
        images = sum(done for done, _, _ in notes)
        assert images == LAPS * 6 * 256
        wall, cpu = max(wall for _, wall, _ in notes), sum(cpu for _, _, cpu in notes)
        rows[f"{count} processes"] = {
            "images a second": images / wall, "GB a second": images * 2 * 10 * 96 * 96 / wall / 1e9,
            "CPU ms an image": 1000 * cpu / images,
        }  # fmt: skip
    show("reading patches of 10 x 96 x 96 numbers of 16 bits from the page cache", rows)


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
