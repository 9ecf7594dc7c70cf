from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import astrovision
from astrovision.models.astroformer import VARIANTS, Astroformer, ConvBlock, TransformerBlock
from shared_backbones import optimize_for_inference
from shared_backbones.errors import InputError
from tests.parity.seeded import read_fixture
from tests.parity.stages import Stages, forms, to_map

CASES = ["small-64", "relpos-order-96x64", "variant0-256", "variant3-256"]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_official_network(case: str) -> None:
    fixture = read_fixture(f"astroformer-{case}")
    model = astrovision.load_official("astroformer", fixture.state(), **fixture.meta["kwargs"])
    assert isinstance(model, Astroformer) and not model.training
    x = torch.from_numpy(fixture.input())
    with torch.inference_mode():
        for form, dtype in forms(model, double=case != "variant3-256"):
            fixture.assert_output(form(x.to(dtype)))
        stages = record_stages(model)
        fixture.assert_output(model(x.to(memory_format=torch.channels_last)))
    stages.assert_equal(fixture)


def record_stages(model: Any) -> Stages:
    stages = Stages()
    stages.keep(model.stem, "stem")
    first = model.stages[0][0]
    stages.keep(first.shortcut, "s0b0_shortcut")
    stages.keep(first.pre_norm, "s0b0_pre_norm")
    stages.keep(first.expand, "s0b0_norm1")
    stages.keep(first.depthwise, "s0b0_norm2")
    stages.keep(first.se, "s0b0_se")
    for number, stage in enumerate(model.stages):
        stages.keep(stage[0], f"stage{number}_block0")
        stages.keep(stage[-1], f"stage{number}")
    block, last = model.stages[3][0], model.stages[3][-1]
    size = block.attention.size
    stages.keep_input(block.attention, "sTb0_norm1_down", to_map(size))
    stages.keep(block.attention, "sTb0_attn", to_map(size))
    stages.keep(block.mlp, "sTb0_mlp", to_map(size))
    stages.values["sTlast_relpos_bias"] = last.attention._gather()
    stages.keep_input(model.head.classifier, "fc_input")
    return stages


# Millions of parameters: 256 px and 10 classes, 224 and 1000, 32 and 10, 32 and 100, 64 and 200.
RELEASED = {
    "astroformer_0": (22.77, 23.53, 22.76, 22.83, 22.91),
    "astroformer_1": (37.39, 38.15, 37.38, 37.45, 37.53),
    "astroformer_2": (66.37, 67.38, 66.36, 66.45, 66.55),
    "astroformer_3": (148.89, 150.41, 148.87, 149.01, 149.16),
    "astroformer_4": (241.09, 242.60, 241.07, 241.21, 241.36),
    "astroformer_5": (593.56, 595.58, 593.53, 593.71, 593.92),
}


def millions(name: str, **arguments: Any) -> float:
    with torch.device("meta"):
        return sum(p.numel() for p in VARIANTS[name](**arguments).parameters()) / 1e6


@pytest.mark.parametrize("name", list(RELEASED))
def test_the_released_variants_have_their_sizes(name: str) -> None:
    settings = ((256, 10), (224, 1000), (32, 10), (32, 100), (64, 200))
    found = [millions(name, img_size=size, num_classes=classes) for size, classes in settings]
    assert [round(value, 2) for value in found] == list(RELEASED[name])


@pytest.mark.parametrize(
    ("name", "size", "classes", "layout", "expected"),
    [
        ("astroformer_3", 64, 1000, "released", 150.393),
        ("astroformer_4", 64, 1000, "released", 242.590),
        ("astroformer_5", 64, 1000, "released", 595.559),
        ("astroformer_4", 224, 10, "paper", 271.543),
        ("astroformer_4", 224, 100, "paper", 271.681),
        ("astroformer_5", 224, 10, "paper", 681.247),
    ],
)
def test_the_sizes_that_the_paper_reports_can_be_built(
    name: str, size: int, classes: int, layout: str, expected: float
) -> None:
    paper = {"block_type": ("C", "C", "T", "T"), "head_hidden_size": None} if layout == "paper" else {}
    assert round(millions(name, img_size=size, num_classes=classes, **paper), 3) == expected


SMALL: dict[str, Any] = {
    "embed_dim": (8, 16, 32, 64),
    "depths": (1, 2, 2, 2),
    "stem_width": (4, 8),
    "head_hidden_size": 32,
    "num_classes": 5,
    "img_size": (64, 96),
}


def test_blocks_can_be_chosen_one_by_one_and_the_head_without_a_hidden_layer() -> None:
    model: Any = Astroformer(**{**SMALL, "block_type": ["C", "C", ["C", "T"], "T"], "head_hidden_size": None}).eval()
    kinds = [[type(block) for block in stage] for stage in model.stages]
    assert kinds == [[ConvBlock], [ConvBlock] * 2, [ConvBlock, TransformerBlock], [TransformerBlock] * 2]
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        features = model.forward_features(x)
        torch.testing.assert_close(features.mean(1), torch.zeros(2, 2, 3), atol=1e-5, rtol=0)  # normed pixel by pixel
        torch.testing.assert_close(model(x), model.head.classifier(features.mean((2, 3))))


