"""Ensembles: the mean of the members' probabilities, in every form that a network has."""

from pathlib import Path
from typing import Any

import pytest
import torch

from shared_backbones import architectures, weights
from shared_backbones.inference import optimize_for_inference
from shared_backbones.networks.ensemble import Ensemble

UNET = {"architecture": "skip_unet", "arguments": {"num_classes": 3, "in_chans": 1, "widths": [4, 8]}}
RESNET = {"architecture": "timm_classifier", "arguments": {"name": "resnet18", "num_classes": 3, "in_chans": 2}}


def varied(members: list[Any], **options: Any) -> Ensemble:
    """An ensemble whose weights and statistics are drawn."""
    torch.manual_seed(0)
    network = Ensemble(members, **options).eval()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.data = torch.rand_like(buffer) + 0.5
    return network


def test_probabilities_are_the_mean_of_the_members():
    network = varied([RESNET, {**RESNET, "temperature": 2.5}])
    x = torch.randn(2, 2, 32, 32)
    with torch.inference_mode():
        first, second = (member(x) for member in network.members)
        expected = (first.softmax(1) + (second / 2.5).softmax(1)) / 2
        torch.testing.assert_close(network(x).softmax(1), expected)
        torch.testing.assert_close(optimize_for_inference(network)(x), network(x), rtol=1e-3, atol=1e-4)
        several = varied([RESNET, RESNET], multi_label=True)
        expected = sum(member(x).sigmoid() for member in several.members) / 2
        torch.testing.assert_close(several(x).sigmoid(), expected)
    assert network.feature_info[1]["module"] == "members.0.network.layer1"


def test_volumes_come_in_rows_where_the_members_give_rows():
    network = varied([UNET, UNET])
    x = torch.randn(1, 1, 48, 8, 8)
    with torch.inference_mode():
        whole = network(x)
        pieces = list(network.in_rows(x))
    assert len(pieces) > 1
    for first, piece in pieces:
        torch.testing.assert_close(piece, whole[:, :, first : first + piece.shape[2]], rtol=1e-4, atol=1e-4)


def test_an_ensemble_is_saved_and_read_like_any_network(tmp_path: Path):
    network = varied([RESNET, RESNET])
    weights.save(tmp_path, network, {})
    again = weights.load(tmp_path).module
    x = torch.randn(1, 2, 32, 32)
    assert torch.equal(again(x), network(x))
    checked = architectures.check("ensemble", network.arguments, role="classifier", shape=(2, 32, 32), classes=3)
    assert isinstance(checked, Ensemble)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "members is no list of networks"),
        (["resnet"], "members is no list of networks"),
        ([{"architecture": "ensemble", "arguments": {"members": [RESNET]}}], "expected a network's"),
        ([{"architecture": "timm_classifier"}], "expected a network's"),
        ([{**RESNET, "temperature": 0}], "expected more than 0"),
    ],
)
def test_what_is_no_ensemble_is_refused(members: list[Any], message: str):
    with pytest.raises(ValueError, match=message):
        Ensemble(members)
