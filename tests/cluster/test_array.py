"""An array of jobs that share a folder of scans out, two of which die, on the real SLURM."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from apps.cli.shared.sharding import Shard
from tests.apps.conftest import SHAPE, write_model
from tests.cluster.conftest import Home
from tests.cluster.small_cluster import SmallCluster, wait_until
from tests.medvision.phantoms import make_affine, make_image, write_scan

ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"}
MORTAL = (5, 10)  # the shards that have two of twelve scans
SEGMENT = ("segment", "-i", "scans", "--model", "model", "--device", "cpu", "--threads", "1")

# A task that is to die kills its program between its two scans, the first time that it runs.
SCRIPT = """#!/bin/bash
#SBATCH --output=array-%a.log --open-mode=append --no-requeue
{command} --resume --shard $SLURM_ARRAY_TASK_ID/10 &
if mv dies-$SLURM_ARRAY_TASK_ID died-$SLURM_ARRAY_TASK_ID; then
    until [ -e "$(< died-$SLURM_ARRAY_TASK_ID)" ]; do sleep 0.1; done
    kill -KILL $!
fi 2> /dev/null
wait $!
"""


@pytest.fixture(scope="module")
def scans(home: Home) -> list[str]:
    """Names of twelve phantoms, in order; the second one of a shard that dies is large, and takes seconds."""
    folder, names = home.folder / "scans", [f"{number:02}" for number in range(12)]
    folder.mkdir()
    write_model(home.folder / "model", 0)
    for number, name in enumerate(names):
        large = number in {Shard(shard, 10).rows(12)[1] for shard in MORTAL}
        image = make_image((2 * SHAPE[0], 2 * SHAPE[1], 2 * SHAPE[2]) if large else SHAPE, seed=number)
        write_scan(folder / f"{name}.nii.gz", image, make_affine(spacing=(4, 4, 4)))
    return names


def test_tasks_that_die_are_repeated_and_the_result_is_that_of_one_process(
    home: Home, cluster: SmallCluster, scans: list[str]
):
    items = {shard: [scans[row] for row in Shard(shard, 10).rows(len(scans))] for shard in MORTAL}
    for shard, (first, _) in items.items():
        (home.folder / f"dies-{shard}").write_text(f"parts/{first}_volumes.csv")  # the last to be placed
    command = " ".join([sys.executable, "-m", "apps.cli.medvision.program", *SEGMENT, "-o", "parts"])
    (home.folder / "array.sbatch").write_text(SCRIPT.format(command=command))

    states = run_array(home, cluster, "1-10")
    assert states == {number: "FAILED" if number in MORTAL else "COMPLETED" for number in range(1, 11)}
    lost = {second for _, second in items.values()}
    assert label_maps(home.folder / "parts") == set(scans) - lost
    before = times(home.folder / "parts")

    assert run_array(home, cluster, ",".join(map(str, MORTAL))) == dict.fromkeys(MORTAL, "COMPLETED")
    home.medvision(*SEGMENT, "-o", "unsharded")
    parts, whole = home.folder / "parts", home.folder / "unsharded"
    assert label_maps(parts) == label_maps(whole) == set(scans)
    for name in scans:
        assert (parts / f"{name}_seg.nii.gz").read_bytes() == (whole / f"{name}_seg.nii.gz").read_bytes(), name
        assert sidecar(parts, name) == sidecar(whole, name)
    assert before.items() <= times(parts).items()  # what was there has not been made again
    done = home.medvision(*SEGMENT, "-o", "parts", "--resume")
    assert done.count("skipped, its results are there already") == len(scans)
    cases = json.loads((parts / "index.json").read_text())["cases"]
    assert len(cases) == len({case["case"] for case in cases}) == len(scans)


def run_array(home: Home, cluster: SmallCluster, numbers: str) -> dict[int, str]:
    """Queue tasks of the array; how each has ended."""
    job = home.run("sbatch", "--parsable", f"--array={numbers}", "array.sbatch", environment=cluster.environment)

    def states() -> dict[int, str]:
        listed = cluster.run("squeue", "-h", "-r", "-t", "all", "-j", job.strip(), "-o", "%K %T")
        return {int(number): state for number, state in map(str.split, listed.splitlines())}

    wait_until(lambda: set(states().values()) <= ENDS, f"tasks {numbers} do not end", 900)
    return states()


def label_maps(folder: Path) -> set[str]:
    return {path.name.removesuffix("_seg.nii.gz") for path in folder.glob("*_seg.nii.gz")}


def times(folder: Path) -> dict[str, int]:
    """When each result was put in place."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*_seg.*")}


def sidecar(folder: Path, name: str) -> dict[str, Any]:
    """A side-car without what differs from run to run: times, and what has them inside."""
    content = json.loads((folder / f"{name}_seg.json").read_text())
    for key in ("created", "timings_s", "seal"):
        del content[key]
    del content["outputs"]["report"]
    return content
