"""What sharing an output costs: CPU time of preparation and of training, before the stages had locks and now.

The version before is taken from the history. Both do the same work, A B A B, each time in a process of its own, which
has done a little of the same before. Figures are those of the lap that took least. Nothing is asserted but that the
work was done. The network is small, so that what is not arithmetic weighs the most.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.cluster.conftest import NETWORK
from tests.conftest import ROOT
from tests.pipelines.kinds.test_medical_images import npz

LOCKS = "pipelines: share an output between runs, and trust no stale result"
"""Subject of the commit that brought them."""
LAPS = 2
IMAGES, STEPS = 6000, 800
WORK = """
import contextlib, json, sys, time
from pathlib import Path
from pipelines.recipe.loading import load_recipe
from pipelines.stages import run_stages
from shared_backbones.errors import InputError

def stage(name, home, *changes):
    recipe = load_recipe("pneumoniamnist_medvitv2_cpu", [*json.loads(sys.argv[2]), *changes,
        f"data.root={home}/pneumoniamnist.npz", f"output={home}/out"])
    before = time.process_time()
    with contextlib.suppress(InputError):  # before the locks, stages asked for alone could end with one
        run_stages(recipe, name.split(","))
    (folder,) = Path(home, "out", name.rpartition(",")[2]).iterdir()
    return time.process_time() - before

home = sys.argv[1]
for name in ("prepare", "prepare,train"):
    stage(name, f"{home}/little", "train.steps=20")
figures = {name: stage(name, f"{home}/much") for name in ("prepare", "prepare,train")}
Path(home, "figures.json").write_text(json.dumps(figures))
"""


def before_locks(folder: Path) -> Path:
    """The sources as they were before."""
    listed = subprocess.run(
        ["git", "log", "--format=%H", "--fixed-strings", f"--grep={LOCKS}"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert listed, "the history is not here"
    content = subprocess.run(["git", "archive", f"{listed[-1]}~1"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def seconds(sources: Path, home: Path) -> dict[str, float]:
    """CPU seconds of preparation and of training by the code in a folder."""
    for name, count in (("little", 48), ("much", IMAGES)):
        (home / name).mkdir(parents=True)
        npz(home / name / "pneumoniamnist.npz", counts=(count, 24, 12))
    settings = {
        "data.corruption_images": 0, "data.smoothing": 0, "data.balance": 0, "model.architecture": "timm_classifier",
        "model.arguments": str(NETWORK), "train.epochs": "null", "train.steps": STEPS, "train.batch_size": 8,
        "train.warmup_steps": 5, "train.checkpoint_every": 100, "train.validate_every": 400, "train.threads": 1,
        "train.devices": 1, "tracking.system_metrics": "false",
    }  # fmt: skip
    variables = {"PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": f"sqlite:///{home}/m.db"}
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(home), json.dumps([f"{key}={value}" for key, value in settings.items()])],
        cwd=sources, env={**os.environ, **variables}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((home / "figures.json").read_text())


def test_preparation_and_training_with_locks_and_without(tmp_path: Path):
    versions = {"before": before_locks(tmp_path / "before"), "now": ROOT}
    laps = [{name: seconds(path, tmp_path / f"{lap}-{name}") for name, path in versions.items()} for lap in range(LAPS)]
    for stage, count, what in (("prepare", IMAGES, "image"), ("prepare,train", STEPS, "step")):
        before, now = (min(lap[name][stage] for lap in laps) for name in versions)
        print(f"{stage.rpartition(',')[2]}: {1000 * before / count:.3f} ms of CPU time a {what} before, "
              f"{1000 * now / count:.3f} ms now, ratio {now / before:.3f}")  # fmt: skip
    print(laps)
