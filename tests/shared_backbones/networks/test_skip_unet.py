"""The U-Net with skips at full resolution, in two and three dimensions."""

from typing import Any

import pytest
import torch
from torch import nn

from shared_backbones import optimize_for_inference
from shared_backbones.networks.skip_unet import SkipUnet

SMALL: dict[str, Any] = {"num_classes": 3, "in_chans": 2, "widths": (4, 6, 8)}


def lively(**arguments: Any) -> SkipUnet:
    torch.manual_seed(0)
    network = SkipUnet(**{**SMALL, **arguments})
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith("running_mean"):
            nn.init.normal_(tensor)
    return network.eval()


@pytest.mark.parametrize(("dimensions", "shape"), [(2, (8, 12)), (2, (9, 3)), (3, (8, 4, 12)), (3, (5, 9, 1))])
def test_any_size_gives_logits_of_that_size(dimensions, shape):
    network = lively(dimensions=dimensions)
    assert network(torch.rand(2, 2, *shape)).shape == (2, 3, *shape)
    assert SkipUnet(**network.arguments).load_state_dict(network.state_dict())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_folded_it_computes_the_same(dimensions):
    network = lively(dimensions=dimensions)
    folded = optimize_for_inference(network)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in folded.modules())
    x = torch.rand(1, 2, *[12] * dimensions)
    torch.testing.assert_close(folded(x), network(x), atol=1e-5, rtol=1e-5)


def test_detail_of_single_voxels_reaches_the_logits_by_the_first_skip():
    network = lively()
    x = torch.zeros(1, 2, 16, 16, 16)
    dotted = x.clone()
    dotted[..., ::2, ::2, ::2] = 1
    for name, parameter in network.named_parameters():
        if name.endswith("narrow.weight"):
            nn.init.zeros_(parameter)  # nothing comes from below
    change = (network(dotted) - network(x))[..., 4:12, 4:12, 4:12]
    assert change[..., 0::2, 0::2, 0::2].sub(change[..., 1::2, 1::2, 1::2]).abs().amax() > 1e-3


def test_every_level_adds_its_logits():
    network = lively()
    x = torch.rand(1, 2, 8, 8, 8)
    whole = network(x)
    for head in network.heads:
        weights = [parameter.detach().clone() for parameter in head.parameters()]
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
        assert (network(x) - whole).abs().amax() > 1e-3
        for parameter, value in zip(head.parameters(), weights, strict=True):
            parameter.data.copy_(value)
    assert torch.equal(network(x), whole)


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="dimensions is 4"):
        SkipUnet(2, dimensions=4)
    with pytest.raises(ValueError, match="widths"):
        SkipUnet(2, widths=())


@pytest.mark.parametrize("shape", [(50, 9, 13), (96, 8, 8), (33, 12, 5), (7, 8, 9)])
@pytest.mark.parametrize("rows", [4, 16])
def test_row_by_row_it_gives_the_same(shape: tuple[int, int, int], rows: int):
    network = lively()
    x = torch.randn(1, 2, *shape)
    whole = network(x).detach()  # with gradients, convolutions are not cut
    with torch.inference_mode():
        torch.testing.assert_close(network(x), whole, atol=1e-5, rtol=1e-5)
        pieces = list(network.in_rows(x, rows))
    assert [start for start, _ in pieces] == list(range(0, shape[0], rows))
    torch.testing.assert_close(torch.cat([part for _, part in pieces], 2), whole, atol=1e-5, rtol=1e-5)
