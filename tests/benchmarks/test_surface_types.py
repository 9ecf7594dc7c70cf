"""Baselines of the bundled model of surfaces: trees on one pixel, and a U-Net over a ResNet-18, on the same tests.

Both learn from scenes drawn as the model's are, with all bands of one sensor; the model itself takes any.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import segmentation_models_pytorch as smp
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from geovision.datasets.labels import IGNORED
from geovision.models.spectral_mapper import SpectralMapper
from geovision.spectra.drawing import CLASSES, DrawnScenes, SceneDrawer
from shared_backbones import weights
from shared_backbones.catalogue import Catalogue

BUILT, WATER, PLANTS = CLASSES.index("built_up"), CLASSES.index("water"), slice(0, 2)
SCENES, PIXELS, STEPS, BATCH, SIDE = 400, 100, 3000, 16, 32
Model = Callable[[np.ndarray], np.ndarray]


def drawn(sensor: str, part: str, count: int, seed: int) -> DrawnScenes:
    drawer = SceneDrawer("train" if part == "train" else "test", SIDE, [sensor], whole=True)
    return drawer(count, np.random.default_rng([seed, part == "train"]))


def bundled(sensor: str) -> Model:
    network = weights.load(Catalogue("geovision").find_model("surface-types")).module.eval()
    assert isinstance(network, SpectralMapper)
    network.see(drawn(sensor, "test", 1, 0).wavelengths)
    return lambda images: _probabilities(network, images)


def trees(sensor: str) -> Model:
    """Boosted trees on single pixels of drawn scenes."""
    scenes, random = drawn(sensor, "train", SCENES, 1), np.random.default_rng(1)
    pixels, labels = scenes.images.transpose(0, 2, 3, 1), scenes.labels
    chosen = random.permutation(np.argwhere(labels != IGNORED))[: SCENES * PIXELS]
    places = tuple(chosen.T)
    model = HistGradientBoostingClassifier(random_state=1).fit(pixels[places], labels[places])

    def predict(images: np.ndarray) -> np.ndarray:
        count, bands, height, width = images.shape
        scores = model.predict_proba(images.transpose(0, 2, 3, 1).reshape(-1, bands))
        every = np.zeros((len(scores), len(CLASSES)), np.float32)
        every[:, model.classes_] = scores
        return every.reshape(count, height, width, -1).transpose(0, 3, 1, 2)

    return predict


def unet(sensor: str) -> Model:
    """A U-Net over a ResNet-18 with fixed bands, with the model's steps, batch and rate."""
    torch.manual_seed(1)
    bands = drawn(sensor, "test", 1, 0).images.shape[1]
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=bands, classes=len(CLASSES))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, STEPS, pct_start=0.03)
    drawer = SceneDrawer("train", SIDE, [sensor], whole=True)
    for step in range(STEPS):
        scenes = drawer(BATCH, np.random.default_rng([1, 0, step]))
        logits = network(torch.from_numpy(scenes.images))
        labels = torch.from_numpy(scenes.labels.astype(np.int64))
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    return lambda images: _padded(network, images)


def _probabilities(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        scores: Tensor = network(torch.from_numpy(np.ascontiguousarray(images, np.float32)))
    return scores.softmax(1).numpy()


def _padded(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Probabilities of images of any size: a U-Net of five levels takes multiples of 32."""
    height, width = images.shape[2:]
    more = [(0, 0), (0, 0), (0, -height % 32), (0, -width % 32)]
    return _probabilities(network, np.pad(images, more, mode="edge"))[:, :, :height, :width]


def balanced(right: dict[str, np.ndarray]) -> float:
    return float(np.mean([part.mean() for part in right.values()]))


def samples(model: Model, data: Path) -> float:
    """Balanced accuracy on the labelled pixels of Landsat 8."""
    table = json.loads((data / "geo" / "spyndex_landsat8_3class_samples.json").read_text())
    columns = {name: np.array(list(v.values()) if isinstance(v, dict) else v) for name, v in table.items()}
    pixels = np.stack([columns[f"SR_B{n}"] for n in range(1, 8)], 1).astype(np.float32)[..., None, None]
    scores = model(pixels)[..., 0, 0]
    told = np.stack([scores[:, BUILT], scores[:, PLANTS].sum(1), scores[:, WATER]]).argmax(0)
    return balanced({n: told[columns["class"] == n] == i for i, n in enumerate(("Urban", "Vegetation", "Water"))})


def villages(model: Model, data: Path) -> list[float]:
    """Balanced accuracy of vegetation against built-up on three dates of a chip of Sentinel-2."""
    folder = data / "geo" / "sentinel2_slovenia"
    with rasterio.open(folder / "LULC.tif") as source:
        cover = source.read(1)
    reached = []
    for path in sorted(folder.glob("S2_L1C_*.tif")):
        with rasterio.open(path) as source:
            bands = [n for n in source.indexes if source.descriptions[n - 1] not in ("B09", "B10")]
            images = source.read(bands)[None].astype(np.float32) / 10_000
        scores = model(images)[0]
        sealed = scores[BUILT] > scores[PLANTS].sum(0)
        reached.append(balanced({"vegetation": ~sealed[np.isin(cover, (2, 3, 4))], "built": sealed[cover == 8]}))
    return reached


def unseen(model: Model, sensor: str) -> float:
    """Accuracy on drawn scenes with spectra of sources that were left out."""
    scenes = drawn(sensor, "test", 64, 2)
    known = scenes.labels != IGNORED
    return float((model(scenes.images).argmax(1)[known] == scenes.labels[known]).mean())


@pytest.mark.parametrize("make", [bundled, trees, unet])
def test_surfaces_beside_trees_and_a_unet(make: Callable[[str], Model], data_root: Path) -> None:
    landsat, sentinel = make("landsat8"), make("sentinel2_l1c")
    dates = villages(sentinel, data_root)
    print(
        f"\n{make.__name__}: Landsat 8 pixels {samples(landsat, data_root):.3f}, villages {np.mean(dates):.3f} "
        f"({', '.join(f'{value:.3f}' for value in dates)}), drawn scenes of other sources "
        f"{unseen(landsat, 'landsat8'):.3f} (Landsat 8), {unseen(sentinel, 'sentinel2_l1c'):.3f} (Sentinel-2)"
    )
