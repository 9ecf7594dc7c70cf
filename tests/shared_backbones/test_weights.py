import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvision.models.hbformer import HBFormer
from shared_backbones import architectures, weights
from shared_backbones.errors import InputError

ARGUMENTS: dict[str, Any] = {
    "num_classes": 3,
    "feature_size": 8,
    "head_dim": 8,
    "depths": [1, 1, 1, 1],
    "img_size": [32, 32],
}


@pytest.fixture
def model() -> HBFormer:
    torch.manual_seed(0)
    return HBFormer(**ARGUMENTS)


@pytest.fixture
def folder(tmp_path: Path, model: HBFormer) -> Path:
    weights.save(tmp_path / "model", model, {"name": "tiny", "classes": [{"id": 0, "name": "Großhirn"}]})
    return tmp_path / "model"


def rewrite(folder: Path, tensors: dict[str, Tensor], **card: Any) -> None:
    """Put other tensors into a model folder, with a card that vouches for them."""
    save_file(tensors, folder / "model.safetensors")
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    content = json.loads((folder / "model.json").read_text(encoding="utf-8")) | {"weights_sha256": sha256} | card
    (folder / "model.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_folder_holds_the_whole_model(folder: Path, model: HBFormer) -> None:
    loaded = weights.load(str(folder))
    assert isinstance(loaded.module, HBFormer)
    assert not loaded.module.training
    assert loaded.module.arguments == model.arguments
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.module.state_dict().items())
    assert loaded.card["classes"] == [{"id": 0, "name": "Großhirn"}]
    assert loaded.card["architecture"] == "hbformer"
    assert loaded.card["arguments"]["depths"] == [1, 1, 1, 1]
    assert loaded.folder == folder
    assert loaded.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_half_precision_on_disk_is_float32_in_memory(tmp_path: Path, model: HBFormer) -> None:
    weights.save(tmp_path, model, {}, dtype=torch.float16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16, torch.int64}
    loaded = weights.load(tmp_path).module
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert loaded.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[name], expected)


def test_saving_replaces_the_model_and_leaves_the_rest(folder: Path, model: Any) -> None:
    (folder / "NOTES.md").write_text("mine")
    nn.init.zeros_(model.head.classifier.weight)
    weights.save(folder, model, {"name": "second"})
    loaded = weights.load(folder)
    assert loaded.card["name"] == "second"
    assert loaded.module.state_dict()["head.classifier.weight"].abs().sum() == 0
    assert (folder / "NOTES.md").read_text() == "mine"


def test_a_save_that_fails_leaves_the_old_model(folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(InputError, match="No space left on device"):
            weights.save(folder, model, {"name": "second"})
    nn.init.constant_(model.head.classifier.weight, 1e6)
    with pytest.raises(InputError, match=r"head\.classifier\.weight .* not finite in torch\.float16"):
        weights.save(folder, model, {}, dtype=torch.float16)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_unregistered_class_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Linear is no registered architecture; known: .*hbformer"):
        weights.save(tmp_path / "model", nn.Linear(2, 2), {})
    assert not (tmp_path / "model").exists()


def test_altered_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: sha256 is \w{12}\.\.\., but model\.json expects"):
        weights.load(folder)


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "head.classifier.bias"
    rewrite(folder, {key: value for key, value in tensors.items() if key != name} | {"extra": torch.zeros(1)})
    with pytest.raises(InputError, match=r"missing 1 \(head\.classifier\.bias\); unexpected 1 \(extra\)"):
        weights.load(folder)
    rewrite(folder, tensors | {name: torch.zeros(4)})
    with pytest.raises(InputError, match=r"head\.classifier\.bias has shape \(4,\), expected \(3,\)"):
        weights.load(folder)
    rewrite(folder, tensors | {name: torch.tensor([0, torch.nan, 0])})
    with pytest.raises(InputError, match=r"head\.classifier\.bias holds values that are not finite"):
        weights.load(folder)


def test_unknown_architectures_and_arguments_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, tensors, architecture="unet")
    with pytest.raises(InputError, match=r"model\.json: architecture 'unet' is unknown; known: .*hbformer"):
        weights.load(folder)
    rewrite(folder, tensors, architecture="hbformer", arguments={"classes": 3})
    with pytest.raises(InputError, match=r"model\.json: arguments do not suit architecture 'hbformer' \(.*'classes'"):
        weights.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"model\.json: cannot be read \(No such file or directory\)"),
        (b"{", r"model\.json: not JSON"),
        (b"\xff\xfe", r"model\.json: not JSON"),
        (b"[]", r"schema_version is list, expected 1"),
        (b'{"schema_version": 2}', r"schema_version is 2, expected 1"),
        (b'{"schema_version": 1}', r"`architecture` is missing or no str"),
        (b'{"schema_version": 1, "architecture": "hbformer", "arguments": []}', r"`arguments` is missing or no dict"),
    ],
)
def test_damaged_cards_are_refused(folder: Path, content: bytes | None, message: str) -> None:
    (folder / "model.json").unlink()
    if content is not None:
        (folder / "model.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        weights.read_card(folder)
    with pytest.raises(InputError, match=message):
        weights.load(folder)


def test_missing_and_foreign_weight_files_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"not tensors")
    sha256 = hashlib.sha256(b"not tensors").hexdigest()
    card = weights.read_card(folder) | {"weights_sha256": sha256}
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="not a safetensors file"):
        weights.load(folder)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        weights.load(folder)


def test_a_card_is_read_without_torch(folder: Path) -> None:
    code = (
        "import sys; from shared_backbones import weights; "
        f"print(weights.read_card({str(folder)!r})['name'], {{'torch', 'numpy'}} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["tiny", "set()"]


def test_a_tensor_with_two_names_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Tied(nn.Module):
        arguments: ClassVar[dict[str, int]] = {}

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.BatchNorm1d(3)
            self.second = nn.Sequential(self.first)

    monkeypatch.setattr(architectures, "name_of", lambda module: "tied")
    monkeypatch.setattr(architectures, "build", lambda name, arguments, trained: Tied())
    network = Tied()
    nn.init.uniform_(network.first.weight)
    weights.save(tmp_path, network, {"name": "tied"})
    assert set(load_file(tmp_path / "model.safetensors")) == {f"first.{name}" for name in network.first.state_dict()}
    read = weights.load(tmp_path).module
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in network.state_dict().items())
