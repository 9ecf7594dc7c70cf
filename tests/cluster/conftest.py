"""The two-node cluster, a tracking store and a miniature of a data set, which all tests here share."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from pipelines.tracking.stores import open_store
from tests.cluster.small_cluster import SmallCluster, why_not
from tests.conftest import ROOT
from tests.needs import missing
from tests.pipelines.kinds.test_medical_images import npz

# A vision transformer of 23,000 weights: a network without batch norms, whose statistics would be those of each
# process's share, and a training without mixup, which is drawn in each process.
NETWORK = {
    "name": "vit_tiny_patch16_224", "num_classes": 2, "in_chans": 1, "img_size": 28, "patch_size": 7, "embed_dim": 32,
    "depth": 2, "num_heads": 2,
}  # fmt: skip
STEPS = 300

Environment = Mapping[str, str]
NOTHING: Environment = MappingProxyType({})


@pytest.fixture(scope="session")
def cluster() -> Iterator[SmallCluster]:
    reason = why_not()
    if reason:
        missing("cluster", reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = SmallCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Home:
    """The folder that programs are started in, with their tracking store."""

    folder: Path
    uri: str

    @property
    def variables(self) -> dict[str, str]:
        paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        return {
            "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": self.uri,
            "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo",  # the nodes' names mean nothing to the resolver
        }  # fmt: skip

    def overrides(self, output: str, **changes: Any) -> list[str]:
        settings = {
            "data.root": self.folder / "pneumoniamnist.npz", "output": self.folder / output,
            "data.corruption_images": 0, "data.smoothing": 0, "data.balance": 0,
            "model.architecture": "timm_classifier", "model.arguments": str(NETWORK),
            "train.epochs": "null", "train.steps": STEPS, "train.batch_size": 8, "train.warmup_steps": 5,
            "train.checkpoint_every": 20, "train.validate_every": 50, "train.threads": 1,
            "tracking.system_metrics": "false", "evaluate.resamples": 30, **changes,
        }  # fmt: skip
        return ["pneumoniamnist_medvitv2_cpu", *(f"{key}={value}" for key, value in settings.items())]

    def start(self, *command: str, environment: Environment = NOTHING) -> subprocess.Popen[str]:
        """Start a program in the folder; all it prints is in one stream."""
        return subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, **self.variables, **environment}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *command: str, code: int = 0, environment: Environment = NOTHING) -> str:
        """What a program prints that ends with a code."""
        process = self.start(*command, environment=environment)
        printed = process.communicate(timeout=600)[0]
        assert process.returncode == code, printed
        return printed

    def medvision(self, *arguments: str, code: int = 0, environment: Environment = NOTHING) -> str:
        """What `medvision` prints, in this process: that has already imported what it needs."""
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.chdir(self.folder)
            for name, value in {**self.variables, **environment}.items():
                patch.setenv(name, value)
            with contextlib.redirect_stderr(printed):
                assert run(app, arguments) == code, printed.getvalue()
        return printed.getvalue()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    npz(folder / "pneumoniamnist.npz", counts=(48, 12, 12))
    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    open_store(uri)
    return Home(folder, uri)


@pytest.fixture(scope="session")
def whole(home: Home, cluster: SmallCluster) -> str:
    """The run of a job that nothing happened to; all its stages."""
    printed = home.medvision(
        "run", *home.overrides("whole"), "--on=slurm", "--nodes=2", "--wait", environment=cluster.environment
    )
    assert "COMPLETED" in printed
    run_id = re.search(r"run (\w+);", printed)
    assert run_id
    return run_id[1]


def trained(home: Home, output: str) -> Path:
    (folder,) = (home.folder / output / "train").iterdir()
    return folder


def same_bytes(home: Home, one: str, other: str) -> None:
    for name in ("model/model.safetensors", "model/model.json", "last.safetensors"):
        assert (trained(home, one) / name).read_bytes() == (trained(home, other) / name).read_bytes(), name


def figures(home: Home, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """What the store has of a run, by name: each step and value, times left out."""
    from mlflow import MlflowClient

    client = MlflowClient(home.uri)
    names = [name for name in client.get_run(run_id).data.metrics if name != "steps_per_second"]
    return {name: [(m.step, m.value) for m in client.get_metric_history(run_id, name)] for name in names}
