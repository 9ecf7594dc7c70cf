"""The generator of training images, on label maps made from nothing and on one real one."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from medvision.datasets import synthetic_slices
from medvision.datasets.brain_labels import FREESURFER, LEFT_TO_RIGHT, PART_IDS, PARTS
from medvision.datasets.patches import cut, patches_of
from medvision.datasets.synthetic import LabelMapSynthesizer, SynthesisSettings
from medvision.datasets.synthetic_slices import SyntheticSlices, slices_of
from shared_backbones.errors import InputError
from tests.medvision.heads import IDS, make_head_labels, write_heads
from tests.medvision.phantoms import make_affine, write_scan

STILL: dict[str, Any] = {"rotation_degrees": 0.0, "scaling": 0.0, "shear": 0.0, "displacement": 0.0}
CLEAN: dict[str, Any] = {"bias_field": 0.0, "noise": 0.0, "thick_slices_share": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_heads(tmp_path_factory.mktemp("maps"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(folder, seed: int = 0, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    image, labels = LabelMapSynthesizer(folder, SynthesisSettings(**settings))(seeded(seed))
    return image.numpy(), labels.numpy()


def grown(labels: np.ndarray, steps: int) -> np.ndarray:
    return np.asarray(ndimage.binary_dilation(labels > 0, iterations=steps), bool)


def test_maps_are_read_with_ras_axes(folder):
    synthesizer = LabelMapSynthesizer(folder)
    assert synthesizer.ids.tolist() == list(IDS)
    # the phantom reaches so near to the border that nothing was cut off
    np.testing.assert_array_equal(synthesizer.ids[synthesizer.heads[0].numpy()], make_head_labels())


def test_the_seed_decides_all(folder):
    synthesizer = LabelMapSynthesizer(folder)
    image, labels = synthesizer(seeded(5))
    again_image, again_labels = synthesizer(seeded(5))
    assert torch.equal(image, again_image) and torch.equal(labels, again_labels)
    other_image, _ = synthesizer(seeded(6))
    assert other_image.shape != image.shape or not torch.equal(image, other_image)


def test_types_ranges_and_label_set(folder):
    synthesizer = LabelMapSynthesizer(folder)
    full = np.bincount(draw(folder, stripped_share=0.0, **STILL, **CLEAN)[1].ravel(), minlength=10)
    assert (full > 0).all()
    for seed in range(6):
        image, labels = synthesizer(seeded(seed))
        assert image.dtype == torch.float32 and labels.dtype == torch.uint8
        assert image.shape == labels.shape and min(image.shape) > 20
        assert image.min() >= 0 and image.max() == 1
        counts = np.bincount(labels.numpy().ravel(), minlength=10)
        assert len(counts) == 10 and (counts > 0).all()
        # deformed, not torn apart
        assert 0.4 < counts[1:].sum() / full[1:].sum() < 1.8


def test_left_and_right_share_their_intensities(folder):
    spread = []
    for seed in range(5):
        image, labels = draw(folder, seed, spacing_mm=1.0, t1_share=0.0, stripped_share=0.0, **STILL, **CLEAN)
        middle = image.shape[0] // 2
        means = []
        for structure in (1, 2):
            mask = np.asarray(ndimage.binary_erosion(labels == structure), bool)
            left, right = image[:middle][mask[:middle]].mean(), image[middle:][mask[middle:]].mean()
            assert left == pytest.approx(right, abs=0.03)
            means.append((left + right) / 2)
        spread.append(abs(means[0] - means[1]))
    assert max(spread) > 0.15  # else nothing was shown


@pytest.mark.parametrize("stripped", [0.0, 1.0])
def test_targets_lie_on_what_was_painted(folder, stripped):
    for seed in range(3):
        image, labels = draw(folder, seed, spacing_mm=1.0, t1_share=0.0, stripped_share=stripped, **CLEAN)
        inner = np.stack([ndimage.binary_erosion(labels == k) for k in range(1, 10)])
        values = [image[mask] for mask in inner if mask.sum() > 20]
        within = np.average([v.var() for v in values], weights=[len(v) for v in values])
        assert within < 0.3 * np.concatenate(values).var()


def test_t1_contrast_is_that_of_t1(folder):
    for seed in range(4):
        image, labels = draw(folder, seed, t1_share=1.0, stripped_share=1.0, bias_field=0.0)
        white, grey, fluid = (np.median(image[labels == k]) for k in (1, 2, 6))
        assert white > grey + 0.05 > fluid + 0.1


def test_stripped_volumes_are_empty_outside_and_whole_heads_are_not(folder):
    empty = 0
    for seed in range(8):
        image, labels = draw(folder, seed, stripped_share=1.0)
        # rim and closing reach at most 14 mm, which is 10 voxels
        outside = ~grown(labels, 10)
        if outside.any():
            empty += not image[outside].any()
    assert empty >= 4
    image, labels = draw(folder, 1, stripped_share=0.0, t1_share=0.0, **STILL, **CLEAN)
    scalp = grown(labels, 4) & ~grown(labels, 3)
    assert np.median(image[scalp]) > 0


@pytest.mark.parametrize("spacing_mm", [1.0, 1.5, 2.2])
def test_thick_slices_end_on_the_same_grid(folder, spacing_mm):
    image, labels = draw(folder, 2, thick_slices_share=1.0, spacing_mm=spacing_mm)
    plain, _ = draw(folder, 2, thick_slices_share=0.0, spacing_mm=spacing_mm)
    assert image.shape == labels.shape == plain.shape


@pytest.mark.parametrize(
    "head", [np.zeros((20, 21, 22), np.int16), np.full((20, 21, 22), 3, np.int16), make_head_labels(8)]
)
def test_empty_full_and_tiny_maps_are_drawn_from(tmp_path, head):
    synthesizer = LabelMapSynthesizer(write_heads(tmp_path, head))
    for seed in range(4):
        image, labels = synthesizer(seeded(seed))
        assert image.shape == labels.shape and image.isfinite().all()
        for x, y in slices_of(image, labels, context=(-1, 0), size=16, count=2, generator=seeded(seed)):
            assert x.shape == (2, 16, 16) and y.shape == (16, 16)


def test_bad_maps_are_one_line(tmp_path):
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            LabelMapSynthesizer(tmp_path)
        assert "\n" not in str(caught.value)

    refused("found no label map")
    write_scan(tmp_path / "a.nii.gz", make_head_labels(16).astype(np.int32) * 100)
    refused("a.nii.gz: found ids from 0 to")
    write_scan(tmp_path / "a.nii.gz", make_head_labels(16), make_affine("RAS", (1, 1, 2)))
    refused("a.nii.gz: its voxels measure 1 x 1 x 2 mm, expected 1 mm")
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    refused("a.nii.gz")


@pytest.mark.parametrize("targets", [FREESURFER, PART_IDS])
def test_no_step_waits_for_the_device(folder, targets):
    # "meta" holds shapes alone: whatever reads a value of a tensor there, or leaves the device, raises
    settings = SynthesisSettings(coarse_share=0.4, thick_slices_share=0.4, stripped_share=0.5)
    version = {"name": "rescale_intensity", "version": 2}
    on_meta = LabelMapSynthesizer(folder, settings, targets=targets, normalisation=version, device="meta")
    on_cpu = LabelMapSynthesizer(folder, settings, targets=targets, normalisation=version)
    for seed in range(30):
        image, labels = on_meta(seeded(seed))
        assert image.device.type == labels.device.type == "meta"
        assert (image.dtype, labels.dtype) == (torch.float32, torch.uint8)
        images, parts = patches_of(image, labels, size=(16,) * 3, count=2, border_share=0.5, generator=seeded(seed))
        assert images.device.type == parts.device.type == "meta"
        if seed < 3:
            assert image.ndim == on_cpu(seeded(seed))[0].ndim


def test_the_guard_against_waiting_guards(folder):
    with pytest.raises(RuntimeError):  # the first version counts the voxels above the mean
        LabelMapSynthesizer(folder, device="meta")(seeded(0))


def test_sides_are_kept_when_the_head_is_mirrored(folder):
    synthesizer = LabelMapSynthesizer(folder, SynthesisSettings(spacing_mm=1.0, **STILL, **CLEAN), targets=PART_IDS)
    for seed in range(8):
        _, parts = synthesizer(seeded(seed))
        middle = parts.shape[0] // 2
        for left, right in ((2, 41), (3, 42), (17, 53), (7, 46)):
            # axes are RAS: the first half is the left
            assert (parts[: middle - 1] != right).all() and (parts[middle + 1 :] != left).all()
            assert (parts == left).any() and (parts == right).any()


def test_parts_belong_to_the_structures_that_ids_belong_to():
    assert {part: FREESURFER[part] for part in PARTS} == PARTS
    for number, part in PART_IDS.items():
        assert FREESURFER[number] == FREESURFER[part]
    assert set(PART_IDS.values()) == {0, *PARTS, *LEFT_TO_RIGHT.values()}
    assert len(PARTS) == 18 and len(LEFT_TO_RIGHT) == 14


def test_coarse_scans_end_on_the_same_grid_and_are_smoother(folder):
    sharpness = []
    for share in (0.0, 1.0):
        image, labels = draw(folder, 3, coarse_share=share, coarsest_mm=3.0, stripped_share=0.0, **CLEAN)
        assert image.shape == labels.shape
        sharpness.append(np.abs(np.diff(image, axis=0)).mean())
    assert sharpness[1] < 0.9 * sharpness[0]


# --- patches


def test_a_cut_is_the_box_and_empty_beyond_the_volume():
    volume = torch.arange(1, 4 * 5 * 6 + 1).view(4, 5, 6).float()
    assert torch.equal(cut(volume, (1, 2, 3), (2, 3, 2)), volume[1:3, 2:5, 3:5])
    beyond = cut(volume, (-2, 3, torch.tensor(5)), (4, 3, 2))
    assert torch.equal(beyond[2:, :2, :1], volume[:2, 3:, 5:])
    assert beyond.count_nonzero() == 4


def test_patches_lie_at_the_brain_or_anywhere():
    targets = torch.zeros(60, 80, 90, dtype=torch.uint8)
    targets[20:40, 10:50, 50:80] = 3
    place = torch.stack(torch.meshgrid(*[torch.arange(1, n + 1) for n in targets.shape], indexing="ij")).float()
    covered = {}
    for share in (0.0, 1.0):
        shared: dict[str, Any] = {"size": (32, 32, 32), "count": 60, "border_share": share}
        images, labels = patches_of(place[2], targets, generator=seeded(3), **shared)
        again, _ = patches_of(place[2], targets, generator=seeded(3), **shared)
        assert images.shape == labels.shape == (60, 32, 32, 32) and labels.dtype == torch.uint8
        assert torch.equal(images, again)
        # image and targets are cut at one place
        assert (images[labels > 0] >= 51).all() and (images[labels > 0] <= 80).all()
        covered[share] = [int((patch > 0).sum()) for patch in labels]
        lowest = [float(patch.amax()) <= 32 for patch in images]
        assert any(lowest) == (share == 1.0)  # the neck
    assert min(covered[0.0]) > 0 and np.mean(covered[0.0]) > 1.5 * np.mean(covered[1.0])


def test_patches_larger_than_the_volume_and_volumes_without_a_brain():
    image, targets = torch.rand(10, 50, 20), torch.zeros(10, 50, 20, dtype=torch.uint8)
    for share in (0.0, 1.0):
        images, _ = patches_of(image, targets, size=(32,) * 3, count=8, border_share=share, generator=seeded(1))
        assert images.shape == (8, 32, 32, 32) and images.any(dim=(1, 2, 3)).all()


# --- slices


def numbered(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A volume that holds nothing but its number."""
    number = generator.initial_seed() & 0xFFFFFFFF
    return torch.full((64, 64, 64), float(number)), torch.ones((64, 64, 64), dtype=torch.uint8)


