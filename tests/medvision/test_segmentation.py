"""The path from a volume to labels, with networks so simple that the right labels are known."""

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medvision.scorers import FAST_COARSENING
from medvision.segmentation import Segmentation, Segmenter
from medvision.volumes.files import Volume
from medvision.volumes.geometry import Grid
from medvision.volumes.intensities import rescale_intensity
from shared_backbones import weights
from shared_backbones.card import Card, ClassEntry
from shared_backbones.errors import InputError
from shared_backbones.networks.skip_unet import SkipUnet
from tests.medvision.phantoms import ORIENTATIONS, load, make_affine, write_scan

VIEWS = ("axial", "coronal", "sagittal")


class Network(nn.Module):
    """Takes slices `(B, C, H, W)`; notes their shapes, and what it was run under."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes, self.autocast = [], False

    def __deepcopy__(self, memo: dict) -> "Network":
        return self  # a segmenter copies its network; the notes are to be read here

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        self.autocast = torch.is_autocast_enabled("cpu")
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def certain(classes: Tensor, count: int) -> Tensor:
    """Logits `(B, count, H, W)` that leave no doubt about classes `(B, H, W)`."""
    return 40 * nn.functional.one_hot(classes, count).movedim(-1, 1).float()


class Bands(Network):
    """The class is the band of intensity, of four that divide [0, 1]."""

    def logits(self, x: Tensor) -> Tensor:
        return certain((x[:, x.shape[1] // 2] * 4).long().clamp(0, 3), 4)


class Quadrants(Network):
    """The class is the quarter of the slice: 0 first rows and columns, 1 later columns, 2 later rows, 3 both."""

    def logits(self, x: Tensor) -> Tensor:
        rows, columns = (torch.arange(n) >= n / 2 for n in x.shape[2:])
        quarter = 2 * rows.long()[:, None] + columns.long()
        return certain(quarter.expand(len(x), -1, -1), 4)


class Steps(Network):
    """For context (-2, 0, 1): class 1 where intensity rises along the stack, two steps then one; 2 where it falls."""

    def logits(self, x: Tensor) -> Tensor:
        first, second = x[:, 1] - x[:, 0], x[:, 2] - x[:, 1]
        steady = (first - 2 * second).abs() < 0.2 * first.abs()
        return certain(torch.where(steady & (second > 0), 1, torch.where(steady & (second < 0), 2, 0)), 4)


class Shares(Network):
    """The same probabilities everywhere: 0.1, 0.6, 0.3, 0."""

    def logits(self, x: Tensor) -> Tensor:
        return torch.tensor([0.1, 0.6, 0.3, 1e-9]).log().view(1, 4, 1, 1).expand(len(x), 4, *x.shape[2:])


class Full(Network):
    """Runs out of memory when it is used in earnest for the first time."""

    def logits(self, x: Tensor) -> Tensor:
        if len(self.shapes) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return certain((x[:, 0] > 0.5).long(), 4)


def make_card(**changes) -> Card:
    given = {"spacing_mm": 1.0, "slices": [0], "views": list(VIEWS), "normalisation": "rescale_intensity"}
    colors = ([0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255])
    classes: list[ClassEntry] = [{"id": i, "name": f"band {i}", "color": color} for i, color in enumerate(colors)]
    return {
        "schema_version": 1, "architecture": "stub", "arguments": {}, "weights_sha256": "0" * 64, "classes": classes,
        "input": given | changes,
    }  # fmt: skip


def make_volume(data: np.ndarray, affine: np.ndarray | None = None) -> Volume:
    affine = make_affine() if affine is None else affine
    return Volume(np.asfortranarray(data, np.float32), Grid.from_affine(data.shape, affine), "0" * 64)


def make_head(shape=(30, 26, 22), seed: int = 0) -> np.ndarray:
    """An ellipsoid off the centre whose intensity rises along every axis, on an empty ground."""
    axes = [np.linspace(-1, 1, length) for length in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = ((x - 0.15) / 0.7) ** 2 + ((y + 0.1) / 0.75) ** 2 + (z / 0.8) ** 2 < 1
    noise = np.random.default_rng(seed).uniform(0, 0.1, shape)
    return np.where(inside, 1.6 + 0.6 * x + 0.45 * y + 0.3 * z + noise, 0)


def bands_of(data: np.ndarray) -> np.ndarray:
    return np.clip((rescale_intensity(torch.from_numpy(data.astype(np.float32))).numpy() * 4).astype(int), 0, 3)


def turned(data: np.ndarray, affine: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...]):
    """The same scene stored along other axes: array, affine, and a function that turns label maps alike."""

    def turn(array: np.ndarray) -> np.ndarray:
        return array.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]

    other = np.eye(4)
    other[:3, :3] = affine[:3, :3][:, list(order)] * signs
    lengths = [data.shape[axis] - 1 for axis in order]
    first = [0.0, 0.0, 0.0]
    for axis, sign, last in zip(order, signs, lengths, strict=True):
        first[axis] = last if sign < 0 else 0
    other[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
    return np.asfortranarray(turn(data)), other, turn


# --- geometry


def test_labels_are_those_of_each_voxel_where_nothing_is_resampled(make_segmenter):
    data = make_head()
    found = make_segmenter(Bands()).segment(make_volume(data))
    assert found.labels.dtype == np.uint8 and found.labels.shape == data.shape
    np.testing.assert_array_equal(found.labels, bands_of(data))
    assert set(np.unique(found.labels)) == {0, 1, 2, 3}


@pytest.mark.parametrize("views", [("axial",), ("coronal",), ("sagittal",), ("axial", "sagittal")])
def test_one_view_equals_several_for_a_network_of_single_pixels(make_segmenter, views):
    data = make_head()
    found = make_segmenter(Bands(), views=views).segment(make_volume(data))
    np.testing.assert_array_equal(found.labels, bands_of(data))
    assert found.settings["views"] == list(views)


@pytest.mark.parametrize("spacing_mm", [1.3, [1.0, 0.9, None]])
def test_labels_turn_with_the_volume_in_all_orientations_on_an_oblique_anisotropic_grid(make_segmenter, spacing_mm):
    data = make_head((24, 30, 14)).astype(np.float32)
    affine = make_affine("RAS", (1.1, 0.8, 1.9), (11, -8, 14))
    segmenter = make_segmenter(Bands(), card={"spacing_mm": spacing_mm})
    expected = segmenter.segment(make_volume(data, affine)).labels
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    turns = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
    assert len(turns) == 48
    orientations, off = set(), []
    for order, signs in turns:
        other, other_affine, turn = turned(data, affine, order, signs)
        volume = make_volume(other, other_affine)
        orientations.add(volume.grid.orientation)
        found = segmenter.segment(volume)
        assert found.labels.shape == other.shape
        off.append(np.count_nonzero(found.labels != turn(expected)))
    assert orientations == set(ORIENTATIONS)
    # sums in another order differ in the last bit, which can tip a voxel that lies between two bands
    assert max(off) <= 2 and np.count_nonzero(off) <= 5


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "AIR", "SPL", "PSL"])
def test_the_network_sees_slices_with_rows_and_columns_along_ras(make_segmenter, view, orientation):
    # noise fills the volume, so that the slice's quarters are the volume's
    data = np.random.default_rng(0).uniform(1, 2, (20, 18, 16))
    data[0, 0, 0] = 0
    affine = make_affine(orientation)
    found = make_segmenter(Quadrants(), views=[view]).segment(make_volume(data, affine))
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1)
    mm = index @ affine[:3, :3].T + affine[:3, 3]
    mm -= mm.reshape(-1, 3).mean(0)
    row, column = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[view]
    np.testing.assert_array_equal(found.labels, 2 * (mm[..., row] > 0) + (mm[..., column] > 0))


@pytest.mark.parametrize(("view", "axis"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
@pytest.mark.parametrize("orientation", ["RAS", "LPI", "AIR", "SPL"])
def test_neighbouring_slices_come_in_the_order_of_the_card(make_segmenter, view, axis, orientation):
    shape, affine = (18, 20, 22), make_affine(orientation)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    along = (index @ affine[:3, :3].T)[..., axis]
    along -= along.min()
    middle = (along > 4) & (along < along.max() - 4)  # at the ends neighbours repeat and intensities are clipped
    segmenter = make_segmenter(Steps(), card={"slices": [-2, 0, 1]}, views=[view])
    assert (segmenter.segment(make_volume(along, affine)).labels[middle] == 1).all()
    assert (segmenter.segment(make_volume(along.max() - along, affine)).labels[middle] == 2).all()


def test_neighbours_beyond_the_ends_are_the_last_slices(make_segmenter):
    class Differs(Network):
        def logits(self, x: Tensor) -> Tensor:
            return certain((x[:, 0] != x[:, 1]).long() + 1, 4)

    # the box holds the whole volume; only at the inferior end is the slice below the slice itself
    data = np.random.default_rng(0).uniform(1, 2, (16, 16, 12))
    found = make_segmenter(Differs(), card={"slices": [-1, 0]}, views=["axial"]).segment(make_volume(data))
    same = (found.labels == 1).mean((0, 1))
    assert same[0] == 1 and same[1:].max() < 0.1


@pytest.mark.parametrize(("spacing", "shape"), [((1.0, 1.0, 5.0), (40, 36, 9)), ((0.5, 0.5, 12.0), (60, 64, 8))])
@pytest.mark.parametrize("spacing_mm", [1.5, [1.5, 1.5, None]])
def test_thick_slices_keep_labels_in_place(make_segmenter, spacing, shape, spacing_mm):
    x = np.indices(shape)[0] * spacing[0]
    data = np.where(x < x.max() / 2, 1.25, 2.0)
    data[:4] = data[-4:] = 0
    segmenter = make_segmenter(Bands(), card={"spacing_mm": spacing_mm})
    found = segmenter.segment(make_volume(data, make_affine("RAS", spacing)))
    expected = bands_of(data)
    edge = 4 if spacing[0] == 1 else 8
    near = np.zeros(shape[0], bool)
    for position in (4, shape[0] // 2, shape[0] - 4):
        near[max(0, position - edge // 2) : position + edge // 2] = True
    np.testing.assert_array_equal(found.labels[~near], expected[~near])


@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 40, 9), (200, 8, 8)])
def test_tiny_and_long_volumes(make_segmenter, shape):
    data = np.random.default_rng(0).uniform(0, 1, shape)
    for spacing in (0.05, 1.0, 7.0):
        found = make_segmenter(Bands()).segment(make_volume(data, make_affine("RAS", (spacing, 1.0, 2 * spacing))))
        assert found.labels.shape == shape and found.labels.max() <= 3


def test_a_field_of_view_beyond_reason_is_refused(make_segmenter):
    volume = make_volume(make_head(), make_affine("RAS", (900.0, 900.0, 900.0)))
    with pytest.raises(InputError, match=r"^case-00000000: covers 27000 x 23400 x 19800 mm") as caught:
        make_segmenter(Bands()).segment(volume)
    assert "\n" not in str(caught.value)


# --- slices, box, pieces


@pytest.mark.parametrize(("smallest", "multiple"), [(32, 32), (96, 96), (50, 50)])
def test_slices_are_padded_to_what_the_network_takes(make_segmenter, smallest, multiple):
    network, data = Bands(), make_head((40, 26, 22))
    found = make_segmenter(network, card={"smallest_slice": smallest}).segment(make_volume(data))
    assert network.shapes[0] == (1, 1, smallest, smallest)  # the check of the card
    for shape in network.shapes[1:]:
        assert all(side == smallest or (side > smallest and side % 32 == 0) for side in shape[2:])
    np.testing.assert_array_equal(found.labels, bands_of(data))


def test_the_head_is_cut_out_and_nothing_is_lost(make_segmenter):
    network, data = Bands(), np.zeros((90, 80, 100))
    data[50:80, 2:28, 70:92] = make_head()
    found = make_segmenter(network).segment(make_volume(data))
    assert max(side for shape in network.shapes for side in shape[2:]) == 32  # the whole would take 96 or 128
    expected = bands_of(data)
    assert np.count_nonzero(expected) > 1000
    np.testing.assert_array_equal(found.labels, expected)


@pytest.mark.parametrize("views", [("axial",), VIEWS])
def test_small_stray_pieces_become_background_and_large_ones_stay(make_segmenter, views):
    data = np.zeros((60, 30, 30))
    data[4:20, 6:24, 6:24] = 3
    data[26:38, 6:24, 6:24] = 2
    data[48:53, 10:15, 10:15] = 3
    found = make_segmenter(Bands(), views=views).segment(make_volume(data), keep_scores=True)
    expected = bands_of(data)
    assert expected[50, 12, 12] == 3
    expected[48:53] = 0
    np.testing.assert_array_equal(found.labels, expected)
    assert found._scores is not None
    background = next(found._scores.probabilities())
    assert background[50, 12, 12] == 255 and background[10, 12, 12] == 0


def test_fluid_stays_in_the_gaps_of_tissue_and_goes_around_it(make_segmenter):
    data = np.full((48, 40, 40), 1.0)  # fluid everywhere: inside the gap, around the tissue, far from it
    data[:, :, :6] = 0
    data[12:36, 10:30, 12:32] = 3
    data[22:26, 10:30, 12:32] = 1
    found = make_segmenter(Bands(), card={"attached": [1], "attached_mm": 4}).segment(make_volume(data)).labels
    assert (found[12:22, 10:30, 12:32] == 3).all() and (found[26:36, 10:30, 12:32] == 3).all()
    assert (found[22:26, 14:26, 16:28] == 1).all()
    assert not found[:10].any() and not found[38:].any() and not found[:, :, 36:].any()


def test_memory_that_torch_cannot_get_is_a_memory_error(make_segmenter):
    class Greedy(Bands):
        def forward(self, x):
            if x.shape[0] > 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
            return super().forward(x)

    with pytest.raises(MemoryError, match="allocate"):
        make_segmenter(Greedy()).segment(make_volume(make_head()))


# --- scores


@pytest.mark.parametrize("views", [("axial",), ("coronal", "axial"), VIEWS])
def test_scores_of_several_views_do_not_overflow(make_segmenter, views):
    data = np.random.default_rng(0).uniform(1, 2, (20, 22, 24))
    data[0] = 0
    found = make_segmenter(Shares(), views=views).segment(make_volume(data), keep_scores=True)
    assert (found.labels == 1).all()
    assert found.confidence == {0: None, 1: pytest.approx(0.6), 2: None, 3: None}
    sure = make_segmenter(Bands(), views=views).segment(make_volume(make_head()))
    assert sure.confidence == {k: pytest.approx(1.0) for k in range(4)}


@pytest.mark.parametrize("views", [("axial",), VIEWS])
def test_probabilities_sum_to_one_and_agree_with_the_labels(make_segmenter, tmp_path, views):
    data, affine = make_head(), make_affine("LIA", (0.8, 1.2, 1.9), (5, 6, 7))
    segmenter = make_segmenter(Bands(), card={"spacing_mm": 1.3}, views=views)
    found = segmenter.segment(make_volume(data, affine), keep_scores=True)
    assert all(value is None or 0 <= value <= 1 for value in found.confidence.values())
    found.save_probabilities(tmp_path / "prob.nii.gz")
    found.save(tmp_path / "seg.nii.gz")
    image = load(tmp_path / "prob.nii.gz")
    assert image.shape == (*data.shape, 4) and image.get_data_dtype() == np.uint8
    probabilities = image.get_fdata()
    assert image.dataobj.slope == pytest.approx(1 / 255)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=4 * 0.5 / 255 + 1e-6)
    labels = np.asarray(load(tmp_path / "seg.nii.gz").dataobj)
    np.testing.assert_array_equal(labels, found.labels)
    likely = probabilities.max(-1) > 0.51
    assert likely.mean() > 0.8
    np.testing.assert_array_equal(labels[likely], probabilities.argmax(-1)[likely])


def test_probabilities_have_to_be_asked_for(make_segmenter, tmp_path):
    with pytest.raises(ValueError, match="keep_scores"):
        make_segmenter(Bands()).segment(make_volume(make_head())).save_probabilities(tmp_path / "prob.nii.gz")


# --- one segmenter, many scans


def same(first: Segmentation, second: Segmentation) -> bool:
    return np.array_equal(first.labels, second.labels) and first.confidence == second.confidence


def test_a_segmenter_keeps_nothing_from_scan_to_scan(make_segmenter):
    scans = [make_volume(make_head()), make_volume(make_head((19, 40, 25), 1), make_affine("PIR", (1, 2, 1.5)))]
    fresh = [make_segmenter(Bands()).segment(scan) for scan in scans]
    segmenter = make_segmenter(Bands())
    for scan, expected in [*zip(scans, fresh, strict=True), (scans[0], fresh[0])]:
        before = scan.data.copy()
        assert same(segmenter.segment(scan), expected)
        np.testing.assert_array_equal(scan.data, before)


def test_paths_and_volumes_give_the_same_without_child_processes(make_segmenter, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a child process was started")

    for name in ("fork", "posix_spawn", "forkpty"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    path = write_scan(tmp_path / "scan.nii.gz", make_head().astype(np.float32))
    done = []
    segmenter = make_segmenter(Bands())
    found = segmenter.segment(path, progress=lambda count, total: done.append((count, total)))
    assert same(found, segmenter.segment(make_volume(make_head())))
    assert not multiprocessing.active_children()
    counts, totals = zip(*done, strict=True)
    assert list(counts) == sorted(counts) and set(totals) == {counts[-1]}
    assert set(found.timings_s) == {"read", "prepare", "network", "labels"}


# --- devices, precision, settings


def test_without_memory_auto_goes_on_with_the_cpu_and_says_so_from_then_on(make_segmenter):
    data, segmenter = make_head(), make_segmenter(Full(), device="auto")
    for _ in range(2):
        found = segmenter.segment(make_volume(data))
        assert found.device == "cpu"
        assert [warning for warning in found.warnings if "ran out of memory; the CPU was used" in warning]
        assert set(np.unique(found.labels)) == {0, 1}


def test_without_memory_a_device_asked_for_is_an_error(make_segmenter):
    with pytest.raises(InputError, match="device cpu: out of memory"):
        make_segmenter(Full(), device="cpu").segment(make_volume(make_head()))


@pytest.mark.parametrize(
    ("asked", "agreement", "native", "used"),
    [
        ("auto", 0.9995, True, "bfloat16"),
        ("auto", 0.9985, True, "float32"),
        ("auto", 0.9995, False, "float32"),
        ("float32", 1.0, True, "float32"),
        ("bfloat16", 0.0, False, "bfloat16"),
    ],
)
def test_precision_is_chosen_used_and_recorded(make_segmenter, monkeypatch, asked, agreement, native, used):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    network = Bands()
    card = make_card() | {"bfloat16_agreement": agreement}
    found = make_segmenter(network, card=card, precision=asked, device="cpu").segment(make_volume(make_head()))
    assert found.precision == found.settings["precision"] == used
    assert network.autocast == (used == "bfloat16")


def test_fast_is_one_view_at_a_coarser_spacing_and_is_recorded(make_segmenter):
    slow_network, fast_network = Bands(), Bands()
    slow = make_segmenter(slow_network).segment(make_volume(make_head()))
    fast = make_segmenter(fast_network, fast=True).segment(make_volume(make_head()))
    assert slow.settings == {"views": list(VIEWS), "spacing_mm": 1.0, "fast": False, "precision": "float32"}
    assert fast.settings == slow.settings | {"views": ["axial"], "spacing_mm": FAST_COARSENING, "fast": True}
    slices = [sum(shape[0] for shape in network.shapes[1:]) for network in (slow_network, fast_network)]
    assert slices[1] < slices[0] / 3
    assert (slow.labels == fast.labels).mean() > 0.85


def test_threads_are_set_and_checked(make_segmenter, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    make_segmenter(Bands())
    assert asked == []
    make_segmenter(Bands(), threads=3)
    assert asked == [3]
    with pytest.raises(InputError, match="threads is 0, expected 1 or more"):
        make_segmenter(Bands(), threads=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "no-such-model"}, "no-such-model.*bundled"),
        ({"device": "tpu"}, "'tpu'.*expected auto, cpu"),
        ({"device": "cuda:999"}, "cuda:999.*--device cpu"),
        ({"views": ["axial", "lateral"]}, "'lateral'.*axial, coronal, sagittal"),
        ({"views": ["axial", "axial"]}, "different"),
        ({"views": []}, "one to three"),
        ({"precision": "float16"}, "'float16'.*bfloat16"),
    ],
)
def test_unknown_arguments_are_one_line(make_segmenter, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        Segmenter(**arguments) if "model" in arguments else make_segmenter(Bands(), **arguments)
    assert "\n" not in str(caught.value)


def test_a_network_that_is_not_what_its_card_says_is_refused(make_segmenter):
    with pytest.raises(InputError, match=r"does not take what its card names.*channels"):
        make_segmenter(nn.Conv2d(3, 4, 1), card={"slices": [-1, 0]})
    with pytest.raises(InputError, match=r"gives .1, 5, 32, 32.*names classes"):
        make_segmenter(nn.Conv2d(1, 5, 1))


# --- memory and real data


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of this process alone is Linux's to tell")
@pytest.mark.parametrize("kind", ["bundled", "slices", "volumes"])
def test_memory_stays_within_input_labels_and_one_gigabyte(kind, tmp_path):
    model, options = ("brain-structures", {}) if kind == "bundled" else ("brain-structures-1", {"views": ["axial"]})
    if kind == "volumes":
        card = make_card(spacing_mm=1.5, patch=[64, 64, 64], overlap=0.25)
        weights.save(tmp_path / "volumes", SkipUnet(4, widths=(4, 8)), card)
        model, options = str(tmp_path / "volumes"), {}
    program = """
