"""Training patches from our store, beside MONAI's transforms on MetaTensors: python -m tests.benchmarks.patch_loading

CPU seconds of one process and one thread for a patch, cut and varied in the same ways, once what can be kept is kept:
in MONAI's `CacheDataset`, or in the store. Both in turns (A B A B) over the same files, volumes of 160 x 160 x 120
voxels that are brought from 1.2 to 1.5 mm. What keeping them cost is said apart.
"""

import functools
import importlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medvision.contract import InputContract
from medvision.datasets.layouts import Case, find_cases
from medvision.datasets.slices import Augment, SliceOrder
from medvision.datasets.volume_patches import RandomPatches
from pipelines.data.store import write_store
from pipelines.kinds.labelled_volumes import StoredVolumes, to_sample
from pipelines.recipe.volumes import Augmentation
from tests.medvision.phantoms import make_affine, write_scan

SHAPE, SPACING_MM, TARGET_MM = (160, 160, 120), 1.2, 1.5
VOLUMES, PATCHES = 6, 60
SIZES = ((40, 56, 40), (64, 64, 64), (96, 96, 96))
AUGMENTATION = Augmentation(rotation_degrees=30, scaling=0.3, shift=0, intensity=0, gamma=0.35, noise=0.1)
CARD = {
    "classes": [{"id": number, "name": f"class {number}", "color": [0, 0, 0]} for number in range(3)],
    "input": {"spacing_mm": TARGET_MM, "normalisation": "zscore", "patch": [64, 64, 64]},
}

Patches = Iterator[tuple[Tensor, Tensor]]


def write_volumes(root: Path) -> list[Case]:
    """Volumes with two balls in noise, one class each, in the layout of the Medical Segmentation Decathlon."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    affine = make_affine("LPS", (SPACING_MM,) * 3)
    for number in range(VOLUMES):
        random = np.random.default_rng(number)
        labels = np.zeros(SHAPE, np.uint8)
        for label in (1, 2):
            centre = random.integers(40, 80, 3)
            labels[np.square(grid - centre[:, None, None, None]).sum(0) < 20**2] = label
        image = (100 * labels + random.normal(300, 20, SHAPE)).astype(np.int16)
        write_scan(root / "imagesTr" / f"volume_{number}.nii.gz", image, affine)
        write_scan(root / "labelsTr" / f"volume_{number}.nii.gz", labels, affine)
    return find_cases("msd", root)


def monai_patches(cases: list[Case]) -> Callable[[tuple[int, int, int]], Patches]:
    """Patches by MONAI's transforms; the deterministic ones are run once."""
    t, data = importlib.import_module("monai.transforms"), importlib.import_module("monai.data")
    both = ["image", "label"]
    modes = {"mode": ("bilinear", "nearest")}
    files = [{"image": str(case.image[0]), "label": str(case.labels[0])} for case in cases]
    kept = data.CacheDataset(
        files,
        t.Compose([
            t.LoadImaged(both), t.EnsureChannelFirstd(both), t.Orientationd(both, axcodes="RAS", labels=None),
            t.Spacingd(both, pixdim=(TARGET_MM,) * 3, **modes), t.NormalizeIntensityd(["image"]),
        ]),
        num_workers=1,
        progress=False,
    )  # fmt: skip
    s = AUGMENTATION

    def patches(size: tuple[int, int, int]) -> Patches:
        varied = t.Compose([
            # as our order draws them: a third with a class at the centre
            t.RandCropByPosNegLabeld(both, "label", size, pos=1, neg=2, num_samples=1),
            t.RandAffined(
                both, prob=0.8, rotate_range=[np.deg2rad(s.rotation_degrees)] * 3, scale_range=[s.scaling] * 3,
                padding_mode="border", **modes,
            ),
            t.RandAdjustContrastd(["image"], prob=0.5, gamma=(float(np.exp(-s.gamma)), float(np.exp(s.gamma)))),
            t.RandGaussianNoised(["image"], prob=0.5, std=s.noise),
        ])  # fmt: skip
        varied.set_random_state(0)
        dataset = data.Dataset(kept, varied)
        for number in itertools.count():
            (item,) = dataset[number % len(kept)]
            yield item["image"], item["label"]

    return patches


def store_patches(cases: list[Case], folder: Path) -> Callable[[tuple[int, int, int]], Patches]:
    """Patches of the store, as the kind `volume_patches` draws them."""
    contract = InputContract.from_card(CARD, "benchmark")
    store = write_store(folder, cases, functools.partial(to_sample, contract=contract), settings={})

    def patches(size: tuple[int, int, int]) -> Patches:
        dataset = RandomPatches(StoredVolumes(store, "train"), size, Augment(AUGMENTATION.model_dump(), size))
        order = SliceOrder(dataset.labelled, rest=dataset.anywhere, batch_size=3, steps=10**6, foreground=1 / 3, seed=0)
        for batch in order:
            yield from (dataset[key] for key in batch)

    return patches


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    started = time.process_time()
    work()
    return time.process_time() - started


def drain(patches: Patches, count: int) -> None:
    """Take the next patches."""
    for image, _ in itertools.islice(patches, count):
        image.sum().item()


def main() -> None:
    """Print a line of JSON for what keeping the volumes cost, and one for each size of patch."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        cases = write_volumes(Path(root) / "data")
        made: dict[str, Callable[[tuple[int, int, int]], Patches]] = {}
        kept = {
            "monai": seconds(lambda: made.update(monai=monai_patches(cases))),
            "store": seconds(lambda: made.update(store=store_patches(cases, Path(root) / "store"))),
        }
        print(
            json.dumps({"prepare_s_per_volume": {name: round(s / VOLUMES, 3) for name, s in kept.items()}}), flush=True
        )
        for size in SIZES:
            running = {name: make(size) for name, make in made.items()}
            for patches in running.values():
                drain(patches, 6)
            taken: dict[str, list[float]] = {name: [] for name in running}
            for name in ("monai", "store") * 2:
                taken[name].append(seconds(lambda patches=running[name]: drain(patches, PATCHES)) / PATCHES)
            ratio = sum(taken["store"]) / sum(taken["monai"])
            each = {name: [round(s, 4) for s in values] for name, values in taken.items()}
            print(json.dumps({"patch": size, "cpu_s_per_patch": each, "store_to_monai": round(ratio, 3)}), flush=True)


if __name__ == "__main__":
    main()
