import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import medvision
from medvision.models.paratranscnn import ParaTransCNN
from medvision.models.paratranscnn_names import official_name
from shared_backbones import optimize_for_inference
from shared_backbones.errors import InputError
from tests.parity.seeded import read_fixture
from tests.parity.stages import Stages, forms

SMALL: dict[str, Any] = {
    "num_classes": 3,
    "dim": 8,
    "heads": 2,
    "depth": (1, 1, 1),
    "resnet_depth": 18,
    "resnet_width": 8,
}


@pytest.mark.parametrize("case", ["fast-64", "rect-96x128", "default-224"])
def test_equals_the_official_network(case: str) -> None:
    fixture = read_fixture(f"paratranscnn-{case}")
    model: Any = medvision.load_official("paratranscnn", fixture.state(), **fixture.meta["kwargs"])
    assert isinstance(model, ParaTransCNN) and not model.training
    x = torch.from_numpy(fixture.input())
    with torch.inference_mode():
        for form, dtype in forms(model, double=case == "fast-64"):
            fixture.assert_output(form(x.to(dtype)))
        stages = record_stages(model)
        fixture.assert_output(model(x))
        # the two maps at the end are one: the official one between them is computed for itself
        stages.values["up1_1"] = model.tail.upsample(stages.values["dec3"])
    assert set(stages.values) == set(fixture.meta["stages"])
    for name, value in stages.values.items():
        fixture.assert_stage(name, value.contiguous())


def record_stages(model: Any) -> Stages:
    stages = Stages()
    stages.keep_input(model.cnn.layer1, "e0")
    for number in range(1, 5):
        stages.keep(getattr(model.cnn, f"layer{number}"), f"e{number}")
    for number, level in enumerate(model.levels, 1):
        stages.keep(level.patch_embedding, f"patch_embed{number}")
        block = level.blocks[0]
        stages.keep_input(block.norm2, f"v{number}_block0_attn")
        stages.keep(block, f"v{number}_block0_mlp")
        stages.keep(level.blocks[-1], f"v{number}")
    for number, gate in enumerate(reversed(model.gates), 1):
        stages.keep(gate, f"se{number}")
    for number, (step, up) in enumerate([(model.decoder3, model.up3), (model.decoder2, model.up2)], 1):
        stages.keep(step, f"dec{number}")
        stages.keep(up, f"up{4 - number}_1")
    stages.keep(model.decoder1, "dec3")
    return stages


@pytest.mark.parametrize(("arguments", "count"), [({}, 245_468_937), ({"num_classes": 2}, 245_466_690)])
def test_the_default_is_the_published_network(arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in ParaTransCNN(**arguments).parameters()) == count


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [
        ({"dim": 96}, 67.74),
        ({"dim": 64}, 53.79),
        ({"dim": 8, "heads": 2, "depth": (1, 1, 1), "num_classes": 4}, 36.24),
    ],
)
def test_other_widths_have_the_official_sizes(arguments: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in ParaTransCNN(**arguments).parameters())
    assert round(count / 1e6, 2) == millions


@settings(max_examples=8)
@given(height=st.integers(1, 50), width=st.integers(1, 50))
def test_any_size_is_padded_by_its_edge_and_cropped(height: int, width: int) -> None:
    torch.manual_seed(0)
    model = ParaTransCNN(**SMALL).eval()
    x = torch.randn(1, 3, height, width)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -height % 16), (0, -width % 16)), mode="edge")
    with torch.inference_mode():
        output = model(x)
        torch.testing.assert_close(output, model(torch.from_numpy(padded))[:, :, :height, :width])