def stream(**changes) -> SyntheticSlices:
    given = {"context": (-1, 0, 1), "size": 12, "slices_per_volume": 3, "buffer": 0, "seed": 7} | changes
    return SyntheticSlices(numbered, **given)  # type: ignore[arg-type]


def numbers(slices: SyntheticSlices, count: int) -> list[int]:
    return [int(x.max()) for x, _ in itertools.islice(slices, count)]


def test_slices_come_in_the_shape_asked_for_again_and_again():
    x, y = next(iter(stream()))
    assert x.shape == (3, 12, 12) and x.dtype == torch.float32
    assert y.shape == (12, 12) and y.dtype == torch.uint8
    assert numbers(stream(), 9) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert numbers(stream(buffer=20), 40) == numbers(stream(buffer=20), 40)


def test_a_buffer_mixes_volumes_and_loses_none():
    mixed = numbers(stream(buffer=20), 200)
    assert len(set(mixed[:20])) > 4
    assert set(mixed) >= set(range(40))
    assert max(mixed.count(number) for number in set(mixed)) <= 3


def test_a_stream_goes_on_at_any_volume():
    assert numbers(stream(start=5), 6) == [5, 5, 5, 6, 6, 6]


def test_ranks_and_workers_share_the_volumes_out(monkeypatch):
    drawn = []
    for rank, worker in itertools.product(range(2), range(3)):
        info = SimpleNamespace(id=worker, num_workers=3)
        monkeypatch.setattr(synthetic_slices, "get_worker_info", lambda info=info: info)
        drawn += numbers(stream(slices_per_volume=1, start=10, rank=rank, world_size=2), 4)
    assert sorted(drawn) == list(range(10, 34))


