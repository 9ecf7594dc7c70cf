"""What tests of segmentation share."""

import pytest
from torch import nn

from medvision.segmentation import Segmenter
from shared_backbones import weights


@pytest.fixture
def make_segmenter(monkeypatch, tmp_path):
    """Builds a Segmenter around a network; `card` holds changes of the input contract."""

    from tests.medvision.test_segmentation import make_card

    def make(network: nn.Module, *, card=None, **arguments) -> Segmenter:
        card = card if card and "classes" in card else make_card(**(card or {}))
        trained = weights.TrainedModel(network.eval(), card, "0" * 64, tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(weights, "load", lambda folder: trained)
            return Segmenter(tmp_path, **arguments)

    return make
