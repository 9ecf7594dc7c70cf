"""The packed store: equal bytes however it was made, and nothing half-made."""

import functools
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.data.store import Sample, Store, write_store
from shared_backbones.errors import InputError
from tests.conftest import ROOT


def convert(number: int, pause: float = 0.0) -> Sample:
    time.sleep(pause)
    if number < 0:
        raise InputError(f"scan {number}: damaged; fetch it again")
    random = np.random.default_rng(number)
    shape = (3 + number % 4, 5, 7)
    arrays = {"image": random.random(shape).astype(np.float16), "labels": random.integers(0, 3, shape, np.uint8)}
    return Sample(
        f"case-{number:08x}", f"subject {number // 2}", "test" if number >= 6 else "train", arrays, {"n": number}
    )


def write(folder: Path, sources: Sequence[int] = range(8), **options: Any) -> Store:
    return write_store(folder, list(sources), convert, settings={"spacing": 1.0}, **options)


def test_a_split_has_a_digest_of_its_own_wherever_its_bytes_lie(tmp_path: Path):
    store, longer = write(tmp_path / "store"), write(tmp_path / "longer", [1, *range(2, 8), 0])
    fewer, other = write(tmp_path / "fewer", range(7)), write(tmp_path / "other", [*range(6), 7, 8])
    digest = store.split_digest("test")
    assert digest == longer.split_digest("test") != store.split_digest("train")
    assert fewer.split_digest("train") == store.split_digest("train") == other.split_digest("train")
    assert digest not in {fewer.split_digest("test"), other.split_digest("test")}
    assert store.fields() == {"image": "float16 (-1, 5, 7)", "labels": "uint8 (-1, 5, 7)"}
    assert write(tmp_path / "one", [0]).fields()["image"] == "float16 (3, 5, 7)"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_arrays_come_back_as_views_of_the_file(tmp_path):
    store = write(tmp_path / "store", splits=("train", "test"))
    assert [case["record"]["n"] for case in store.cases()] == list(range(8))
    assert len(store.cases("train")) == 6 and len(store.cases("test")) == 2
    for copy in (store, pickle.loads(pickle.dumps(store))):  # noqa: S301 - our own object
        for case in copy.cases():
            expected = convert(case["record"]["n"])
            for field, array in expected.arrays.items():
                found = copy.array(case, field)
                assert np.array_equal(found, array) and found.dtype == array.dtype and not found.flags.owndata
                assert case["arrays"][field]["offset"] % 64 == 0
    store.verify()


def test_workers_and_interruptions_leave_no_trace(tmp_path):
    expected = contents(write(tmp_path / "alone").folder)
    assert contents(write(tmp_path / "workers", workers=2).folder) == expected
    code = "import functools; from pathlib import Path; from pipelines.data.store import write_store; "
    code += "from tests.pipelines.data.test_store import convert; write_store(Path({!r}), list(range(8)), "
    code += "functools.partial(convert, pause=0.2), settings={{'spacing': 1.0}})"
    folder = tmp_path / "killed"
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code.format(str(folder))], cwd=ROOT)
        journal = folder / "journal.jsonl"
        lines = len(journal.read_text().splitlines()) if journal.exists() else 1
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (
            not journal.exists() or len(journal.read_text().splitlines()) < lines + 2
        ):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "manifest.json").exists()
    with (folder / "image.bin").open("ab") as file:
        file.write(b"half of a case")
    with journal.open("a") as file:
        file.write('{"number": 7, "ca')
    done = []
    store = write_store(folder, list(range(8)), functools.partial(_noting, done), settings={"spacing": 1.0})
    assert contents(folder) == expected and 0 < len(done) < 6
    store.verify()


def _noting(done: list[int], number: int) -> Sample:
    done.append(number)
    return convert(number)


def test_a_store_begun_under_other_settings_is_begun_anew(tmp_path):
    with pytest.raises(InputError):
        write(tmp_path, [0, 1, -1])
    write_store(tmp_path, [0, 1], convert, settings={"spacing": 2.0})
    assert len(Store(tmp_path).cases()) == 2


def test_what_cannot_be_read_is_named_or_left_out(tmp_path):
    sources = [0, -1, 2, -3]
    with pytest.raises(
        InputError, match=r"2 of 4 cases cannot be used: scan -1: damaged.*\(and 1 more\).*skip_unreadable"
    ):
        write(tmp_path, sources)
    assert not (tmp_path / "manifest.json").exists()
    store = write(tmp_path, sources, skip_unreadable=True)
    assert len(store.cases()) == 2 and store.manifest["skipped"] == 2


@pytest.mark.parametrize(
    ("sources", "splits", "message"),
    [
        ([1, 2, 1], (), "case-00000001: two of the sources are the same file"),
        ([0, 1], ("validation",), "split validation is empty"),
    ],
)
def test_what_would_spoil_a_comparison_is_refused(tmp_path, sources, splits, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path, sources, splits=splits)


def test_a_subject_in_two_splits_is_refused(tmp_path):
    def mixed(number: int) -> Sample:
        sample = convert(number)
        sample.split = "train" if number else "test"
        return sample

    with pytest.raises(InputError, match="its subject is in split train and in test"):
        write_store(tmp_path, [0, 1], mixed, settings={})


def test_too_little_room_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"takes about 931322\.6 GiB, but .* are free"):
        write(tmp_path / "store", [1], estimate=lambda source: 10**15)
    assert not list((tmp_path / "store").iterdir())


def test_a_disk_that_fills_up_is_one_line_and_loses_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written \(File too large\); make room") as caught:
            write(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_damage_is_found(tmp_path):
    write(tmp_path)
    path = tmp_path / "image.bin"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="image of case-00000000 is damaged"):
        Store(tmp_path).verify()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"image.bin: has \d+ bytes, expected \d+"):
        Store(tmp_path)


def killed_at_three(number: int) -> Sample:
    """What the system does to a process for want of memory."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return Sample(f"case-{number}", f"case-{number}", "train", {"image": np.full(4, number, np.uint8)}, {})


def test_a_process_that_is_killed_is_one_line_and_what_is_prepared_is_kept(tmp_path):
    with pytest.raises(InputError) as caught:
        write_store(tmp_path, range(6), killed_at_three, settings={}, workers=1)
    line = str(caught.value)
    assert "one of 1 processes that convert files was killed" in line and "lower data.workers" in line
    assert "\n" not in line and not (tmp_path / "manifest.json").exists()


def interrupts(number: int) -> Sample:
    """Whether the process that converts hears of Ctrl-C, which its parent answers to."""
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return convert(number)


def test_processes_that_convert_leave_interrupts_to_their_parent(tmp_path):
    assert len(write_store(tmp_path, range(2), interrupts, settings={}, workers=1).cases()) == 2
