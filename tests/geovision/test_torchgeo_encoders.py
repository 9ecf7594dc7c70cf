"""Weights that torchgeo names: imported from a file, they see what torchgeo's own model sees."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchgeo.models

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.contract import InputContract
from geovision.embedding import Embedder
from geovision.models.torchgeo_encoders import encoders, find_encoder, load_encoder
from geovision.scenes import open_scene
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.geovision.rasters import write_scene

RESNET, VIT = "ResNet18_Weights.SENTINEL2_ALL_MOCO", "ViTSmall16_Weights.SENTINEL2_ALL_MAE"
ORDER = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"]


def checkpoint(path: Path, name: str, **extra: Any) -> Any:
    """Random weights in a file such as torchgeo's, and torchgeo's own model with them."""
    torch.manual_seed(3)
    own = torchgeo.models.get_model(find_encoder(name).network, in_chans=13, num_classes=0)
    torch.save({**own.state_dict(), **extra}, path)
    return own.eval()


def imported(folder: Path, name: str, **extra: Any) -> tuple[Path, Any]:
    own = checkpoint(folder / "a.pth", name, **extra)
    given = ["--architecture", f"torchgeo:{name}", "--checkpoint", str(folder / "a.pth"), "-o", str(folder / "encoder")]
    assert run(app, ["import", *given]) == 0
    return folder / "encoder", own


def test_every_weight_of_torchgeo_is_taken_or_has_a_reason():
    known = {encoder.name: encoder for encoder in encoders()}
    named = {str(entry) for network in torchgeo.models.list_models() for entry in members(network)}
    assert {*known} == named
    for encoder in known.values():
        assert bool(encoder.reason) != bool(encoder.input), encoder.name
    taken = {name for name, encoder in known.items() if not encoder.reason}
    assert {RESNET, VIT, "ResNet50_Weights.SENTINEL2_ALL_SOFTCON", "ResNet50_Weights.SENTINEL2_ALL_SECO_ECO"} <= taken
    assert "no network of timm" in known["CROMABase_Weights.CROMA_VIT"].reason
    assert "level 1C or 2A" in known["ResNet50_Weights.SENTINEL2_RGB_MOCO"].reason
    assert "numbers of its own" in known["ViTSmall16_Weights.LANDSAT_TM_TOA_MOCO"].reason
    assert "NDVI is no band" in known["ResNet50_Weights.SENTINEL2_ALL_NDVI_SECO_ECO"].reason


def members(network: str) -> Any:
    try:
        return torchgeo.models.get_model_weights(network)
    except KeyError:
        return ()


@pytest.mark.parametrize("name", [RESNET, VIT, "ResNet50_Weights.SENTINEL2_ALL_SOFTCON"])
def test_bands_and_numbers_are_normalised_as_torchgeo_does(name: str):
    encoder = find_encoder(name)
    contract = InputContract.from_card({"input": encoder.input}, name)
    assert [*contract.bands] == ORDER and contract.sensor.name == "sentinel2_l1c" and contract.size == 224
    assert encoder.license == "unknown"
    images = torch.rand(1, 13, 256, 256) * 5000
    expected = torchgeo.models.get_weight(name).transforms(images.clone())
    torch.testing.assert_close(contract.normalise(images)[..., 16:240, 16:240], expected, rtol=1e-5, atol=1e-5)


def test_a_transformer_gives_the_features_of_torchgeos_model(tmp_path: Path):
    own = checkpoint(tmp_path / "a.pth", VIT, **{"head.weight": torch.zeros(5, 384), "head.bias": torch.zeros(5)})
    images = torch.rand(1, 13, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(load_encoder(find_encoder(VIT), tmp_path / "a.pth")(images), own(images))


def test_an_imported_encoder_gives_the_features_of_torchgeos_model(tmp_path: Path):
    folder, own = imported(tmp_path, RESNET)
    card = weights.read_card(folder)
    assert card["architecture"] == "timm_classifier" and card["license"] == "unknown"
    assert card["training"]["source"] == f"torchgeo {RESNET}" and len(card["training"]["checkpoint_sha256"]) == 64
    scene = write_scene(
        tmp_path / "s.tif", np.random.default_rng(0).integers(1, 4000, (13, 224, 224)).astype(np.uint16), ORDER
    )
    embedder = Embedder(folder)
    with open_scene(scene, sensor="sentinel2_l1c", wanted=embedder.contract.bands) as opened:
        values, _ = opened.read(0, 0, 224, 224, embedder.contract.scale)
        found = embedder.embed(opened).vectors
    with torch.inference_mode():
        expected = own(torch.from_numpy(values)[None] / 10_000)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_what_cannot_be_imported_is_one_line(tmp_path: Path, capsys):
    checkpoint(tmp_path / "a.pth", RESNET)
    (tmp_path / "p.pth").write_bytes(pickle.dumps({"a": Path("b")}))

    def refused(name: str, file: str = "a.pth", *more: str) -> str:
        given = ["--architecture", name, "--checkpoint", str(tmp_path / file), "-o", str(tmp_path / "m"), *more]
        assert run(app, ["import", *given]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not (tmp_path / "m").exists()
        return error

    assert "names no such weights; did you mean ResNet18_Weights.SENTINEL2_ALL_MOCO" in refused(f"torchgeo:{RESNET}X")
    assert "CROMA_VIT: croma_base is no network of timm" in refused("torchgeo:CROMABase_Weights.CROMA_VIT")
    assert f"no weights of {VIT}: missing" in refused(f"torchgeo:{VIT}")
    assert "other objects than tensors" in refused(f"torchgeo:{RESNET}", "p.pth")
    assert "no such file" in refused(f"torchgeo:{RESNET}", "none.pth").lower()
    assert "has its arguments; leave them out" in refused(f"torchgeo:{RESNET}", "a.pth", "num_classes=3")


def test_the_weights_are_listed_with_reasons(capsys):
    assert run(app, ["models", "torchgeo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith(VIT) and "sentinel2_l1c, 13 bands, from SSL4EO-S12; licence unknown" in line for line in lines
    )
    assert any(line.startswith("CROMABase_Weights.CROMA_VIT") and "not taken: " in line for line in lines)
    assert run(app, ["models", "torchgeo", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} >= {VIT, RESNET}
    with pytest.raises(InputError, match="names no such weights"):
        find_encoder("Nothing")
    assert timm.is_model(find_encoder(VIT).network)
