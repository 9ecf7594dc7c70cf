import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import medvision
from medvision.models.hbformer import HBFormer
from shared_backbones import optimize_for_inference, weights
from shared_backbones.errors import InputError
from tests.parity.seeded import Fixture, read_fixture

CASES = ["hbformer-fast-96", "hbformer-acdc-224", "hbformer-synapse-256"]
SMALL: dict[str, Any] = {"feature_size": 8, "depths": [2, 2, 2, 2], "head_dim": 8, "num_classes": 4, "img_size": 64}


def randomised(seed: int = 0, **arguments: Any) -> HBFormer:
    """A small network whose norms, gates and biases all matter."""
    generator = torch.Generator().manual_seed(seed)
    model = HBFormer(**{**SMALL, **arguments}).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize("case", CASES)
def test_equals_the_official_network(case: str) -> None:
    fixture = read_fixture(case)
    kwargs = fixture.meta["kwargs"]
    x = torch.from_numpy(fixture.input())
    plain = fixture.state()
    for amplified, state in ((False, plain), (True, fixture.amplified(plain))):
        model = medvision.load_official("hbformer", state, **kwargs)
        assert isinstance(model, HBFormer)
        folded_model = optimize_for_inference(model)
        with torch.inference_mode():
            fixture.assert_output(folded_model(x), amplified=amplified)
            if case == CASES[0]:
                assert_equal_in_float64(fixture, model, x, amplified=amplified)
            stages = record_stages(model)
            fixture.assert_output(model(x), amplified=amplified)
        assert set(stages) == set(fixture.meta["stages"])
        for stage, value in stages.items():
            fixture.assert_stage(stage, value, amplified=amplified)


def assert_equal_in_float64(fixture: Fixture, model: HBFormer, x: Tensor, *, amplified: bool) -> None:
    model = copy.deepcopy(model).double()
    output = model(x.double())
    assert output.dtype == torch.float64
    fixture.assert_output(output, amplified=amplified)
    torch.testing.assert_close(optimize_for_inference(model)(x.double()), output, rtol=0, atol=1e-12)


def record_stages(model: Any) -> dict[str, Tensor]:
    """Collect what the fixtures name, as `model` runs."""
    stages: dict[str, Tensor] = {}

    def keep(module: torch.nn.Module, name: str, layout: str = "same") -> None:
        def hook(_module: torch.nn.Module, _inputs: Any, output: Tensor) -> None:
            stages[name] = output.permute(0, 3, 1, 2) if layout == "channels first" else output

        module.register_forward_hook(hook)

    keep(model.input_projection, "input_proj")
    keep(model.encoder.patch_embedding, "patch_embed")
    for s, stage in enumerate(model.encoder.stages):
        for b, block in enumerate(stage.blocks[:2]):
            keep(block, f"stage{s}_block{b}")
        keep(stage, f"c{s + 1}", "channels first")
    for i, projection in enumerate(model.skip_projections, 1):
        keep(projection, f"proj_enc{i}")
    for level, decoder in zip((4, 3, 2, 1), model.decoders, strict=True):
        keep(decoder.upsample, f"dec{level}_up")
        keep(decoder.residual, f"dec{level}_lrd")
        keep(decoder.dilated, f"dec{level}_dspp")
        keep(decoder, f"dec{level}")
        watch_gates(decoder.dilated, f"dec{level}", stages)
    keep(model.head.upsample, "out0")
    return stages


def watch_gates(dilated: Any, prefix: str, stages: dict[str, Tensor]) -> None:
    def gate(name: str) -> Any:
        return lambda _module, _inputs, output: stages.update({f"{prefix}_{name}": output[..., None, None]})

    dilated.branch_gate.register_forward_hook(gate("branch_w"))
    dilated.expert_gate.register_forward_hook(gate("expert_w"))
    fuse = dilated._fuse

    def watched(features: Tensor, gates: Tensor) -> Tensor:
        attention = dilated.channel_attention(features.mean((2, 3)) * gates)
        stages[f"{prefix}_eca"] = features * (gates * attention)[..., None, None]
        return fuse(features, gates)

    dilated._fuse = watched


