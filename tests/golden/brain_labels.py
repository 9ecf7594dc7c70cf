"""Labels of the bundled models on real scans, as hashes: `python -m tests.golden.brain_labels` writes them.

The label maps themselves are not kept, as some of the scans are for non-commercial use. Where another CPU rounds
otherwise, a sketch of each map still tells how many voxels differ.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

import nibabel as nib
import numpy as np
from nibabel import nifti1

from tests.golden.programs import run_program

EXPECTED = Path(__file__).with_suffix(".json")
MODELS = ("brain-structures", "brain-structures-1")
MODES = ("default", "fast")
DEMO = "icbm152"
SCANS = (DEMO, "colin27", "vxm_test_scan", "1000", "1001", "1002", "1006", "1007", "1008")
AGREEMENT = 0.9999
"""Share of voxels with the same label that is asked for on a CPU that rounds otherwise."""
_BUCKETS = 256
# The archive has no affine. Its axes run left, inferior, anterior.
_LIA = np.array([[-1.0, 0, 0, 80], [0, 0, 1, -112], [0, -1, 0, 96], [0, 0, 0, 1]])


class Labels(TypedDict):
    """What is kept of a label map: its shape, the sha256 of its bytes as `(X, Y, Z)` uint8, and its sketch."""

    shape: list[int]
    sha256: str
    sketch: list[int]


def cpu() -> str:
    """What rounding depends on: the CPU's vector instructions and the version of torch."""
    import torch

    vendor = next((line for line in _cpu_lines() if line.startswith("vendor_id")), "").partition(":")[2].strip()
    flags = next((line for line in _cpu_lines() if line.startswith("flags")), "").split()
    chosen = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if flag in flags]
    return " ".join([vendor, *chosen, torch.backends.cpu.get_cpu_capability(), "torch", torch.__version__])


def find_scan(name: str, data_root: Path, folder: Path) -> Path:
    """File of a scan; one that lies in an archive of arrays is written into the folder."""
    if name == DEMO:
        package = find_spec("nilearn")
        assert package is not None and package.origin is not None, "the extra demo is not installed"
        return Path(package.origin).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    if name == "colin27":
        return data_root / "medical/brain_t1/colin27/ch2bet.nii.gz"
    if name != "vxm_test_scan":
        return data_root / f"medical/brain_t1_manual_noncommercial/{name}_SS.nii.gz"
    with np.load(data_root / "medical/brain_t1/vxm_test_scan.npz") as archive:
        path = folder / f"{name}.nii.gz"
        nib.Nifti1Image(archive["vol"].astype(np.float32), _LIA).to_filename(path)
    return path


def segment(scan: Path, model: str, mode: str, folder: Path) -> np.ndarray:
    """Labels `(X, Y, Z)` uint8 that `medvision segment` writes, in float32 on one CPU thread: more round otherwise."""
    output = folder / mode
    options = ["--fast"] if mode == "fast" else []
    run_program(
        "medvision", "segment", "-i", scan, "-o", output, "--model", model, "--device", "cpu",
        "--precision", "float32", "--threads", 1, "-q", *options,
    )  # fmt: skip
    (path,) = output.glob("*.nii.gz")
    image = nifti1.load(path)
    return np.asarray(image.dataobj).astype(np.uint8)


def check(name: str, model: str, mode: str, data_root: Path, folder: Path) -> None:
    """Segment a scan and compare: every voxel on a CPU that rounds like the one that wrote, else 99.99 % of them."""
    content = json.loads(EXPECTED.read_text())[model]
    expected: Labels = content["scans"][name][mode]
    found = summarise(segment(find_scan(name, data_root, folder), model, mode, folder))
    if cpu() == content["cpu"]:
        assert found["sha256"] == expected["sha256"]
    assert unlike_share(found, expected) <= 1 - AGREEMENT


def summarise(labels: np.ndarray) -> Labels:
    """What is kept of labels `(X, Y, Z)`."""
    digest = hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()
    return {"shape": list(labels.shape), "sha256": digest, "sketch": _sketch(labels).tolist()}


def unlike_share(found: Labels, expected: Labels) -> float:
    """Share of the voxels with another label, estimated from the sketches to about a tenth of itself."""
    assert found["shape"] == expected["shape"]
    difference = np.array(found["sketch"]) - np.array(expected["sketch"])
    return float((difference**2).sum() / 2 / np.prod(found["shape"]))


def _sketch(labels: np.ndarray) -> np.ndarray:
    """Sums of random signs over random buckets of voxels and labels (a count sketch), `(256,)`.

    Each voxel that changes its label changes two entries by 1, one up or down for either label.
    """
    random = np.random.default_rng(0)
    draws = random.integers(2**16, size=labels.size, dtype=np.uint16).astype(np.int64)
    draws = (draws + labels.ravel().astype(np.int64) * 40_503) * 2_654_435_761 % 2**32
    return np.bincount(draws >> 24, np.where(draws >> 23 & 1, 1.0, -1.0), minlength=_BUCKETS).astype(int)


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write(data_root: Path, models: Sequence[str]) -> None:
    """Segment all scans in both modes with some of the models, and write what is expected of them."""
    content = json.loads(EXPECTED.read_text())
    for model in models:
        scans: dict[str, dict[str, Labels]] = {}
        for name in SCANS:
            with tempfile.TemporaryDirectory() as folder:
                scan = find_scan(name, data_root, Path(folder))
                scans[name] = {mode: summarise(segment(scan, model, mode, Path(folder))) for mode in MODES}
            print(model, name, {mode: part["sha256"][:12] for mode, part in scans[name].items()}, flush=True)
        content[model] = {"cpu": cpu(), "scans": scans}
    EXPECTED.write_text(json.dumps(content).replace('"scans": ', '"scans":\n').replace('}, "', '},\n"') + "\n")


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    write(Path(os.environ.get("DOMAIN_VISION_DATA") or root.parent / "shared/data"), sys.argv[1:] or MODELS)
