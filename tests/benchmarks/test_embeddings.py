"""What embeddings of the bundled `satmae-mini` are worth beside the means of the bands: classes of the nearest windows.

Windows of 4 x 4 pixels of one place at three dates; neighbours are from one part of the ground on two dates, and what
is told is another part on the third, each date in turn. Intervals redraw blocks of the ground.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import rasterio.windows

from geovision.embedding import Embedder
from geovision.scenes import open_for_model
from shared_backbones.catalogue import Catalogue

DATES = ("2015-07-31", "2015-08-30", "2015-09-09")
CLASSES = (2, 3, 4, 8)
WINDOW, SIDE, NEIGHBOURS, BLOCK = 4, 25, 10, 3
Table = dict[str, np.ndarray]


def cropped(folder: Path, date: str, to: Path) -> Path:
    """The part of a scene that windows cover."""
    path = to / f"S2_L1C_13band_{date}.tif"
    window = rasterio.windows.Window(0, 0, SIDE * WINDOW, SIDE * WINDOW)  # pyright: ignore[reportCallIssue]
    with rasterio.open(folder / path.name) as source:
        profile = source.profile | {"height": SIDE * WINDOW, "width": SIDE * WINDOW}
        with rasterio.open(path, "w", **profile) as target:
            target.write(source.read(window=window))
            for number, name in enumerate(source.descriptions, 1):
                target.set_band_description(number, name)
    return path


def embeddings(paths: dict[str, Path]) -> tuple[Table, Table]:
    """Vectors of all windows, `(25, 25, D)` a date: the model's, and the means of the bands that it sees."""
    embedder = Embedder(Catalogue("geovision").find_model("satmae-mini"), window=WINDOW, device="cpu")
    vectors, means = {}, {}
    for date, path in paths.items():
        with open_for_model(path, embedder.contract) as scene:
            table = embedder.embed(scene)
            values, _ = scene.read(0, 0, SIDE * WINDOW, SIDE * WINDOW, embedder.contract.scale)
        vectors[date] = np.zeros((SIDE, SIDE, table.vectors.shape[1]))
        vectors[date][table.rows // WINDOW, table.columns // WINDOW] = table.vectors
        means[date] = values.reshape(len(values), SIDE, WINDOW, SIDE, WINDOW).mean((2, 4)).transpose(1, 2, 0)
    return vectors, means


def majority(path: Path) -> np.ndarray:
    """The commonest class of each window, `(25, 25)`."""
    with rasterio.open(path) as source:
        cover = source.read(1)[: SIDE * WINDOW, : SIDE * WINDOW]
    parts = cover.reshape(SIDE, WINDOW, SIDE, WINDOW).transpose(0, 2, 1, 3).reshape(SIDE, SIDE, -1)
    return np.array([[np.bincount(part).argmax() for part in row] for row in parts])


def told(vectors: Table, labels: np.ndarray, known: np.ndarray, asked: np.ndarray) -> Iterator[np.ndarray]:
    """Classes of the asked windows on each date in turn, by the nearest known ones on the two others (cosine)."""
    units = {date: values / np.linalg.norm(values, axis=2, keepdims=True) for date, values in vectors.items()}
    for date in DATES:
        others = [other for other in DATES if other != date]
        near = units[date][asked] @ np.concatenate([units[other][known] for other in others]).T
        voters = np.tile(labels[known], 2)[np.argsort(-near, 1, kind="stable")[:, :NEIGHBOURS]]
        votes = np.stack([(voters == number).sum(1) for number in CLASSES], 1)
        first = np.array([[list(row).index(n) if n in row else NEIGHBOURS for n in CLASSES] for row in voters])
        yield np.array(CLASSES)[(votes - first / (NEIGHBOURS + 1)).argmax(1)]  # of equal votes the nearest decides


def balanced(answers: list[np.ndarray], labels: np.ndarray, chosen: np.ndarray) -> float:
    """Balanced accuracy, mean of the dates."""
    right = [[(answer[chosen] == labels[chosen])[labels[chosen] == n].mean() for n in np.unique(labels[chosen])]
             for answer in answers]  # fmt: skip
    return float(np.mean([np.mean(part) for part in right]))


def test_nearest_windows_of_embeddings_and_of_band_means(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "geo" / "sentinel2_slovenia"
    vectors, means = embeddings({date: cropped(folder, date, tmp_path) for date in DATES})
    labels = majority(folder / "LULC.tif")
    labelled = np.isin(labels, CLASSES)
    rows, columns = np.divmod(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), SIDE)
    north, west = rows < SIDE // 2, columns < SIDE // 2
    divisions = {
        "north known, south asked": (north, ~north), "south known, north asked": (~north, north),
        "west known, east asked": (west, ~west), "east known, west asked": (~west, west),
    }  # fmt: skip
    print()
    for name, (known, asked) in divisions.items():
        known, asked = known & labelled, asked & labelled
        truth = labels[asked]
        answers = [list(told(table, labels, known, asked)) for table in (vectors, means)]
        blocks = (rows // BLOCK * SIDE + columns // BLOCK)[asked]
        members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
        random = np.random.default_rng(0)
        draws: list[list[float]] = []
        for _ in range(1000):
            chosen = np.concatenate([members[n] for n in random.integers(len(members), size=len(members))])
            draws.append([balanced(answer, truth, chosen) for answer in answers])
        ends = np.percentile(np.array(draws), [2.5, 97.5], axis=0)
        less = np.percentile(np.diff(draws, axis=1)[:, 0] * -1, [2.5, 97.5])
        every = np.arange(len(truth))
        own, raw = (balanced(answer, truth, every) for answer in answers)
        accuracies = [np.mean([(part == truth).mean() for part in answer]) for answer in answers]
        print(
            f"{name}: satmae-mini {own:.3f} [{ends[0, 0]:.3f}, {ends[1, 0]:.3f}], band means {raw:.3f} "
            f"[{ends[0, 1]:.3f}, {ends[1, 1]:.3f}], difference {own - raw:+.3f} [{less[0]:+.3f}, {less[1]:+.3f}]; "
            f"accuracy {accuracies[0]:.3f} and {accuracies[1]:.3f}; windows "
            + ", ".join(f"{(truth == number).sum()} of {number}" for number in CLASSES)
        )