def test_the_tail_trains_both_of_its_maps() -> None:
    torch.manual_seed(0)
    model = ParaTransCNN(**SMALL).double()
    x = torch.randn(2, 72, 4, 4, dtype=torch.float64)
    tail: Any = model.tail
    merged, apart = tail(x), tail.classifier(tail.upsample(x))
    torch.testing.assert_close(merged, apart, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(merged)
    parameters = list(tail.parameters())
    for found, expected in zip(
        torch.autograd.grad((merged * weight).sum(), parameters),
        torch.autograd.grad((apart * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    folded: Any = optimize_for_inference(model)
    assert folded.tail.upsample.out_channels == 3


def test_dropout_is_the_published_one() -> None:
    model: Any = ParaTransCNN(**SMALL)
    block = model.levels[0].blocks[0]
    assert block.attention.attention_dropout == 0.1 and block.mlp.dropout == 0.1
    assert block.attention.dropout == pytest.approx(0.19)  # twice 0.1
    assert block.attention.qkv.bias is None and block.norm1.eps == 1e-5 and block.mlp.fc1.out_features == 16


def test_starts_from_torchvision_s_imagenet_weights() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision.models import resnet34
    torch.manual_seed(0)
    source = resnet34().eval()
    model = ParaTransCNN(dim=8, heads=2, depth=(1, 1, 1))
    model.load_imagenet(source.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        stem = torch.relu(source.bn1(source.conv1(x)))
        torch.testing.assert_close(
            model.eval().cnn(x)[-1], source.layer4(source.layer3(source.layer2(source.layer1(stem))))
        )
    with pytest.raises(InputError, match="unexpected 1"):
        model.load_imagenet({**source.state_dict(), "other": torch.zeros(1)})


def test_official_names_lead_back(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = ParaTransCNN(**SMALL).eval()
    state: dict[str, Tensor] = {f"module.{official_name(n)}": t for n, t in model.state_dict().items()}
    torch.save(state, tmp_path / "epoch_145.pth")
    loaded = medvision.load_official("paratranscnn", tmp_path / "epoch_145.pth", **SMALL)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert "module.SE_1.fc.0.weight" in state and "module.vit_3.net.1.fn.fn.net.3.bias" in state
    del state["module.out.bias"]
    with pytest.raises(InputError, match=r"missing 1 \(out.bias\)"):
        medvision.load_official("paratranscnn", state, **SMALL)


def test_the_compact_relative_is_small() -> None:
    model = ParaTransCNN.compact(num_classes=3, in_chans=5)
    assert sum(p.numel() for p in model.parameters()) < 3e6
    assert model.eval()(torch.zeros(1, 5, 40, 33)).shape == (1, 3, 40, 33)


def test_checkpointing_changes_neither_gradients_nor_running_statistics() -> None:
    steps = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = ParaTransCNN(**SMALL).train()
        model.set_grad_checkpointing(enable)
        for _ in range(2):
            model(torch.randn(2, 3, 32, 48)).square().mean().backward()
        steps.append((dict(model.named_parameters()), model.state_dict()))
    (plain, state), (recomputed, recomputed_state) = steps
    assert all(value == 2 for name, value in state.items() if name.endswith("num_batches_tracked"))
    for name, tensor in state.items():
        assert torch.equal(recomputed_state[name], tensor), name
    for name, parameter in plain.items():
        torch.testing.assert_close(recomputed[name].grad, parameter.grad, rtol=1e-6, atol=0, msg=name)


@pytest.mark.parametrize(("enable", "times"), [(False, 1), (True, 2)])
def test_checkpointing_computes_blocks_and_decoder_steps_again(enable: bool, times: int) -> None:
    model: Any = ParaTransCNN(**SMALL).train()
    model.set_grad_checkpointing(enable)
    steps = [level.blocks[0] for level in model.levels] + [model.decoder3, model.decoder2, model.decoder1]
    calls = [0] * len(steps)

    def count(number: int) -> None:
        calls[number] += 1

    for number, step in enumerate(steps):
        step.register_forward_pre_hook(lambda _module, _inputs, number=number: count(number))
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert calls == [times] * len(steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 0}, "heads is 0, expected 1 or more"),
        ({"in_chans": 0}, "in_chans is 0, expected 1 or more"),
        ({"depth": (1, 0, 1)}, r"depth is \[1, 0, 1\], expected three numbers of blocks, each 1 or more"),
        ({"depth": (1, 1)}, r"depth is \[1, 1\], expected three"),
        ({"dim": 2, "resnet_width": 4}, r"expected dim \+ 2 x resnet_width of 16 or more"),
    ],
)
def test_sizes_that_do_not_suit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParaTransCNN(**{**SMALL, **arguments})


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"input of shape \(1, 3, 0, 16\): expected \(B, 3, H, W\), H and W of 1 pixel"
    ):
        ParaTransCNN(**SMALL)(torch.zeros(1, 3, 0, 16))