@settings(max_examples=12)
@given(height=st.integers(1, 100), width=st.integers(1, 100), batch=st.integers(1, 3))
def test_any_size_is_padded_by_its_edge_and_cropped(height: int, width: int, batch: int) -> None:
    model = randomised()
    x = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    bottom, right = -height % 32, -width % 32
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge"))
    with torch.inference_mode():
        output = model(x)
        assert output.shape == (batch, 4, height, width)
        torch.testing.assert_close(output, model(padded)[:, :, :height, :width], rtol=1e-5, atol=1e-5)


def test_a_smaller_map_uses_the_middle_of_the_bias_tables() -> None:
    large, small = randomised(img_size=256), HBFormer(**{**SMALL, "img_size": [64, 32]}).eval()
    state = large.state_dict()
    for name, tensor in small.state_dict().items():
        if name.endswith("bias_table"):
            stage = int(name.split(".")[2])
            rows, columns = (2 * min(8, grid >> stage) - 1 for grid in (16, 8))
            table = state[name].unflatten(0, (15, 15))
            top, left = (15 - rows) // 2, (15 - columns) // 2
            state[name] = table[top : top + rows, left : left + columns].flatten(0, 1)
            assert state[name].shape == tensor.shape
    small.load_state_dict(state)
    x = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(large(x), small(x), rtol=1e-5, atol=1e-5)


def test_samples_of_a_batch_do_not_meet() -> None:
    model = randomised()
    x = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        alone = torch.cat([model(sample[None]) for sample in x])
        torch.testing.assert_close(model(x), alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_classes", [3, 20], ids=["tail merged", "tail kept"])
def test_the_inference_form_gives_the_same_outputs(num_classes: int, dtype: torch.dtype) -> None:
    model = randomised(num_classes=num_classes).to(dtype)
    folded: Any = optimize_for_inference(model)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    with torch.inference_mode():
        for height, width in ((64, 64), (96, 33), (64, 64)):  # the tables of the first size are met again
            x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height)).to(dtype)
            expected = model(x)
            torch.testing.assert_close(folded(x), expected, rtol=0, atol=tolerance * float(expected.abs().max()))
            again = optimize_for_inference(folded)(x)
            torch.testing.assert_close(again, expected, rtol=0, atol=tolerance * float(expected.abs().max()))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.decoders[0].residual.modules())
    assert isinstance(folded.head.classifier, torch.nn.Identity) == (num_classes == 3)
    assert isinstance(model.head.classifier, torch.nn.Conv2d)


def test_training_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = randomised(drop_path_rate=0.3).train()
    for name, parameter in model.named_parameters():
        if name.endswith("squeeze.bias"):
            torch.nn.init.constant_(parameter, 2)  # a gate this narrow may be shut by chance
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_training_gradients_equal_those_of_one_sample_at_a_time() -> None:
    model = randomised().double()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4)).double()
    model(x).square().sum().backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for sample in x:
        model(sample[None]).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, together[name], rtol=1e-8, atol=1e-8 * float(together[name].abs().max()))


def test_stochastic_depth_drops_whole_samples_while_training() -> None:
    torch.manual_seed(0)
    model: Any = HBFormer(**SMALL, drop_path_rate=1.0)
    block = model.encoder.stages[3].blocks[1]
    x = torch.randn(4, 2, 2, 128)
    assert not torch.equal(block.eval()(x), x)
    block.drop_path.rate = 0.5
    changed = torch.stack([(block.train()(x) != x).flatten(1).any(1) for _ in range(40)])
    assert 0.6 < changed.float().mean() < 0.9  # two branches, each kept half the time


def test_arguments_are_json_and_build_an_equal_network() -> None:
    model = HBFormer.compact(num_classes=5, in_chans=7, img_size=128)
    arguments = json.loads(json.dumps(model.arguments))
    rebuilt = HBFormer(**arguments)
    assert rebuilt.arguments == model.arguments
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == shapes
    assert model.eval()(torch.zeros(1, 7, 40, 50)).shape == (1, 5, 40, 50)


@pytest.mark.parametrize(("size", "window", "parameters"), [(256, 8, 36_712_129), (224, 7, 36_704_401), (96, 8, None)])
def test_the_default_is_the_published_network(size: int, window: int, parameters: int | None) -> None:
    with torch.device("meta"):
        model = HBFormer(img_size=size)
    unused = 768 * 384 + 384 + 2 * 768  # parameters of the released code that never take part
    assert model.arguments["window_size"] == window
    assert sum(p.numel() for p in model.parameters()) == (parameters or 36_695_041) - unused


