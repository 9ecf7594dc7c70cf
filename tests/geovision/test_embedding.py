"""Embeddings: the network's own features, at the right place on Earth, in tables that others read."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import torch

from geovision.embedding import Embedder, write_embeddings
from geovision.scenes import open_for_model
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.geovision import small_models
from tests.geovision.rasters import write_scene


def scene_values(height: int = 40, width: int = 52) -> np.ndarray:
    return np.random.default_rng(0).integers(500, 4000, (3, height, width)).astype(np.uint16)


def embedded(model: Path, path: Path, **options):
    embedder = Embedder(model, **options)
    with open_for_model(path, embedder.contract, sensor="sentinel2_l1c") as scene:
        return embedder, embedder.embed(scene)


@pytest.mark.parametrize("kind", ["classifier", "autoencoder"])
def test_vectors_are_what_the_network_gives_for_each_window(tmp_path: Path, kind: str):
    folder = getattr(small_models, kind)(tmp_path / "m")
    path = write_scene(tmp_path / "s.tif", scene_values(), small_models.BANDS)
    embedder, found = embedded(folder, path, batch_size=5)
    assert found.vectors.shape == (12, 16) and found.shape == (16, 16)
    assert list(zip(found.rows[:5], found.columns[:5], strict=True)) == [(0, 0), (0, 16), (0, 32), (0, 36), (16, 0)]
    network: Any = weights.load(folder).module
    for number in (0, 6, 11):
        row, column = found.rows[number], found.columns[number]
        window = torch.from_numpy(scene_values()[:, row : row + 16, column : column + 16].astype(np.float32))
        with torch.inference_mode():
            tokens = network.forward_features(embedder.contract.normalise(window[None]))
            wanted = network.forward_head(tokens, True)[0] if kind == "classifier" else tokens[0, 1:].mean(0)
        np.testing.assert_allclose(found.vectors[number], wanted, atol=2e-5)


@pytest.mark.parametrize("kind", ["autoencoder", "encoder"])
@pytest.mark.parametrize("window", [4, 8])
def test_smaller_windows_have_the_tokens_farthest_from_an_images_ends(tmp_path: Path, kind: str, window: int):
    folder = getattr(small_models, kind)(tmp_path / "m")
    path = write_scene(tmp_path / "s.tif", scene_values(), small_models.BANDS)
    embedder, found = embedded(folder, path, window=window, batch_size=3)
    assert found.shape == (window, window) and len(set(zip(found.rows, found.columns, strict=True))) == len(found.rows)
    seen = np.zeros((40, 52), int)
    for row, column in zip(found.rows, found.columns, strict=True):
        seen[row : row + window, column : column + window] += 1
    assert seen.min() == 1 and seen[: 40 - window, : 52 - window].max() == 1  # those at the end may overlap
    network: Any = weights.load(folder).module
    where = {at: n for n, at in enumerate(zip(found.rows.tolist(), found.columns.tolist(), strict=True))}
    for place, start in [(8, 0), (12, 8) if window == 4 else (16, 16)]:  # images overlap where that leaves a margin
        image = torch.from_numpy(scene_values()[:, start : start + 16, start : start + 16].astype(np.float32))
        with torch.inference_mode():
            tokens = network.forward_features(embedder.contract.normalise(image[None]))[0, 1:]
        inside = slice((place - start) // 4, (place - start + window) // 4)
        wanted = tokens.unflatten(0, (2, 4, 4)).mean(0)[inside, inside].mean((0, 1))  # of both groups of bands
        np.testing.assert_allclose(found.vectors[where[place, place]], wanted, atol=2e-5)


def test_windows_that_a_network_cannot_give_are_refused(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", scene_values(12, 52), small_models.BANDS)
    with pytest.raises(InputError, match="patches of 4 pixels in images of 16; give one of 4, 8, 16"):
        embedded(small_models.autoencoder(tmp_path / "a"), path, window=6)
    with pytest.raises(InputError, match="one vector for an image of 16 pixels; leave the window out"):
        embedded(small_models.classifier(tmp_path / "c"), path, window=4)
    with pytest.raises(InputError, match="less than the 16 x 16 that the network sees at once"):
        embedded(tmp_path / "a", path, window=4)


def test_footprints_lie_where_the_windows_lie(tmp_path: Path):
    from rasterio.warp import transform

    path = write_scene(tmp_path / "s.tif", scene_values(), small_models.BANDS)
    _, found = embedded(small_models.classifier(tmp_path / "m"), path)
    outline = found.footprints[5]  # row 16, column 16: from 160 m to 320 m, right and down
    x, y = transform("OGC:CRS84", "EPSG:32633", outline[:, 0], outline[:, 1])[:2]
    np.testing.assert_allclose(x, [500_160, 500_320, 500_320, 500_160, 500_160], atol=1e-3)
    np.testing.assert_allclose(y, [5_099_680, 5_099_680, 5_099_840, 5_099_840, 5_099_680], atol=1e-3)


def test_windows_without_enough_valid_pixels_are_left_out(tmp_path: Path):
    values = scene_values()
    values[:, :16, :20] = 0
    path = write_scene(tmp_path / "s.tif", values, small_models.BANDS, nodata=0)
    _, found = embedded(small_models.classifier(tmp_path / "m"), path)
    assert (0, 0) not in set(zip(found.rows, found.columns, strict=True)) and len(found.vectors) == 11
    assert found.valid[0] == pytest.approx(0.75)  # four columns of the second window are gone
    _, found = embedded(small_models.classifier(tmp_path / "m"), path, min_valid=0.9)
    assert len(found.vectors) == 10


def test_the_table_is_geoparquet_that_geopandas_reads(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", scene_values(), small_models.BANDS)
    embedder, found = embedded(small_models.classifier(tmp_path / "m"), path)
    parts = [("a.tif", "0" * 64, found), ("b.tif", "1" * 64, found)]
    write_embeddings(tmp_path / "e.parquet", parts, embedder.sha256)
    table = geopandas.read_parquet(tmp_path / "e.parquet")
    assert table.crs is not None and table.crs.to_string() == "OGC:CRS84" and len(table) == 24
    assert list(table.scene) == ["a.tif"] * 12 + ["b.tif"] * 12 and set(table.model_sha256) == {embedder.sha256}
    np.testing.assert_array_equal(np.stack(table.embedding), np.concatenate([found.vectors] * 2))
    assert table.geometry.is_valid.all() and table.geometry.exterior.is_ccw.all()
    area = table.to_crs("EPSG:32633").area
    np.testing.assert_allclose(area, 160 * 160, rtol=1e-6)

    import pyarrow.parquet

    field = pyarrow.parquet.read_schema(tmp_path / "e.parquet").field("embedding")
    assert str(field.type) == "fixed_size_list<element: float>[16]" and field.type.list_size == 16
    write_embeddings(tmp_path / "e.npz", parts, embedder.sha256)
    arrays = np.load(tmp_path / "e.npz")  # without pickles
    np.testing.assert_array_equal(arrays["embedding"][:12], found.vectors)
    assert arrays["geometry"].shape == (24, 5, 2) and list(arrays["scene"]) == list(table.scene)


def test_a_scene_smaller_than_the_network_s_images_is_enlarged(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", scene_values(8, 8), small_models.BANDS)
    embedder, found = embedded(small_models.classifier(tmp_path / "m"), path)
    assert found.vectors.shape == (1, 16) and found.shape == (8, 8)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(scene_values(8, 8)[None].astype(np.float32)), (16, 16), mode="bicubic"
    )
    wanted = embedder.vectors(large.numpy(), np.ones((1, 16, 16), bool))[:, 0, 0]
    np.testing.assert_allclose(found.vectors, wanted, atol=1e-5)


def test_what_cannot_be_embedded_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"e\.csv: ends in \.csv, expected \.parquet or \.npz"):
        write_embeddings(tmp_path / "e.csv", [], "")
    with pytest.raises(InputError, match="has no features"):
        Embedder(small_models.mapper(tmp_path / "u"))
    path = write_scene(tmp_path / "s.tif", scene_values(), small_models.BANDS, crs=None)
    with pytest.raises(InputError, match="has no CRS, so its footprint is unknown"):
        embedded(small_models.classifier(tmp_path / "m"), path)
