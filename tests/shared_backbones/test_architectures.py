import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medvision.models.hbformer import HBFormer
from shared_backbones import architectures, official
from shared_backbones.errors import InputError

TINY = {"feature_size": 4, "depths": [1, 1, 1, 1], "head_dim": 4, "window_size": 4, "img_size": 32}
UNET = {"encoder": "resnet18", "decoder_channels": [16, 8, 8, 8, 8]}


class TestNames:
    @pytest.mark.parametrize(
        ("architecture", "old", "arguments"),
        [
            ("hbformer", "in_channels", {"num_classes": 2, **TINY}),
            ("smp_unet", "in_channels", {"num_classes": 2, **UNET}),
            ("paratranscnn", "n_channels", {"num_classes": 2, "dim": 8, "heads": 2, "resnet_depth": 18}),
        ],
    )
    def test_old_names_of_the_channels_are_read(self, architecture: str, old: str, arguments: dict[str, Any]) -> None:
        with torch.device("meta"):
            network: Any = architectures.build(architecture, {**arguments, old: 5})
            assert network.arguments["in_chans"] == 5
            with pytest.raises(InputError, match=f"in_chans is given twice, as {old} is its old name"):
                architectures.build(architecture, {**arguments, "in_chans": 5, old: 5})

    def test_official_weights_are_loaded_under_the_released_names(self) -> None:
        with pytest.raises(InputError, match=r"in_chans is 0, expected 1 or more"):
            official.load_official("paratranscnn", {}, n_channels=0)

    def test_a_name_is_that_of_the_class(self) -> None:
        with torch.device("meta"):
            assert architectures.name_of(HBFormer(**TINY)) == "hbformer"

            class Other(HBFormer):
                pass

            with pytest.raises(InputError, match=r"Other is no registered architecture; known: .*hbformer"):
                architectures.name_of(Other(**TINY))


class TestCheck:
    @pytest.mark.parametrize(
        ("name", "arguments", "role", "side", "message"),
        [
            (
                "hbformer",
                {},
                "classifier",
                32,
                "'hbformer' has the role segmenter, expected classifier; choose one",
            ),
            ("medvitv2", {}, "autoencoder", 32, "role classifier, expected autoencoder; choose one of satmae_pp_mae"),
            ("satmae_pp_mae_rgb", {}, "segmenter", 32, "role autoencoder, expected segmenter; choose one of hbformer"),
            ("hbformer", {"in_chans": 1}, "segmenter", 32, "takes 1 channels, the data have 3; give in_chans=3"),
            ("hbformer", {"num_classes": 5}, "segmenter", 32, r"\(2, 5, 32, 32\) .* expected \(2, 4, 32, 32\) of a"),
            ("medvitv2", {"num_classes": 4}, "classifier", 28, r"does not run on images of 3 x 28 x 28 .*needs 97"),
            ("astroformer", {"num_classes": 4}, "classifier", 64, r"does not run on .*expected 224 x 224"),
            ("unet", {}, "segmenter", 32, "architecture 'unet' is unknown; known: "),
            ("hbformer", {"depth": 1}, "segmenter", 32, r"do not suit architecture 'hbformer' .*'depth'"),
        ],
    )
    def test_says_in_one_line_what_does_not_fit(
        self,
        name: str,
        arguments: dict[str, Any],
        role: architectures.Role,
        side: int,
        message: str,
    ) -> None:
        given = {**TINY, "num_classes": 4, **arguments} if name == "hbformer" else arguments
        with pytest.raises(InputError, match=message) as caught:
            architectures.check(name, given, role=role, shape=(3, side, side), classes=4)
        assert "\n" not in str(caught.value)

    def test_gives_the_network_without_its_memory(self) -> None:
        network = architectures.check(
            "hbformer", {**TINY, "num_classes": 4}, role="segmenter", shape=(3, 40, 50), classes=4
        )
        assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
        assert not network.training


NETWORK = """
from torch import nn
from shared_backbones.networks.classifier import Classifier

class MyNet(Classifier):
    def __init__(self, num_classes=2, in_chans=3):
        super().__init__()
        self.arguments = {"num_classes": num_classes, "in_chans": in_chans}
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, 8, 8
        self.stem = nn.Conv2d(in_chans, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)

    def forward_features(self, x):
        return self.stem(x)

    def forward_head(self, x, pre_logits=False):
        return x.mean((2, 3)) if pre_logits else self.head(x.mean((2, 3)))
"""
PROGRAM = """
import sys, torch
from shared_backbones import architectures, weights
assert architectures.check("mynet", {"num_classes": 3}, role="classifier", shape=(3, 8, 8), classes=3).num_classes == 3
weights.save(sys.argv[1], architectures.build("mynet", {"num_classes": 3}), {"name": "mine"})
assert type(weights.load(sys.argv[1]).module).__name__ == "MyNet"
with torch.device("meta"):
    architectures.build("timm_classifier", {"name": "resnet10t", "num_classes": 3})
    import timm
    network = timm.create_model("mynet", num_classes=5, in_chans=1)
print(type(network).__module__, network.num_classes, network.arguments["in_chans"])
"""


@pytest.mark.parametrize("module", ["mynet", "mypackage.nets.mynet"])
def test_a_plug_in_works_wherever_its_module_lies(module: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    path = site.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(NETWORK)
    for folder in path.relative_to(site).parents[:-1]:
        (site / folder / "__init__.py").touch()
    info = site / "mynet-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mynet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[domain_vision.architectures]\nmynet = {module}:MyNet\n")
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True)
    assert done.stdout.split() == [module, "5", "1"], done.stderr


def test_a_plug_in_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("broken", "no_such_module:Network", architectures.GROUP)
    monkeypatch.setattr(architectures, "installed", lambda: {"broken": point})
    with pytest.raises(InputError, match=r"'broken': no_such_module:Network cannot be imported \(No module named"):
        architectures.find("broken")