@pytest.mark.parametrize("arguments", [{"depths": [2, 2, 2]}, {"head_dim": 7}])
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"head_dim|depths"):
        HBFormer(**{**SMALL, **arguments})


def small_official_state(model: HBFormer) -> dict[str, Tensor]:
    """The state dict the released code would have for a small network: the reverse of the import."""
    from medvision.models.hbformer_names import official_name

    state = {}
    for name, tensor in model.state_dict().items():
        foreign = official_name(name, len(model.arguments["dilations"]), model.arguments["experts"])
        if isinstance(foreign, str):
            state[foreign] = tensor
        else:
            state.update({n: tensor[r, e] for r, row in enumerate(foreign) for e, n in enumerate(row)})
    return state


@pytest.mark.parametrize(
    ("kind", "wrapper"),
    [
        ("dict", None),
        ("dict", "model"),
        ("pth", None),
        ("pth", "state_dict"),
        ("pth", "model_state_dict"),
        ("safetensors", None),
    ],
)
def test_official_files_are_read_through_their_wrappers(tmp_path: Path, kind: str, wrapper: str | None) -> None:
    model = randomised()
    state: Any = {f"module.{name}": tensor for name, tensor in small_official_state(model).items()}
    state["module.out.0.total_ops"] = torch.zeros(1, dtype=torch.float64)
    state["total_params"] = torch.zeros(1, dtype=torch.float64)
    state["module.proj_enc4.weight"] = torch.zeros(3)
    state["module.MWAencoder.backbone.norm.bias"] = torch.zeros(3)
    state["module.MWAencoder.backbone.layers.0.blocks.1.attn_mask"] = torch.zeros(3)
    state["module.MWAencoder.backbone.layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(3).long()
    source: Any = {wrapper: state, "epoch": 3} if wrapper else state
    if kind == "pth":
        torch.save(source, tmp_path / "best.pth")
        source = tmp_path / "best.pth"
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "best.safetensors")
        source = tmp_path / "best.safetensors"
    loaded = medvision.load_official("hbformer", source, **SMALL)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_official_entries_that_do_not_fit_are_named() -> None:
    state = small_official_state(randomised())
    with pytest.raises(InputError, match=r"missing 1 \(out\.0\.weight\); unexpected 1 \(other\)"):
        medvision.load_official(
            "hbformer", {k: v for k, v in state.items() if k != "out.0.weight"} | {"other": 1}, **SMALL
        )
    with pytest.raises(InputError, match=r"missing 6\d+ \((\S+ ){4}\S+ \.\.\.\)"):
        medvision.load_official("hbformer", {}, **{**SMALL, "depths": [2, 2, 18, 2]})
    with pytest.raises(InputError, match=r"relative_position_bias_table has shape \(225, 2\), expected \(169, 2\)"):
        medvision.load_official("hbformer", state, **{**SMALL, "window_size": 7})
    with pytest.raises(InputError, match=r"out\.1\.weight has shape \(4, 8, 1, 1\), expected \(9, 8, 1, 1\)"):
        medvision.load_official("hbformer", state, **{**SMALL, "num_classes": 9})
    with pytest.raises(InputError, match=r"architecture 'unet' is unknown; known: .*hbformer"):
        medvision.load_official("unet", state)
    with pytest.raises(InputError, match=r"for architecture 'smp_unet'; known: astroformer, cct, crossformer"):
        medvision.load_official("smp_unet", state)


def test_a_folder_brings_the_network_back(tmp_path: Path) -> None:
    model = randomised()
    weights.save(tmp_path / "model", model, {"name": "small"})
    loaded = weights.load(tmp_path / "model")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        assert torch.equal(loaded.module(x), model(x))
    assert loaded.card["architecture"] == "hbformer"


def test_the_dilated_convolution_runs_in_bfloat16() -> None:
    model = randomised()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            for network in (model, optimize_for_inference(model)):
                output = network(x).float()
                assert F.cosine_similarity(output.flatten(), expected.flatten(), dim=0) > 0.99


def test_importing_medvision_is_light() -> None:
    code = "import medvision, sys; assert medvision.__all__; print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    with pytest.raises(AttributeError, match="no_such_name"):
        medvision.no_such_name  # noqa: B018