def test_position_tables_are_resampled_for_another_size() -> None:
    torch.manual_seed(0)
    large: Any = Astroformer(**{**SMALL, "img_size": 256})
    small: Any = Astroformer(**{**SMALL, "img_size": 256})
    small.load_state_dict(large.state_dict())
    small.set_input_size((128, 160))
    assert small.arguments["img_size"] == [128, 160] and small.eval()(torch.zeros(1, 3, 128, 160)).shape == (1, 5)
    wide, narrow = (m.stages[3][1].attention for m in (large, small))
    assert narrow.bias_table.shape == (7 * 9, 2)
    # the offset of no distance is in the middle of both tables
    torch.testing.assert_close(narrow.bias_table[31], wide.bias_table[7 * 15 + 7], atol=0.02, rtol=0)
    constant = torch.full_like(wide.bias_table, 0.25)
    wide.bias_table.data.copy_(constant)
    large.set_input_size(96)
    torch.testing.assert_close(wide.bias_table, torch.full((25, 2), 0.25))
    with pytest.raises(ValueError, match="multiples of 32"):
        large.set_input_size(100)


def official(model: Astroformer) -> dict[str, Tensor]:
    """The state dict that the released code has for a network: the reverse of the import."""
    from astrovision.models.astroformer_names import official_name

    blocks = [(name, block) for name, block in model.named_modules() if isinstance(block, TransformerBlock)]
    halving = {name for name, block in blocks if block.stride == 2}
    state = {}
    for name, tensor in model.state_dict().items():
        if ".attention.qkv." in name:
            tensor = tensor.unflatten(0, (3, -1, 32)).transpose(0, 1).flatten(0, 2)
        if tensor.ndim == 2 and name.startswith("stages") and not name.endswith("bias_table"):
            tensor = tensor[:, :, None, None]
        state[official_name(name, halving)] = tensor
    return state


def test_a_checkpoint_of_another_size_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Astroformer(**{**SMALL, "img_size": 128}).eval()
    torch.save({"epoch": 3, "arch": "astroformer_0", "state_dict": official(source)}, tmp_path / "model_best.pth.tar")
    cfg = {name: SMALL[name] for name in ("embed_dim", "depths", "stem_width", "head_hidden_size")}
    same = astrovision.load_official(
        "astroformer", tmp_path / "model_best.pth.tar", cfg=cfg, img_size=128, num_classes=5
    )
    x = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        assert torch.equal(same(x), source(x))
    other = astrovision.load_official(
        "astroformer", tmp_path / "model_best.pth.tar", cfg=cfg, img_size=192, num_classes=5
    )
    source.set_input_size(192)
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor)


def test_what_the_published_models_do_not_have_is_refused() -> None:
    for cfg, message in [
        ({"conv_cfg": {"block_type": "convnext"}}, r"cfg.conv_cfg.block_type is 'convnext'.* have 'mbconv'"),
        ({"transformer_cfg": {"window_size": [7, 7]}}, r"cfg.transformer_cfg.window_size"),
        ({"stem_bias": True}, r"stem_bias"),
        ({"conv_cfg": {"expand_ratio": 2.0}, "transformer_cfg": {"expand_ratio": 4.0}}, r"expand_ratio"),
    ]:
        with pytest.raises(InputError, match=message):
            astrovision.load_official("astroformer", {}, cfg=cfg)
    with pytest.raises(InputError, match=r"variant 'astroformer_9' is unknown; known: astroformer_0, "):
        astrovision.load_official("astroformer", {}, variant="astroformer_9")
    with pytest.raises(InputError, match=r"no official weights for architecture 'timm_classifier'; known: astroformer"):
        astrovision.load_official("timm_classifier", {})
    with pytest.raises(InputError, match=r"missing \d+ \(head.fc.bias, .* unexpected 1 \(other\)"):
        astrovision.load_official("astroformer", {"other": torch.zeros(1)}, variant="astroformer_0", img_size=32)


def test_the_inference_form_has_no_norm_of_batches_left() -> None:
    optimized = optimize_for_inference(Astroformer(**SMALL))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in optimized.modules())


def test_initialisation_is_the_published_one() -> None:
    torch.manual_seed(0)
    model: Any = VARIANTS["astroformer_0"](img_size=64).requires_grad_(False)
    block = model.stages[1][1]
    assert abs(float(block.expand.convolution.weight.std()) - np.sqrt(2 / 768)) < 1e-3
    assert abs(float(block.depthwise.convolution.weight.std()) - np.sqrt(2 / 9)) < 2e-2
    assert float(block.project.bias.abs().max()) == 0
    attention = model.stages[3][1]
    bound = np.sqrt(6 / (768 + 3 * 768))
    assert 0.98 * bound < float(attention.attention.qkv.weight.abs().max()) <= bound
    assert 0 < float(attention.mlp.fc1.bias.std()) < 2e-6 and float(attention.attention.qkv.bias.abs().max()) == 0


def test_stochastic_depth_rises_over_all_blocks() -> None:
    model: Any = Astroformer(**SMALL, drop_path_rate=0.6)
    rates = [block.drop_path.rate for stage in model.stages for block in stage]
    np.testing.assert_allclose(rates, np.linspace(0, 0.6, 7), atol=1e-6)
