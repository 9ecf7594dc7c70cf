"""From scenes to embeddings with footprints: GeoParquet, or NumPy arrays."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from geovision.footprints import bounds, check_place, corners, footprint
from geovision.networks import LoadedNetwork
from geovision.rasters import CACHE_BYTES
from geovision.scenes import Scene
from geovision.tiling import Axis
from shared_backbones.errors import InputError, require
from shared_backbones.files import brief, check_regular, printable, replacing
from shared_backbones.inference import LIBRARIES
from shared_backbones.memory import expect, hold

if TYPE_CHECKING:  # shapely is imported where an outline is made
    from shapely.geometry.base import BaseGeometry

FORMATS = (".parquet", ".npz")
_COPIES_OF_VECTORS = 3  # as they come, in one array, and as a column
_ROW_BYTES = 1500  # of a vector beside its numbers: its outline is an object of shapely


@dataclass(frozen=True)
class Embedded:
    """Embeddings of one scene, a row for each window.

    Attributes:
        vectors: `(N, D)` float32.
        rows: top of each window in pixels, `(N,)`.
        columns: its left side.
        shape: height and width of the windows in pixels.
        valid: share of valid pixels of each, 0 to 1.
        footprints: `(N, 5, 2)` longitude and latitude (WGS 84) of its corners, the first again at the end.
        outlines: its polygon, or polygons where it crosses the antimeridian, in the same coordinates.
    """

    vectors: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]
    valid: np.ndarray
    footprints: np.ndarray
    outlines: list["BaseGeometry"]


class Embedder(LoadedNetwork):
    """A network that gives a feature vector for an image, loaded once for many scenes.

    A classifier gives what its head sees; a masked autoencoder, or its encoder alone, the mean of its patch tokens.

    Args:
        model: Folder of a trained model.
        window: Side in pixels of the windows that get a vector each; by default that of the network's images. Smaller
            ones, multiples of a patch, get the mean of their own tokens, which have seen their surroundings.
        batch_size: Number of images that the network sees at once.
        min_valid: Smallest fraction of valid pixels; windows with less are left out.
        device: Device, as for `LoadedNetwork`.
        threads: CPU threads, as for `LoadedNetwork`.
        precision: Number format, as for `LoadedNetwork`.
        engine: Engine, as for `LoadedNetwork`.

    Raises:
        InputError: as `LoadedNetwork`; or the network has no features.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        window: int | None = None,
        batch_size: int = 16,
        min_valid: float = 0.5,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        engine: str = "torch",
    ) -> None:
        super().__init__(model, device=device, threads=threads, precision=precision, engine=engine)
        self.batch_size, self.min_valid = batch_size, min_valid
        if not hasattr(self.network, "forward_features"):
            raise InputError(f"model {printable(model)}: has no features; use a classifier or a masked autoencoder")
        size = self.contract.size
        self.window = size if window is None else window
        self._patch = _patch_of(self.network, size)
        if self.window != size and not (self._patch and self.window % self._patch == 0 and size % self.window == 0):
            raise InputError(f"window of {window} pixels: model {printable(model)} {self._possible_windows()}")
        try:
            *_, self.width = self._measured(
                size, lambda images, valid: torch.from_numpy(self.vectors(images.numpy(), valid.numpy(), trial=True))
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"model {printable(model)}: does not run on what its card promises ({reason})") from None

    def vectors(self, numbers: np.ndarray, valid: np.ndarray, *, trial: bool = False) -> np.ndarray:
        """Embeddings of the windows of images.

        Args:
            numbers: `(B, C, size, size)` in the model's numbers.
            valid: `(B, size, size)`.
            trial: as for `LoadedNetwork`.

        Returns:
            `(B, K, K, D)` for K x K windows of an image.
        """
        tokens = self(torch.from_numpy(numbers), torch.from_numpy(valid), "forward_features", trial=trial)
        count, size = len(numbers), self.contract.size
        if not self._patch:
            with torch.inference_mode():
                vectors = self.network.forward_head(tokens, pre_logits=True)
            return vectors.float().reshape(count, 1, 1, -1).cpu().numpy()
        places, windows = size // self._patch, size // self.window
        maps = tokens[:, 1:].unflatten(1, (-1, places, places)).mean(1)  # of the groups of bands
        parts = maps.unflatten(2, (windows, -1)).unflatten(1, (windows, -1))
        return parts.mean((2, 4)).cpu().numpy()

    def _possible_windows(self) -> str:
        size, patch = self.contract.size, self._patch
        if not patch:
            return f"has one vector for an image of {size} pixels; leave the window out"
        known = [str(side) for side in range(patch, size + 1, patch) if size % side == 0]
        return f"has patches of {patch} pixels in images of {size}; give one of {', '.join(known)}"

    def nothing(self) -> Embedded:
        """The embeddings of a scene without a window."""
        none = np.zeros(0, np.int64)
        side = self.contract.size
        corners = np.zeros((0, 5, 2))
        return Embedded(
            np.zeros((0, self.width), np.float32), none, none, (side, side), np.zeros(0, np.float32), corners, []
        )

    def memory(self, scene: Scene, beside: int = 0) -> float:
        """Estimate of the bytes of this machine's memory that `embed` takes: images, network, files and the table.

        Args:
            scene: opened with the model's bands.
            beside: vectors of other scenes that are in memory.
        """
        size, bands = self.contract.size, len(self.contract.bands)
        rows, columns = (_windows_of(length, size, self.window) for length in scene.shape)
        images = min(self.batch_size, len(rows) * len(columns))
        vectors = beside + sum(len(inside) for _, inside in rows) * sum(len(inside) for _, inside in columns)
        # of an image: as it is read, in its batch, and before and after it is normalised
        batch = images * size**2 * (20 * bands + 8)
        table = vectors * (_COPIES_OF_VECTORS * 4 * self.width + _ROW_BYTES)
        cache = min(CACHE_BYTES, 4 * bands * math.prod(scene.shape))
        return LIBRARIES + cache + batch + self._network_bytes(size, images) + table

    def embed(
        self, scene: Scene, *, beside: int = 0, on_progress: Callable[[int, int], None] | None = None
    ) -> Embedded:
        """Embed a scene in windows side by side; those at the right and lower border end with the scene.

        A scene smaller than the network's images is enlarged (bicubic), as the published evaluations do.

        Args:
            scene: opened with the model's bands.
            on_progress: called with windows done and windows in all.
            beside: vectors of other scenes that are in memory.

        Raises:
            InputError: the scene has no CRS, is damaged, or would take more memory than the budget.
        """
        check_place(scene.grid, scene.label)
        expect(self.memory(scene, beside), scene.label, "embedding it")
        size, window = self.contract.size, self.window
        if window < size and min(scene.shape) < size:
            raise InputError(
                f"{scene.label}: {scene.shape[0]} x {scene.shape[1]} pixels, less than the {size} x {size} that the "
                f"network sees at once; leave the window of {window} pixels out"
            )
        rows, columns = (_windows_of(length, size, window) for length in scene.shape)
        places = [(row, column) for row in rows for column in columns]
        height, width = (min(size, length) for length in scene.shape)
        shape = min(window, height), min(window, width)
        tiles: list[tuple[int, int, float]] = []
        vectors: list[np.ndarray] = []
        for first in range(0, len(places), self.batch_size):
            numbers, masks, kept = [], [], []
            for (row, downs), (column, rights) in places[first : first + self.batch_size]:
                values, valid = scene.read(row, column, height, width, self.contract.scale)
                inside = [
                    (down // window, right // window, row + down, column + right, known)
                    for down, right in itertools.product(downs, rights)
                    if (known := float(valid[down : down + shape[0], right : right + shape[1]].mean())) > 0
                    and known >= self.min_valid
                ]
                if inside:
                    numbers.append(values)
                    masks.append(valid)
                    kept.append(inside)
            if numbers:
                seen = self.vectors(*_enlarged(np.stack(numbers), np.stack(masks), size))
                for maps, inside in zip(seen, kept, strict=True):
                    vectors += [maps[down, right] for down, right, *_ in inside]
                    tiles += [(top, left, known) for _, _, top, left, known in inside]
            if on_progress is not None:
                on_progress(min(first + self.batch_size, len(places)), len(places))
        tops, lefts, valid_shares = (np.array([entry[part] for entry in tiles]) for part in range(3))
        return Embedded(
            np.stack(vectors) if vectors else np.zeros((0, self.width), np.float32),
            tops.astype(np.int64), lefts.astype(np.int64), shape, valid_shares.astype(np.float32),
            corners(scene.grid, tops, lefts, shape),
            [footprint(scene.grid, row, column, *shape, scene.label) for row, column, _ in tiles],
        )  # fmt: skip


def _patch_of(network: nn.Module, size: int) -> int:
    """Side in pixels of the patches of a network without a head, whose tokens are its features; 0 for others."""
    from geovision.models.satmae_pp import is_pretrained_encoder

    pools = getattr(network, "global_pool", False)  # and norms the mean of its tokens then
    return network.trunk.patch_size if is_pretrained_encoder(network) and not pools else 0


def _windows_of(length: int, size: int, window: int) -> list[tuple[int, list[int]]]:
    """Images along an axis, and which windows of each are taken: those farthest from its ends.

    Together the windows cover the axis; the last one ends with it.

    Returns:
        First pixel of each image, and first pixels of its windows within it.
    """
    margin = size // 4 // window * window  # what lies in it is taken from the next image
    starts = Axis.cover(length, size, 2 * margin).starts
    covered, result = 0, []
    for start in starts:
        last = start == starts[-1]
        ends = min(size, length) if last else size - margin
        inside = [place for place in range(0, ends, window) if start + place + window > covered]
        result.append((start, inside))
        covered = start + ends
    return result


def write_embeddings(path: Path, parts: Sequence[tuple[str, str, Embedded]], model_sha256: str) -> None:
    """Write a table of embeddings: GeoParquet 1.1 (`.parquet`) or arrays (`.npz`), complete or not at all.

    Both have `embedding` (fixed-size float32 vectors), `geometry` (in `.npz` the corners), `scene`, `scene_sha256`,
    `row`, `column`, `height`, `width`, `valid` and `model_sha256`.

    Args:
        path: path of the file, ending in `.parquet` or `.npz`.
        parts: name, sha256 and embeddings of each scene.
        model_sha256: SHA-256 of the model's weights.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    check_format(path)
    lengths = [len(part.vectors) for _, _, part in parts]
    columns: dict[str, np.ndarray] = {
        "embedding": np.concatenate([part.vectors for _, _, part in parts]),
        "scene": np.repeat([name for name, _, _ in parts], lengths),
        "scene_sha256": np.repeat([sha256 for _, sha256, _ in parts], lengths),
        "row": np.concatenate([part.rows for _, _, part in parts]),
        "column": np.concatenate([part.columns for _, _, part in parts]),
        "height": np.repeat([part.shape[0] for _, _, part in parts], lengths),
        "width": np.repeat([part.shape[1] for _, _, part in parts], lengths),
        "valid": np.concatenate([part.valid for _, _, part in parts]),
        "model_sha256": np.repeat([model_sha256], sum(lengths)),
    }
    if path.suffix == ".npz":
        _write_arrays(path, {"geometry": np.concatenate([part.footprints for _, _, part in parts]), **columns})
    else:
        _write_geoparquet(path, columns, [outline for _, _, part in parts for outline in part.outlines])


def join_embeddings(path: Path, tables: Sequence[Path]) -> None:
    """Write the rows of several tables of `write_embeddings` as one, complete or not at all.

    Raises:
        InputError: a table cannot be read, or the file cannot be written.
    """
    try:
        for table in tables:
            check_regular(table)
        parts = [(_read_arrays if path.suffix == ".npz" else _read_geoparquet)(table) for table in tables]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged tables make zipfile, NumPy and Arrow raise errors of every kind
        reason = brief(error)
        raise InputError(f"{printable(path)}: its parts cannot be put together ({reason}); write them anew") from None
    if path.suffix == ".npz":
        _write_arrays(path, columns)
    else:
        import shapely

        _write_geoparquet(path, columns, list(shapely.from_wkb(columns.pop("geometry"))))


def check_format(path: Path) -> None:
    """Raise an InputError unless embeddings can be written under this name."""
    if path.suffix not in FORMATS:
        raise InputError(f"{printable(path)}: ends in {path.suffix or 'nothing'}, expected {' or '.join(FORMATS)}")


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_geoparquet(path: Path) -> dict[str, np.ndarray]:
    parquet = require("pyarrow.parquet", "geo")
    with path.open("rb") as file, hold(printable(path), "the table"):
        table = parquet.read_table(file, use_threads=False, pre_buffer=False)
        columns = {name: np.array(table[name].to_pylist()) for name in table.column_names if name != "geometry"}
    outlines = np.empty(len(table), object)
    outlines[:] = table["geometry"].to_pylist()
    columns["embedding"] = columns["embedding"].astype(np.float32)
    return {"geometry": outlines, **columns}


def _write_arrays(path: Path, columns: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **columns)


def _write_geoparquet(path: Path, columns: dict[str, np.ndarray], outlines: Sequence["BaseGeometry"]) -> None:
    import shapely

    pyarrow = require("pyarrow", "geo")
    parquet = require("pyarrow.parquet", "geo")

    vectors = columns.pop("embedding")
    flat = pyarrow.array(np.ascontiguousarray(vectors).reshape(-1))
    table = {
        "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        "geometry": pyarrow.array([shapely.to_wkb(outline, flavor="iso") for outline in outlines], pyarrow.binary()),
        **{name: pyarrow.array(values.tolist()) for name, values in columns.items()},
    }
    geometry: dict[str, str | list[str] | list[float]] = {
        "encoding": "WKB",
        "geometry_types": sorted({outline.geom_type for outline in outlines}) or ["Polygon"],
    }  # no CRS: longitude, latitude, WGS 84
    if outlines:
        geometry["bbox"] = bounds(outlines)
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    content = pyarrow.table(table).replace_schema_metadata({"geo": json.dumps(geo)})
    with replacing(path) as temporary:
        parquet.write_table(content, temporary, compression="zstd")


def _enlarged(numbers: np.ndarray, valid: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    if numbers.shape[2:] == (size, size):
        return numbers, valid
    images = F.interpolate(torch.from_numpy(numbers), (size, size), mode="bicubic", align_corners=False)
    masks = F.interpolate(torch.from_numpy(valid[:, None].astype(np.float32)), (size, size), mode="nearest")
    return images.numpy(), masks[:, 0].numpy() > 0
