"""Whole programs as they are and as earlier commits had them: CPU seconds and peak memory, in turns, ratios alone.

    pytest -s tests/benchmarks/test_programs.py
    DOMAIN_VISION_BASES=79e3e91,e39ce30 DOMAIN_VISION_HEADS=20 pytest -s tests/benchmarks/test_programs.py -k heads

Each tree runs with its own defaults, bundled models among them, with one thread. Nothing is asserted but success.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import pytest
import rasterio
from nibabel.processing import conform
from rasterio.transform import from_origin
from scipy import ndimage

from geovision.sensors import SENSORS

ROOT = Path(__file__).parents[2]
BASES = os.environ.get("DOMAIN_VISION_BASES", "79e3e91,e39ce30").split(",")
HEADS = int(os.environ.get("DOMAIN_VISION_HEADS", "20"))
LAPS = int(os.environ.get("DOMAIN_VISION_LAPS", "3"))


def measure(tree: Path, program: str, arguments: list[str]) -> tuple[float, float]:
    """CPU seconds, and peak memory in GB, of a program of a tree."""
    scripts = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts[program].split(":")
    start = (  # without this tree, whose packages would be taken where the other's are namespaces
        f"import sys; sys.path[:] = [{str(tree)!r}, *(path for path in sys.path if path != {str(ROOT)!r})]; "
        f"import {module} as program; sys.argv[0] = {program!r}; sys.exit(program.{function}())"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", start, *arguments],
        cwd=tree,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The trees of the earlier commits, and this one."""
    trees = {base: tmp_path_factory.mktemp("base") / "tree" for base in BASES}
    for base, tree in trees.items():
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), base], cwd=ROOT, check=True)
    yield trees | {"now": ROOT}
    for tree in trees.values():
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def compare(trees: dict[str, Path], program: str, arguments: list[str], output: Path, laps: int = LAPS) -> None:
    """Print what a program takes in each tree, and the ratio of this one to the others."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
    for lap in range(laps):
        for name, tree in trees.items():
            where = output / f"{name}-{lap}"
            where.mkdir(parents=True)
            given = [argument.replace("OUTPUT", str(where)) for argument in arguments]
            measured[name].append(measure(tree, program, given))
    seconds, memory = ({name: median(lap[i] for lap in laps) for name, laps in measured.items()} for i in (0, 1))
    for name in trees:
        ratios = seconds["now"] / seconds[name], memory["now"] / memory[name]
        print(
            f"\n  {name:8} {seconds[name]:7.1f} s {memory[name]:5.2f} GB; now {ratios[0]:.2f}x, {ratios[1]:.2f}x",
            end="",
        )
    print()


def head(data: Path, path: Path, shape: tuple[int, int, int]) -> Path:
    """A real head on a grid of 1 mm, or of as many voxels as are asked for."""
    scan = conform(nib.load(data / "medical/brain_t1/chris_t1.nii.gz"), (256, 256, 256), (1.0, 1.0, 1.0))  # pyright: ignore[reportPrivateImportUsage,reportArgumentType]
    values: np.ndarray = np.asarray(scan.dataobj, np.float32)
    factors = [new / old for new, old in zip(shape, values.shape, strict=True)]
    if factors != [1, 1, 1]:
        values = np.asarray(ndimage.zoom(values, factors, order=1))
    affine = scan.affine @ np.diag([*(1 / factor for factor in factors), 1])
    nib.save(nib.Nifti1Image(values.round().astype(np.int16), affine), path)  # pyright: ignore[reportPrivateImportUsage]
    return path


def test_a_head(trees: dict[str, Path], data_root: Path, tmp_path: Path):
    scan = head(data_root, tmp_path / "head.nii.gz", (256, 256, 256))
    compare(trees, "medvision", ["segment", "-i", str(scan), "-o", "OUTPUT/s.nii.gz", "--threads", "1"], tmp_path)


def test_heads(trees: dict[str, Path], data_root: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    scan = head(data_root, tmp_path / "in" / "head-0.nii.gz", (256, 256, 256))
    for number in range(1, HEADS):
        (tmp_path / "in" / f"head-{number}.nii.gz").write_bytes(scan.read_bytes())
    compare(trees, "medvision", ["segment", "-i", str(scan.parent), "-o", "OUTPUT/s", "--threads", "1"], tmp_path, 1)


def test_a_large_volume(trees: dict[str, Path], data_root: Path, tmp_path: Path):
    scan = head(data_root, tmp_path / "large.nii.gz", (512, 512, 600))
    compare(trees, "medvision", ["segment", "-i", str(scan), "-o", "OUTPUT/s.nii.gz", "--threads", "1"], tmp_path)


def test_a_scene(trees: dict[str, Path], tmp_path: Path):
    sensor = SENSORS["sentinel2_l2a"]
    names = [band.name for band in sensor.bands]
    coarse = np.random.default_rng(1).uniform(0, 4000, (len(names), 64, 64))
    values = np.asarray(ndimage.zoom(coarse, (1, 32, 32), order=1))
    scene = tmp_path / "scene.tif"
    about = {"width": 2048, "height": 2048, "count": len(names), "dtype": "uint16", "crs": "EPSG:32633"}
    with rasterio.open(scene, "w", driver="GTiff", transform=from_origin(5e5, 5.2e6, 10, 10), **about) as file:
        file.write(values.astype(np.uint16))
        file.descriptions = names
    only = {name: tree for name, tree in trees.items() if name != "e39ce30"}  # which had no bundled model
    map_ = ["map", "-i", str(scene), "--sensor=sentinel2_l2a", "-o", "OUTPUT/m.tif"]
    compare(only, "geovision", [*map_, "--threads", "1"], tmp_path)
