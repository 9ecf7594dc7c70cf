"""Copies of a store on a node's own disk: one for all, whole or not there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.data import local_copy as module
from pipelines.data.local_copy import local_copy
from pipelines.data.store import Sample, Store, write_store
from shared_backbones.errors import InputError
from tests.conftest import ROOT

PROGRAM = """
import sys; from pathlib import Path
from pipelines.data.local_copy import local_copy; from pipelines.data.store import Store
{before}
print("ready", flush=True)
found = local_copy(Store(Path(sys.argv[1])), sys.argv[2])
found.verify()
print(found.folder)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def convert(number: int) -> Sample:
        image = np.random.default_rng(number).integers(0, 255, (64, 64, 64), np.uint8)
        return Sample(f"case-{number}", str(number), "train", {"image": image, "labels": image[:9] % 3}, {})

    return write_store(tmp_path / "shared", range(4), convert, settings={})


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def start(store: Store, disk: Path, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.format(before=before), str(store.folder), str(disk)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def files(disk: Path) -> set[str]:
    """All of the copies, locks left out."""
    return {f"{path.parent.name}/{path.name}" for path in disk.rglob("*") if path.is_file() and path.suffix != ".lock"}


def whole(store: Store) -> set[str]:
    return {f"{store.digest[:16]}/{name}" for name in ("image.bin", "labels.bin", "manifest.json")}


def test_a_copy_has_the_same_values_and_is_found_again(store: Store, disk: Path, capsys, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(disk))
    copy = local_copy(store, "$NODE_DISK")
    assert disk in copy.folder.parents and copy.digest == store.digest and files(disk) == whole(store)
    for case in store.cases():
        for field in ("image", "labels"):
            assert np.array_equal(copy.array(case, field), store.array(case, field))
    assert copy.folder.parent.stat().st_mode & 0o077 == 0
    made = {path: path.stat().st_ino for path in copy.folder.iterdir()}
    assert local_copy(store, str(disk)).folder == copy.folder
    assert {path: path.stat().st_ino for path in copy.folder.iterdir()} == made
    assert capsys.readouterr().out.count("copy: ") == 1


def test_processes_of_a_node_share_one_copy(store: Store, disk: Path):
    processes = [start(store, disk) for _ in range(3)]
    printed = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], printed
    assert sum("copy: " in out for out, _ in printed) == 1
    assert len({out.splitlines()[-1] for out, _ in printed}) == 1 and files(disk) == whole(store)


def test_a_copy_that_was_interrupted_is_not_taken_for_a_whole_one(store: Store, disk: Path):
    killed = start(store, disk, "import os, signal; os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)")
    killed.communicate(timeout=120)
    assert killed.returncode == -9 and files(disk) == {f"{store.digest[:16]}.partial/image.bin"}
    local_copy(store, str(disk)).verify()
    assert files(disk) == whole(store)


@pytest.mark.parametrize("name", ["image.bin", "manifest.json"])
def test_a_copy_that_lost_a_file_is_made_anew(name: str, store: Store, disk: Path):
    copy = local_copy(store, str(disk))
    os.truncate(copy.folder / name, 5)
    local_copy(store, str(disk)).verify()
    assert files(disk) == whole(store)


def test_a_disk_without_room_is_told_and_left_as_it_was(store: Store, disk: Path, capsys, monkeypatch):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99999, resource.RLIM_INFINITY))"
    full = start(store, disk, limit)
    out, err = full.communicate(timeout=120)
    assert full.returncode == 0 and out.splitlines()[-1] == str(store.folder)
    assert err.count("\n") == 1 and "warning: no copy in" in err and "data are read where they are" in err
    usage = shutil.disk_usage(disk)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert local_copy(store, str(disk)) is store
    assert "takes 0.0 GiB, 0.0 GiB are free" in capsys.readouterr().err
    assert files(disk) == set()


def test_what_cannot_be_right_is_one_line(store: Store, disk: Path, monkeypatch):
    with pytest.raises(InputError, match=r"train.local_copy=\$NOWHERE/x: not a folder on this node"):
        local_copy(store, "$NOWHERE/x")
    with (store.folder / "image.bin").open("r+b") as file:
        file.write(b"other")
    with pytest.raises(InputError, match=f"{store.folder}: image of case-0 is damaged"):
        local_copy(store, str(disk))
    assert files(disk) == set()
    monkeypatch.setattr(module.os, "geteuid", lambda: 12345)
    with pytest.raises(InputError, match="domain-vision-12345: belongs to another user"):
        local_copy(store, str(disk))
