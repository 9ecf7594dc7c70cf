"""Cards that ask for what a trained model must not: names, addresses, files and absurd sizes."""

import functools
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared_backbones import architectures, weights
from shared_backbones.arguments import NOT_IN_CARDS, listed_arguments
from shared_backbones.errors import InputError
from shared_backbones.networks.timm_classifier import OPTIONS
from tests.hostile.confined import confined
from tests.hostile.sound_files import card

NEEDED: dict[str, dict[str, Any]] = {
    "timm_classifier": {"name": "resnet10t"},
    "monai": {"network": "UNet", "num_classes": 2},
    "smp_unet": {"num_classes": 2},
    "skip_unet": {"num_classes": 2},
    "satmae_pp_fpn": {"num_classes": 2},
    "satmae_pp_vitcomer": {"num_classes": 2},
    "ensemble": {"members": [{"architecture": "smp_unet", "arguments": {"num_classes": 2}}]},
}
FETCHING: list[dict[str, Any]] = [
    {"pretrained": True}, {"encoder_weights": "imagenet"}, {"checkpoint_path": "BAIT"}, {"cache_dir": "BAIT"},
    {"pretrained_cfg": {"file": "BAIT"}}, {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/x"}},
    {"weights": "BAIT"}, {"model_path": "BAIT"}, {"scriptable": True}, {"features_only": True}, {"device": "cuda"},
]  # fmt: skip
NAMES = ["hf-hub:owner/model", "local-dir:BAIT", "http://127.0.0.1:9/x", "BAIT", "../model", "tu-hf-hub:owner/model"]
SIZES = [10**9, -(10**9), 2**70, True, None, "3", 1e308, float("nan"), [10**9], [3] * 5000, {"a": 1}]


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """What constructors import: before a case's limits, which are on what a card asks for."""
    for name in ("timm", "segmentation_models_pytorch", "monai.networks.nets"):
        importlib.import_module(name)
    for name in architectures.installed():
        architectures.find(name)


def hostile(folder: Path, architecture: str, arguments: dict[str, Any], bait: Path) -> Path:
    """A model folder whose card has other arguments; `BAIT` in them becomes the path of a file."""
    text = json.dumps({"architecture": architecture, "arguments": arguments}).replace("BAIT", str(bait))
    path = card(folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(text)))
    return path.parent


def changes(name: str) -> Iterator[dict[str, Any]]:
    """Arguments that no card may have: of fetching, and names and sizes for each argument of a constructor."""
    yield from FETCHING
    for argument in [*listed_arguments(architectures.find(name)), *(OPTIONS if name == "timm_classifier" else ())]:
        if argument not in ("members", *NOT_IN_CARDS):
            yield from ({argument: value} for value in NAMES)
            yield from ({argument: value} for value in (10**9, 2**70, [[[[[[1]]]]]]))


@pytest.mark.parametrize("name", sorted(architectures.installed()))
def test_a_card_cannot_reach_anything(name: str, tmp_path: Path):
    bait = tmp_path / "bait"
    bait.write_bytes(b"x")
    folder = hostile(tmp_path, name, {}, bait)
    text = json.loads((folder / "model.json").read_text())

    def load_all() -> int:
        accepted = []
        for change in changes(name):
            arguments = json.loads(json.dumps(NEEDED.get(name, {}) | change).replace("BAIT", str(bait)))
            (folder / "model.json").write_text(json.dumps(text | {"arguments": arguments}))
            try:
                weights.load(folder)
            except InputError as error:
                line = str(error)
                if "\n" in line or len(line) > 1500 or "arguments" not in line:
                    accepted.append(line)
            else:
                accepted.append(str(change))
        print("\n".join(accepted))
        return len(accepted)

    ended = confined(load_all, tmp_path, bait=bait, seconds=120, program=True)
    assert ended.code == 0, ended.out + ended.err


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("argument", ["num_classes", "in_chans", "depths", "window_size"])
def test_absurd_sizes_are_refused_before_they_are_allocated(argument: str, size: object, tmp_path: Path):
    if (argument, size) == ("window_size", None):
        return  # the network's own default
    folder = hostile(tmp_path, "hbformer", {"num_classes": 2, argument: size}, tmp_path)
    ended = confined(functools.partial(weights.load, folder), tmp_path, memory=2**30)
    assert ended.code == 2 and ended.err.count("\n") == 1 and ended.peak < 2**29, ended.err


LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "depth": ("cct", {"depth": 16_000}),
    "table": ("satmae_pp_vit_rgb", {"img_size": 8192, "patch_size": 1, "embed_dim": 16_384}),
    "image": ("cct", {"img_size": 8192, "positions": "sine", "embed_dim": 16_380}),
    "window": ("monai", {"network": "SwinUNETR", "num_classes": 2, "window_size": 64}),
    "classes": ("smp_unet", {"num_classes": 65_536}),
    "members": ("ensemble", {"members": [NEEDED["ensemble"]["members"][0]] * 1000}),
    "nested": ("ensemble", {"members": [{"architecture": "ensemble", "arguments": {}}]}),
    "fetching member": (
        "ensemble",
        {"members": [{"architecture": "smp_unet", "arguments": {"num_classes": 2, "encoder_weights": "imagenet"}}]},
    ),
}


@pytest.mark.parametrize("case", LARGE)
def test_arguments_in_range_make_no_network_beyond_the_weights(case: str, tmp_path: Path):
    folder = hostile(tmp_path, *LARGE[case], tmp_path)
    ended = confined(functools.partial(weights.load, folder), tmp_path)
    assert ended.code == 2 and ended.err.count("\n") == 1 and ended.peak < 2**30, ended.err


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("special", ["pipe", "folder", "device", "socket"])
def test_special_files_in_a_model_folder_are_refused(
    name: str, special: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import os
    import socket

    path = card(tmp_path).with_name(name)
    path.unlink()

    def bind() -> None:
        with socket.socket(socket.AF_UNIX) as bound:  # which leaves its file
            bound.bind(path.name)

    make: dict[str, Callable[[], Any]] = {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "socket": bind,
    }
    monkeypatch.chdir(path.parent)  # the system takes short paths of sockets alone
    make[special]()
    ended = confined(functools.partial(weights.load, path.parent), tmp_path)
    assert ended.code == 2 and ended.err.count("\n") == 1, ended.err


def test_other_threads_build_what_they_like_meanwhile():
    from torch import nn

    layers: list[nn.Module] = []
    with weights.at_most({"a": (1,)}):
        other = threading.Thread(target=lambda: layers.append(nn.Linear(8192, 4096)))
        other.start()
        other.join()
        with pytest.raises(ValueError, match=r"larger than model\.safetensors"):
            nn.Linear(8192, 4096)
    assert len(layers) == 1