def test_slices_carry_their_neighbours_and_their_targets():
    x, y, z = (axis.float() for axis in torch.meshgrid(*[torch.arange(20)] * 3, indexing="ij"))
    image = 1 + x + 20 * y + 400 * z
    labels = (image % 9 + 1).to(torch.uint8)
    steps = set()
    for context, target in slices_of(image, labels, context=(-2, 0, 1), size=24, count=60, generator=seeded(0)):
        inside = target > 0
        assert torch.equal(context[1] > 0, inside)
        assert torch.equal(target[inside], (context[1][inside] % 9 + 1).to(torch.uint8))
        before, after = (context[1] - context[0])[inside].unique(), (context[2] - context[1])[inside].unique()
        assert len(before) == len(after) == 1
        steps.add((int(before), int(after)))
    # two slices back and one ahead along each axis; neighbours beyond an end are the slice at the end
    assert {(2, 1), (40, 20), (800, 400)} <= steps
    assert all(
        (back, ahead) in {(2 * s, s), (s, s), (0, s), (2 * s, 0)}
        for back, ahead in steps
        for s in [max(ahead, back // 2)]
    )


def test_one_real_map(data_root, tmp_path):
    source = data_root / "medical" / "brain_labelmaps_synthseg" / "training_seg_01.nii.gz"
    (tmp_path / source.name).symlink_to(source.resolve())
    image, labels = draw(tmp_path, stripped_share=0.0)
    millilitres = np.bincount(labels.ravel(), minlength=10) * 1.5**3 / 1000
    assert len(millilitres) == 10
    assert 300 < millilitres[1] < 900 and 300 < millilitres[2] < 1000
    assert (millilitres[3:] > 2).all()
    assert image.shape == labels.shape and image.max() == 1
