"""OpenVINO in place of torch: the same answers, or torch's."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared_backbones import engines
from shared_backbones.engines import Accelerated, check_engine, same_labels, same_values
from shared_backbones.errors import InputError
from shared_backbones.networks.skip_unet import SkipUnet
from shared_backbones.user_cache import cache_folder, kept


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "domain-vision" / "engines"


def small_network(seed: int = 0) -> nn.Module:
    """A network of images of any size: `(B, 2, H, W)` to `(B, 3, H, W)`."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
    return network.eval().requires_grad_(False)


def accelerated(module: nn.Module, warnings: list[str] | None = None, **options: Any) -> Accelerated:
    options = {"precision": "float32", **options}
    return Accelerated(module, "a model", warnings=[] if warnings is None else warnings, **options)


class Doubled(nn.Module):
    """Means of an image, twice, as two outputs."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        means = images.mean((2, 3))
        return means, 2 * means


class LooksAtTheValues(nn.Module):
    """What a trace of zeros gets wrong."""

    def forward(self, images: Tensor) -> Tensor:
        return images if float(images.sum()) == 0 else images.flip(1)


class NotToBeTraced(nn.Module):
    """Gives what no engine can follow."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.eigvals(images[..., :4, :4]).real


@pytest.mark.parametrize("shape", [(5, 2, 24, 40), (1, 2, 64, 64), (3, 2, 65, 31)])
@pytest.mark.parametrize("multiple_of", [0, 8])
def test_it_gives_what_torch_gives(shape: tuple[int, ...], multiple_of: int):
    module, images = small_network(), torch.randn(shape)
    run = accelerated(module, multiple_of=multiple_of)
    for _ in range(2):
        torch.testing.assert_close(run(images)[0], module(images), rtol=0, atol=1e-5)
    assert run.name.startswith("openvino ") and run.described()["engine_agreement"] == 1.0


def test_a_network_of_volumes_and_one_of_two_outputs():
    network: Any = SkipUnet(num_classes=3, in_chans=1, dimensions=3, widths=(4, 8)).eval().requires_grad_(False)
    images = torch.randn(1, 1, 16, 24, 32)
    torch.testing.assert_close(
        accelerated(network, multiple_of=network.stride)(images)[0], network(images), rtol=0, atol=1e-4
    )
    means, doubled = accelerated(Doubled())(torch.ones(3, 2, 4, 4))
    assert means.shape == doubled.shape == (3, 2) and bool((doubled == 2).all())


def test_the_first_inputs_get_torchs_answers_and_what_was_measured_is_kept(
    monkeypatch: pytest.MonkeyPatch, cache: Path
):
    monkeypatch.setattr(engines, "_INPUTS", 3)
    module, images = small_network(), torch.randn(2, 2, 8, 8)
    first = accelerated(module)
    assert torch.equal(first(images)[0], torch.cat([module(image[None]) for image in images]))
    (folder,) = cache.iterdir()
    kept_tally = json.loads((folder / "measured.json").read_text())["float32"]
    assert kept_tally == {"answers": 2 * 64, "alike": 2 * 64, "inputs": 2}
    later = accelerated(module)  # goes on where the first one ended
    later(images)
    ran: list[int] = []
    module.register_forward_hook(lambda *_: ran.append(1))
    later(images)
    assert not ran


def test_another_network_and_other_weights_have_a_place_of_their_own(cache: Path):
    for module in (small_network(), Doubled()):
        accelerated(module)(torch.zeros(1, 2, 8, 8))
    Accelerated(small_network(), "another model", precision="float32", warnings=[])(torch.zeros(1, 2, 8, 8))
    assert len([*cache.iterdir()]) == 3


def test_an_engine_that_answers_otherwise_is_not_used():
    warnings: list[str] = []
    module, images = LooksAtTheValues(), torch.rand(1, 3, 1024, 1024)
    run = accelerated(module, warnings)
    for _ in range(2):
        assert torch.equal(run(images)[0], module(images))
    assert len(warnings) == 1 and "torch was used" in warnings[0] and run.name.startswith("torch")
    again = accelerated(module, warnings)  # what was measured holds for the next program, too
    assert len(warnings) == 2 and again.name.startswith("torch")


def test_a_network_that_cannot_be_converted_runs_in_torch():
    warnings: list[str] = []
    module, images = NotToBeTraced(), torch.rand(1, 1, 4, 4)
    run = accelerated(module, warnings, precision="bfloat16")
    assert torch.equal(run(images)[0], module(images)) and run.precision == "float32"
    assert len(warnings) == 1 and "linalg_eigvals" in warnings[0] and "\n" not in warnings[0]


def test_a_reason_is_one_line_without_paths():
    error = RuntimeError("Cannot open /srv/doe/cache/domain-vision/engines/ab/model.xml for it\nfurther\n")
    warnings: list[str] = []

    class Fails(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
                raise error
            return images

    accelerated(Fails(), warnings)(torch.zeros(1, 2, 8, 8))
    assert warnings == ["openvino does not run this network (Cannot open ... for it); torch was used"]


@pytest.mark.parametrize("asked", [False, True])
def test_bfloat16_that_changes_answers_is_refused_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, asked: bool):
    monkeypatch.setattr(engines, "_INPUTS", 2)
    warnings: list[str] = []

    def never(expected: Tensor, actual: Tensor) -> Tensor:
        return torch.zeros(expected.shape, dtype=torch.bool)

    run = accelerated(small_network(), warnings, precision="bfloat16", is_asked_for=asked, same=never)
    run(torch.randn(2, 2, 8, 8))
    assert run.precision == ("bfloat16" if asked else "float32") and len(warnings) == 1
    assert ("--precision float32" if asked else "float32 was used") in warnings[0]


def test_a_damaged_cache_is_made_anew(cache: Path):
    module, images = small_network(), torch.randn(1, 2, 8, 8)
    accelerated(module)(images)
    for path in [*cache.rglob("*.xml"), *cache.rglob("measured.json")]:
        path.write_text("<net")
    torch.testing.assert_close(accelerated(module)(images)[0], module(images))


def test_a_cache_that_cannot_be_written_to_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    warnings: list[str] = []
    module, images = small_network(), torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(accelerated(module, warnings)(images)[0], module(images))
    assert len(warnings) == 1 and "XDG_CACHE_HOME" in warnings[0]


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch):
    from shared_backbones import converted

    monkeypatch.setattr(converted, "_MOST_BYTES", 1)
    for seed in range(3):
        Accelerated(small_network(seed), f"model {seed}", precision="float32", warnings=[])(torch.zeros(1, 2, 8, 8))
    assert len([entry for entry in kept() if entry.kind == "engine"]) == 1


def test_what_counts_as_the_same():
    logits = torch.tensor([[1.0, 2.0, 0.0]])
    assert (
        same_labels(logits, logits + 0.1).all()
        and not same_labels(logits, logits.flip(1) * 2 + torch.eye(3)[:1] * 9).all()
    )
    values = torch.tensor([0.0, 1000.0])
    assert same_values(values, values + 0.9).all() and not same_values(values, values + 1.1).any()


def test_engines_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="expected torch or openvino"):
        check_engine("tensorrt", torch.device("cpu"))
    with pytest.raises(InputError, match="runs on the CPU"):
        check_engine("openvino", torch.device("meta"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"domain-vision\[openvino\]"):
        check_engine("openvino", torch.device("cpu"))


def test_openvino_reports_nothing_to_its_makers():
    check_engine("openvino", torch.device("cpu"))
    assert sys.modules["openvino_telemetry"] is None
    assert cache_folder().name == "domain-vision"
