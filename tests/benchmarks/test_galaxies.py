"""What preparing a file of Galaxy10's shape takes, and how fast the store is read."""

import functools
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from astrovision.datasets.galaxy10 import DECALS
from pipelines.data.image_layouts import find_layout
from pipelines.data.image_reading import read_images, to_sample
from pipelines.data.store import Store, write_store
from pipelines.data.stored_images import StoredImages
from shared_backbones.labelled_images import find_images

CHUNKS = {"contiguous": None, "automatic": (94, 32, 32, 1), "image by image": (1, 256, 256, 3)}


def galaxy10(path: Path, chunks: tuple[int, ...] | None) -> None:
    """A file of the published shape, with noise that repeats: made fast, and compressed as images are."""
    random = np.random.default_rng(0)
    block = random.integers(0, 40, (1034, 256, 256, 3), dtype=np.uint8)
    options = {} if chunks is None else {"chunks": chunks, "compression": "lzf"}
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (DECALS.images, 256, 256, 3), np.uint8, **options)
        for first in range(0, DECALS.images, len(block)):
            images[first : first + len(block)] = block[: DECALS.images - first]
        file["ans"] = np.repeat(np.arange(10, dtype=np.uint8), DECALS.counts)


def prepare_once(folder: Path) -> None:
    """In a process of its own: prepare, and print seconds and the peak of memory; then read an epoch."""
    sources = find_images(find_layout("galaxy10"), folder, DECALS.classes, test=0.1, validation=0.1, seed=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    write_store(folder / "store", sources, Convert(), settings={})
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{DECALS.images} images prepared in {seconds:.0f} s, peak {peak:.0f} MB, {before:.0f} MB of it imports")
    store = Store(folder / "store")
    images = StoredImages([{name: store.array(case, name) for name in case["arrays"]} for case in store.cases()], 256)
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    for lap in range(2):  # the second time from the page cache
        start = time.perf_counter()
        for first in range(0, len(order), 64):
            images.__getitems__(order[first : first + 64])
        print(f"an epoch in random order, lap {lap + 1}: {time.perf_counter() - start:.1f} s")


class Convert:
    """Picklable."""

    def __call__(self, source):
        return to_sample(source, functools.partial(read_images, size=256, crop=1.0, classes=10))


@pytest.mark.parametrize("kind", list(CHUNKS))
def test_galaxy10_is_prepared_in_little_memory_and_read_fast(kind: str, tmp_path: Path) -> None:
    print(f"\n{kind}")
    galaxy10(tmp_path / "Galaxy10_DECals.h5", CHUNKS[kind])
    code = f"from tests.benchmarks.test_galaxies import *; prepare_once(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
