"""Networks that processes share out learn what whole ones do, and go on from checkpoints to the same bytes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage] - of the public API
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from pipelines.recipe.recipe import TrainSection
from pipelines.training.fsdp import shard
from pipelines.training.loop import Batches
from shared_backbones import weights
from tests.conftest import ROOT
from tests.pipelines import small_training
from tests.pipelines.training import fsdp_training
from tests.test_models import CASES, Plain


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of the trainings of `fsdp_training`, and what the two processes printed."""
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.pipelines.training.fsdp_training", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def history(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "steps_per_second"} for line in lines]


def test_shares_learn_what_whole_networks_learn(trained):
    whole, shares = (trained[0] / name for name in ("ddp", "fsdp"))
    expected, found = (weights.load(folder / "model").module.state_dict() for folder in (whole, shares))
    start = fsdp_training.transformer().state_dict()
    moved = torch.cat([(expected[name] - start[name]).flatten() for name in start]).norm()
    # gradients of 0.01, the clipped length, at rates of 0.25, 0.5 and 0.5, with momentum, and nearly all one way
    assert 0.9 < moved / 0.01 / (0.25 + 0.5 * 1.9 + 0.5 * 2.71) <= 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(history(whole), history(shares), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    cards = [weights.load(folder / "model").card for folder in (whole, shares)]
    assert cards[0].keys() == cards[1].keys()
    assert cards[0]["architecture"] == cards[1]["architecture"] == "satmae_pp_fpn"


def test_told_to_leave_it_goes_on_to_the_same_bytes(trained):
    folder, printed = trained
    assert printed.count("preempted: checkpoint at step 1 of 3") == 1
    norms = [f"norms-{rank}.safetensors" for rank in range(2)]  # statistics in each process
    assert (folder / "whole" / norms[0]).read_bytes() != (folder / "whole" / norms[1]).read_bytes()
    for name in ("model/model.safetensors", "model/model.json", "last.safetensors", *norms):
        assert (folder / "left" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*returned a view tensor")
@pytest.mark.parametrize("name", list(CASES))
def test_every_architecture_can_be_shared_out(name: str, mesh: DeviceMesh):
    case = CASES[name]

    def learn(network: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        Plain(network, case).train()(case.input()).square().mean().backward()
        return {n: getattr(p.grad, "full_tensor", lambda g=p.grad: g)() for n, p in network.named_parameters()}

    expected = learn(case.build())
    last = torch.channels_last if len(case.shape) == 3 else torch.channels_last_3d
    network = case.build().to(memory_format=last)  # as classifiers train
    shard(network, mesh)
    assert all(isinstance(parameter, DTensor) for parameter in network.parameters())
    torch.testing.assert_close(learn(network), expected, rtol=1e-4, atol=1e-6)


@pytest.fixture
def alone() -> Iterator[None]:
    """The one process of a training; what is set for others is taken back."""
    with mock.patch.dict(os.environ):
        yield
    torch.distributed.destroy_process_group()


def test_one_process_has_the_only_share(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(small_training, "STEPS", 2)
    settings = {"steps": 2, "ema_decay": 0, "precision": "bf16-mixed", "accumulate": 2, "optimizer": "sgd"}
    folders = [
        small_training.train(tmp_path / name, fsdp_training.convolutions(), True, **settings, strategy=name)
        for name in ("ddp", "fsdp")
    ]
    expected, found = (weights.load(folder).module.state_dict() for folder in folders)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_batch_norms_are_taken_over_all_shares(alone, tmp_path):
    with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):  # so it is one by then
        network = fsdp_training.convolutions()
        small_training.train(tmp_path, network, ema_decay=0, strategy="fsdp", sync_batchnorm=True)


@pytest.mark.parametrize(
    ("change", "found"),
    [({}, "ema_decay=0.998"), ({"compile": True}, "compile=True"), ({"precision": "16-mixed"}, "precision=16-mixed")],
)
def test_what_cannot_be_shared_out_is_refused(change: dict[str, Any], found: str):
    settings = {"steps": 1, **({"ema_decay": 0} if change else {}), **change}
    assert TrainSection.model_validate(settings).strategy == "ddp"
    with pytest.raises(ValidationError, match=f"strategy=fsdp: found {found}, expected ema_decay=0.*strategy=ddp"):
        TrainSection.model_validate({**settings, "strategy": "fsdp"})


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 7))
def test_each_process_validates_as_many_batches(count: int, size: int, processes: int):
    shares = []
    for rank in range(processes):
        batches: Any = Batches(lambda *_: DataLoader([]), DataLoader(range(count), size))  # pyright: ignore
        batches.trainer = SimpleNamespace(global_rank=rank, world_size=processes)
        shares.append([batch.tolist() for batch in batches.val_dataloader()])
    assert len({len(share) for share in shares}) == 1
    seen = [sorted(item for batch in share for item in batch) for share in shares]
    if processes > 1 and count >= processes:
        assert sorted(item for share in seen for item in share) == list(range(count))
        assert all(len(batch) <= max(size, 2) for share in shares for batch in share)
    else:
        assert all(share == list(range(count)) for share in seen)
