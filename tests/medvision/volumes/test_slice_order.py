"""The order of training slices: the same for any number of processes, and fair."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medvision.datasets.slices import SliceOrder


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.sampled_from([0.0, 0.3, 0.5]))
def test_processes_share_out_the_batches_of_one(world: int, share: int, start: int, foreground: float):
    labelled = np.arange(30) % 3 == 0
    shared = {"batch_size": world * share, "steps": 8, "foreground": foreground, "seed": 2, "start": start}
    alone = list(SliceOrder(labelled, **shared))
    parts = [list(SliceOrder(labelled, **shared, rank=rank, world_size=world)) for rank in range(world)]
    assert len(alone) == 8 - start
    for batch, *shares in zip(alone, *parts, strict=True):
        assert {len(part) for part in shares} == {share}
        assert sorted(batch) == sorted(item for part in shares for item in part)


@given(st.sampled_from([1, 2, 3]))
def test_an_epoch_over_all_processes_has_every_slice_once(world: int):
    drawn = Counter(
        slice_number
        for rank in range(world)
        for batch in SliceOrder(
            np.ones(30, bool), batch_size=6, steps=5, foreground=0.0, seed=1, rank=rank, world_size=world
        )
        for slice_number, _ in batch
    )
    assert drawn == Counter(range(30))
