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
from geovision.models.torchgeo_encoders import encoders, find_encoder
from geovision.models.torchgeo_model import TorchGeo, load_encoder
from geovision.scenes import open_scene
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.geovision.rasters import write_scene

RESNET, VIT = "ResNet18_Weights.SENTINEL2_ALL_MOCO", "ViTSmall16_Weights.SENTINEL2_ALL_MAE"
SWIN, SCALEMAE = "Swin_V2_T_Weights.SENTINEL2_SI_RGB_SATLAS", "ScaleMAELarge16_Weights.FMOW_RGB"
DOFA, CROMA = "DOFABase16_Weights.DOFA_MAE", "CROMABase_Weights.CROMA_VIT"
OPEN = ["sensor=sentinel2_l1c", 'bands=["B4", "B8", "B11"]']  # what is said of weights for any bands
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
    assert run(app, ["import", *given, "--accept-license"]) == 0
    return folder / "encoder", own


def test_every_weight_of_torchgeo_is_taken_or_has_a_reason():
    known = {encoder.name: encoder for encoder in encoders()}
    named = {str(entry) for network in torchgeo.models.list_models() for entry in members(network)}
    assert {*known} == named
    for encoder in known.values():
        assert bool(encoder.reason) != bool(encoder.input), encoder.name
    taken = {name for name, encoder in known.items() if not encoder.reason}
    assert {RESNET, VIT, "ResNet50_Weights.SENTINEL2_ALL_SOFTCON", "ResNet50_Weights.SENTINEL2_ALL_SECO_ECO"} <= taken
    assert {SWIN, SCALEMAE, DOFA, CROMA} <= taken
    assert "no network that is built here" in known["Panopticon_Weights.VIT_BASE14"].reason
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
        assert run(app, ["import", *given, "--accept-license"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not (tmp_path / "m").exists()
        return error

    assert "names no such weights; did you mean ResNet18_Weights.SENTINEL2_ALL_MOCO" in refused(f"torchgeo:{RESNET}X")
    assert "VIT_BASE14: panopticon_vitb14 is no network" in refused("torchgeo:Panopticon_Weights.VIT_BASE14")
    assert "no weights of this network of torchgeo: missing" in refused(f"torchgeo:{VIT}")
    assert "names no bands of these weights; give sensor=NAME bands" in refused(f"torchgeo:{DOFA}")
    assert "give mean=[...] and std=[...]" in refused(f"torchgeo:{DOFA}", "a.pth", *OPEN, "mean=[1]")
    assert "no statistics are published for B4" in refused(
        f"torchgeo:{DOFA}", "a.pth", "sensor=sentinel2_l2a", 'bands=["B4"]'
    )
    assert "give sensor, bands, mean, std alone" in refused(f"torchgeo:{DOFA}", "a.pth", "num_classes=3")
    assert "other objects than tensors" in refused(f"torchgeo:{RESNET}", "p.pth")
    assert "no such file" in refused(f"torchgeo:{RESNET}", "none.pth").lower()
    assert "has its arguments; leave them out" in refused(f"torchgeo:{RESNET}", "a.pth", "num_classes=3")


def test_the_weights_are_listed_with_reasons(capsys):
    assert run(app, ["models", "list", "--torchgeo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith(VIT) and "sentinel2_l1c, 13 bands, from SSL4EO-S12; licence unknown" in line for line in lines
    )
    assert any(line.startswith("Panopticon_Weights.VIT_BASE14") and "not taken: " in line for line in lines)
    assert any(line.startswith(CROMA) and "bands that you name, from SSL4EO" in line for line in lines)
    assert run(app, ["models", "list", "--torchgeo", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} >= {VIT, RESNET}
    with pytest.raises(InputError, match="names no such weights"):
        find_encoder("Nothing")
    assert timm.is_model(find_encoder(VIT).network)


class TestTorchGeo:
    """torchgeo's networks of every family, from a file, against torchgeo's own forward."""

    @pytest.mark.parametrize(
        ("name", "options", "given", "answer"),
        [
            (RESNET, {"in_chans": 13, "num_classes": 0}, {}, lambda own, x: own(x)),
            (VIT, {"in_chans": 13, "num_classes": 0}, {}, lambda own, x: own(x)),
            (SWIN, {}, {}, lambda own, x: own.flatten(own.avgpool(own.permute(own.norm(own.features(x)))))),
            (SCALEMAE, {"num_classes": 0, "res": 2.0}, {"res": 2.0}, lambda own, x: own(x)),
            (DOFA, {}, {"wavelengths": [664.6, 832.8, 1613.7]}, lambda own, x: own.forward_features(x, WAVES)),
            (CROMA, {}, {"in_chans": 12}, lambda own, x: own(x[:, :2], x)["optical_GAP"]),
        ],
        ids=lambda value: value.partition("_")[0] if isinstance(value, str) else "",
    )
    def test_vectors_are_those_of_torchgeos_network(
        self, name: str, options: dict, given: dict, answer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        if name == SCALEMAE:  # two narrow blocks do
            monkeypatch.setattr(torchgeo.models, "scalemae_large_patch16", scalemae)
        if name == DOFA:
            monkeypatch.setattr(torchgeo.models, "dofa_base_patch16_224", dofa)
        if name == CROMA:
            options = {"modalities": ["sar", "optical"], "image_size": 120}
        torch.manual_seed(3)
        builder = getattr(torchgeo.models, find_encoder(name).network)
        own = builder(**options).eval()
        torch.save(saved(own, name), tmp_path / "a.pth")
        network = TorchGeo(name, **given).eval()
        network.backbone.fill(tmp_path / "a.pth")
        size = network.arguments["img_size"]
        images = torch.randn(2, network.in_chans, size, size)
        with torch.inference_mode():
            torch.testing.assert_close(network(images), answer(own, images), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(("name", "given"), [(RESNET, {}), (SWIN, {}), (CROMA, {"in_chans": 12, "img_size": 64})])
    def test_each_pixel_gets_logits_that_depend_on_what_is_there(self, name: str, given: dict):
        torch.manual_seed(3)
        network = TorchGeo(name, 4, dense=True, width=16, **{"img_size": 64, **given}).eval()
        images = torch.randn(2, network.in_chans, 64, 64)
        with torch.inference_mode():
            logits = network(images)
            images[1, :, 40:, 40:] += 3
            changed = network(images)
        assert logits.shape == (2, 4, 64, 64)
        assert torch.equal(changed[0], logits[0]) and not torch.equal(changed[1], logits[1])

    def test_positions_are_resampled_to_smaller_images(self, tmp_path: Path):
        checkpoint(tmp_path / "a.pth", VIT)
        network = TorchGeo(VIT, img_size=64)
        network.backbone.fill(tmp_path / "a.pth")
        assert network.backbone.network.pos_embed.shape == (1, 17, 384)

    @pytest.mark.parametrize(
        ("name", "given", "message"),
        [
            (DOFA, {}, "wavelengths are given"),
            (CROMA, {"in_chans": 3}, "takes 12 bands"),
            (DOFA, {"in_chans": 3, "wavelengths": [500.0]}, "1 wavelengths are given"),
            (RESNET, {"dense": True}, "without num_classes"),
        ],
    )
    def test_arguments_that_do_not_suit_are_refused(self, name: str, given: dict, message: str):
        with pytest.raises(ValueError, match=message):
            TorchGeo(name, **given)


def test_weights_without_a_licence_are_asked_about(tmp_path: Path, capsys):
    checkpoint(tmp_path / "a.pth", RESNET)
    given = ["--architecture", f"torchgeo:{RESNET}", "--checkpoint", str(tmp_path / "a.pth")]
    assert run(app, ["import", *given, "-o", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "names no licence of these weights; look at https://" in error and "--accept-license" in error
    assert not (tmp_path / "none").exists()
    assert run(app, ["import", *given, "-o", str(tmp_path / "named"), "--license", "CC-BY-4.0"]) == 0
    assert weights.read_card(tmp_path / "named")["license"] == "CC-BY-4.0"


def test_an_encoder_for_any_bands_is_imported_for_some_and_embeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torchgeo.models, "dofa_base_patch16_224", dofa)
    torch.manual_seed(3)
    own = dofa().eval()
    torch.save(own.state_dict(), tmp_path / "a.pth")
    given = ["--architecture", f"torchgeo:{DOFA}", "--checkpoint", str(tmp_path / "a.pth"), "--accept-license"]
    assert run(app, ["import", *given, "-o", str(tmp_path / "encoder"), *OPEN]) == 0
    card = weights.read_card(tmp_path / "encoder")
    assert card["architecture"] == "torchgeo" and card["input"]["bands"] == ["B4", "B8", "B11"]
    assert card["arguments"]["wavelengths"] == [664.6, 832.8, 1613.7]
    values = np.random.default_rng(0).integers(1, 4000, (3, 224, 224)).astype(np.uint16)
    scene = write_scene(tmp_path / "s.tif", values, ["B4", "B8", "B11"])
    embedder = Embedder(tmp_path / "encoder")
    with open_scene(scene, sensor="sentinel2_l1c", wanted=embedder.contract.bands) as opened:
        seen, _ = opened.read(0, 0, 224, 224, embedder.contract.scale)
        found = embedder.embed(opened).vectors
    with torch.inference_mode():
        expected = own.forward_features(embedder.contract.normalise(torch.from_numpy(seen)[None]), WAVES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


WAVES = [0.6646, 0.8328, 1.6137]  # in micrometres


def saved(own: Any, name: str) -> dict:
    """What a file of torchgeo's holds: CROMA's has a state dict for each part."""
    if name != CROMA:
        return own.state_dict()
    parts = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")
    return {part: getattr(own, part).state_dict() for part in parts}


def scalemae(**given: Any) -> torchgeo.models.ScaleMAE:
    return torchgeo.models.ScaleMAE(patch_size=16, embed_dim=64, depth=2, num_heads=4, qkv_bias=True, **given)


def dofa(**given: Any) -> torchgeo.models.DOFA:
    return torchgeo.models.DOFA(patch_size=16, embed_dim=64, depth=2, num_heads=4, **given)