import json, re, sys, numpy as np, torch
from pathlib import Path
def memory(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
of_torch = memory("VmRSS")  # 0.45 to 0.65 GB: what it maps differs from machine to machine
from medvision.segmentation import Segmenter
from medvision.volumes.geometry import Grid
from medvision.volumes.files import Volume
shape = (320, 320, 220)
grid = Grid.from_affine(shape, np.diag([0.7, 0.7, 0.9, 1]))
data = np.random.default_rng(0).random(shape[::-1], np.float32).T
segmenter = Segmenter(sys.argv[1], device="cpu", threads=1, **json.loads(sys.argv[2]))
found = segmenter.segment(Volume(data, grid, "0" * 64))
assert found.labels.shape == shape
# not ru_maxrss: that one remembers the process that started this one
print(memory("VmHWM") - of_torch - data.nbytes - found.labels.nbytes)
"""
    command = [sys.executable, "-c", program, model, json.dumps(options)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 0.6e9  # with torch itself a gigabyte, or little more


def test_the_bundled_model_segments_a_real_scan(data_root: Path):
    scan = data_root / "medical" / "brain_t1_manual_noncommercial" / "1000_SS.nii.gz"
    found = Segmenter(views=["coronal"], fast=True, device="cpu").segment(scan)
    volume_ml = np.count_nonzero(found.labels) * np.prod(found.volume.grid.spacing_mm) / 1000
    assert 800 < volume_ml < 2200
    inside = found.volume.data > 0  # the scan is skull-stripped
    assert inside[found.labels > 0].mean() > 0.95
