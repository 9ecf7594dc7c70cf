"""`--on slurm` of the verbs over many inputs, on the real SLURM, with a scan that kills its process."""

import json
import os
import textwrap
from pathlib import Path

import pytest

from apps.cli.shared.journal import KILLED
from tests.apps.conftest import SHAPE, write_model
from tests.apps.shared.test_arrays import SCANS
from tests.cluster.conftest import Home
from tests.cluster.small_cluster import SmallCluster
from tests.medvision.phantoms import make_affine, make_image, write_scan


@pytest.fixture
def deadly(home: Home, cluster: SmallCluster, tmp_path: Path) -> dict[str, str]:
    """Variables of jobs whose processes are killed by the third scan."""
    setup = "import os, signal, sys\nif any('apps.cli' in part for part in sys.orig_argv):\n"
    (tmp_path / "sitecustomize.py").write_text(setup + textwrap.indent(SCANS, "    "))
    path = os.pathsep.join([str(tmp_path), home.variables["PYTHONPATH"]])
    return {**cluster.environment, "PYTHONPATH": path, "DEADLY": "2.nii.gz"}


def test_an_archive_is_segmented_retried_and_indexed(home: Home, cluster: SmallCluster, deadly: dict[str, str]):
    write_model(home.folder / "archive-model", 0)
    (home.folder / "archive").mkdir()
    for seed in range(4):
        image = make_image(SHAPE, seed=seed)
        write_scan(home.folder / f"archive/{seed}.nii.gz", image, make_affine(spacing=(4, 4, 4)))
    segment = ("segment", "-i", "archive", "--model", "archive-model", "--device=cpu", "--threads=1")
    array = (*segment, "-o", "from array", "--on=slurm", "--shards=5", "--at-once=3")
    printed = home.medvision(*array, "--dry-run", environment=cluster.environment)
    assert "#SBATCH --array=1-5%3\n" in printed and not (home.folder / "from array.shards").exists()

    said = home.medvision(*array, "--wait", code=2, environment=deadly)
    assert "5 of 5 shards queued" in said
    shards = home.folder / "from array.shards"
    codes = {int(path.name[0]): json.loads(path.read_text())["code"] for path in shards.glob("*-of-5.json")}
    assert codes == {1: 0, 2: 0, 3: 0, 4: None, 5: 0}  # the first has no scan; the fourth has the third one

    again = home.medvision(*array, "--resume", "--wait", code=5, environment=deadly)
    assert "1 of 5 shards queued" in again
    assert KILLED in (shards / "4-of-5.log").read_text()
    cases = json.loads((home.folder / "from array/index.json").read_text())["cases"]
    assert sorted(case["status"] for case in cases) == ["done", "done", "done", "failed"]

    whole = home.medvision(*segment, "-o", "from-one")
    assert whole.count("segmented in") == 4
    parts, one = home.folder / "from array", home.folder / "from-one"
    for name in ("0", "1", "3"):
        assert (parts / f"{name}_seg.nii.gz").read_bytes() == (one / f"{name}_seg.nii.gz").read_bytes()
    rows = [(folder / "volumes.csv").read_text().splitlines() for folder in (parts, one)]
    assert [row for row in rows[0] if not row.startswith("2,")] == [row for row in rows[1] if not row.startswith("2,")]
