"""Heads that change, and levels by timm's rules."""

import pytest
import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from shared_backbones.networks.classifier import Classifier, chosen_levels, linear_classifier


class Means(Classifier):
    """Logits of the mean colour."""

    poolings = ("avg", "max")
    classifier = "top.linear"

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.arguments = {"num_classes": num_classes}
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, 3, 3
        self.top = nn.ModuleDict({"linear": linear_classifier(3, num_classes)})

    def forward_features(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x if pre_logits else self.top["linear"](x)


def test_a_head_changes_with_its_arguments():
    network, x = Means(), torch.rand(2, 3, 5, 5)
    assert network(x).shape == (2, 4) and network.get_classifier() is network.top["linear"]
    network.reset_classifier(7, "max")
    assert network(x).shape == (2, 7) and network.num_classes == network.arguments["num_classes"] == 7
    network.reset_classifier(0)
    assert torch.equal(network(x), x.mean((2, 3)))
    with pytest.raises(ValueError, match="num_classes is -1, expected 1 or more, or 0 for features"):
        network.reset_classifier(-1)
    with pytest.raises(ValueError, match="global_pool 'sum': expected 'avg' or 'max'"):
        network.reset_classifier(2, "sum")
    assert network.num_classes == network.arguments["num_classes"] == 0
    with pytest.raises(ValueError, match="num_classes is -3"):
        Means(-3)
    network.set_grad_checkpointing()
    assert network.grad_checkpointing and not Means().grad_checkpointing


@pytest.mark.parametrize("indices", [None, 1, 3, 5, [0], [2, 0], [-1], [1, -2], (4,)])
def test_levels_are_those_that_timm_takes(indices):
    expected, _ = feature_take_indices(5, indices)
    assert chosen_levels(indices, 5) == expected


@pytest.mark.parametrize("indices", [0, 6, -1, [], [5], [-6], [0, 7]])
def test_levels_that_there_are_not(indices):
    with pytest.raises(ValueError, match="expected levels 0 to 4, or how many of the last, 1 to 5"):
        chosen_levels(indices, 5)
