import re
from typing import Any

import pytest
import torch
from torch import Tensor

import medvision
from medvision.models.medvitv2 import PAPER_DILATIONS, VARIANTS, MedViTV2
from medvision.models.medvitv2_blocks import GlobalBlock, LocalBlock, PooledAttention
from shared_backbones.errors import InputError
from tests.parity.seeded import read_fixture
from tests.parity.stages import Stages, forms

SMALL: dict[str, Any] = {
    "stem_chs": (8, 8, 16),
    "depths": (2, 2, 3, 1),
    "dims": (32, 64, 64, 64),
    "mix_block_ratio": 0.5,
    "num_classes": 4,
}


@pytest.mark.parametrize("case", ["micro-112", "tiny-224"])
def test_equals_the_official_network(case: str) -> None:
    fixture = read_fixture(f"medvitv2-{case}")
    variant = {"variant": "MedViT_tiny"} if case == "tiny-224" else {}
    model: Any = medvision.load_official("medvitv2", fixture.state(), **fixture.meta["kwargs"], **variant)
    assert isinstance(model, MedViTV2) and not model.training
    x = torch.from_numpy(fixture.input())
    with torch.inference_mode():
        for form, dtype in forms(model):
            if dtype == torch.float64 or case == "micro-112":
                fixture.assert_output(form(x.to(dtype)))
                fixture.assert_output(form(x.to(dtype, memory_format=torch.channels_last)))
        stages = record_stages(model.double())
        model(x.double())
    stages.assert_equal(fixture)


def record_stages(model: Any) -> Stages:
    stages = Stages()
    stages.keep(model.stem, "stem")
    blocks = [block for stage in model.stages for block in stage]
    for number, block in enumerate(blocks):
        stages.keep(block, f"features_{number}")
    stages.keep(blocks[0].attention, "features_0_attn")
    number = next(i for i, block in enumerate(blocks) if isinstance(block, GlobalBlock))
    stages.keep(blocks[number].attention, f"features_{number}_e_mhsa")
    stages.keep(blocks[number].kan, f"features_{number}_kan", lambda rows: rows.flatten(0, 2))
    stages.keep(model.norm, "norm")
    return stages


@pytest.mark.parametrize(
    ("name", "millions", "bare", "unused"),
    [
        ("medvitv2_tiny", 11.72, 11.33, 0.98),
        ("medvitv2_small", 30.09, 29.57, 2.75),
        ("medvitv2_base", 67.00, 66.23, 6.14),
        ("medvitv2_large", 118.29, 117.27, 10.87),
    ],
)
def test_the_variants_have_their_sizes(name: str, millions: float, bare: float, unused: float) -> None:
    with torch.device("meta"):
        model: Any = VARIANTS[name]()
    never = 0  # the feed-forwards that the released global blocks hold and never call
    for block in (block for stage in model.stages for block in stage if isinstance(block, GlobalBlock)):
        c = block.norm2.num_features
        hidden = 2 * c
        never += (
            2 * c * hidden + 9 * hidden + 2 * hidden * 2 + 2 * c + 2 * hidden * (hidden // c) + hidden + hidden // c
        )
    count = sum(p.numel() for p in model.parameters())
    grids = sum(b.numel() for n, b in model.named_buffers() if n.endswith("grid"))
    assert round(never / 1e6, 2) == unused
    assert round((count + grids + never) / 1e6, 2) == millions
    assert round((count + grids + never - sum(p.numel() for p in model.head.parameters())) / 1e6, 2) == bare


def test_small_and_odd_images_are_taken_as_pixels() -> None:
    torch.manual_seed(0)
    model: Any = MedViTV2(**SMALL, tokens="spatial", dilations=PAPER_DILATIONS).eval()
    with torch.inference_mode():
        for size in ((28, 28), (64, 64), (97, 30), (17, 5), (1, 1)):
            output, maps = model.forward_intermediates(torch.randn(2, 3, *size))
            assert output.isfinite().all()
            assert [tuple(m.shape[2:]) for m in maps] == [
                tuple(-(-side // reduction) for side in size) for reduction in (4, 8, 16, 32)
            ]


def test_both_forms_share_their_weights_and_differ_in_their_tokens() -> None:
    torch.manual_seed(0)
    released: Any = MedViTV2(**SMALL).eval()
    spatial = MedViTV2(**SMALL, tokens="spatial").eval()
    spatial.load_state_dict(released.state_dict())
    x = torch.randn(1, 3, 112, 112)
    block, normed = released.stages[0][0], torch.randn(1, 32, 28, 28)
    with torch.inference_mode():
        assert not torch.allclose(released(x), spatial(x), atol=1e-4)
        # a released token is a run of values of the flattened image planes
        from medvision.models.medvitv2_blocks import _from_tokens, _to_tokens

        tokens = _to_tokens(normed.to(memory_format=torch.channels_last), True)
        assert torch.equal(tokens.flatten(), normed.flatten()) and tokens.shape == (1, 28, 28, 32)
        assert torch.equal(_from_tokens(tokens, True), normed)
        assert torch.equal(_from_tokens(_to_tokens(normed, False), False), normed)
    assert isinstance(block, LocalBlock)


def test_every_second_neighbourhood_of_a_stage_is_dilated() -> None:
    model: Any = MedViTV2(dims=(32, 64, 96, 128), depths=(4, 3, 6, 1), mix_block_ratio=0.5, dilations=PAPER_DILATIONS)
    found = [[b.attention.dilation for b in stage if isinstance(b, LocalBlock)] for stage in model.stages]
    assert found == [[1, 8, 1, 8], [1, 4], [1, 2, 1, 2], []]
    assert all(
        b.attention.dilation == 1 for s in MedViTV2(**SMALL).stages for b in s.children() if isinstance(b, LocalBlock)
    )


def test_attention_pools_runs_of_tokens() -> None:
    torch.manual_seed(0)
    attention: Any = PooledAttention(64, 2).eval().double()
    x = torch.randn(1, 11, 64, dtype=torch.float64)
    pooled = torch.stack([x[0, :4].mean(0), x[0, 4:8].mean(0)])  # three tokens are left over
    pooled = pooled / (1 + 1e-5) ** 0.5  # the batch norm as it starts
    heads = []
    for h in range(2):
        part = slice(32 * h, 32 * h + 32)
        q, k, v = attention.query(x[0]), attention.key(pooled), attention.value(pooled)
        scores = (q[:, part] @ k[:, part].T / 32**0.5).softmax(-1)
        heads.append(scores @ v[:, part])
    torch.testing.assert_close(attention(x)[0], attention.projection(torch.cat(heads, 1)))


def test_stochastic_depth_is_the_published_one() -> None:
    model: Any = MedViTV2(**SMALL, path_dropout=0.7)
    blocks = [block for stage in model.stages for block in stage]
    for number, block in enumerate(blocks):
        rate = pytest.approx(0.7 * number / 7, abs=1e-6)
        if isinstance(block, LocalBlock):
            assert block.drop_path.rate == rate
        else:
            assert block.drop_path3.rate == rate
            assert block.drop_path1.rate == block.drop_path2.rate == pytest.approx(0.35 * number / 7, abs=1e-6)


def official(model: MedViTV2) -> dict[str, Tensor]:
    from medvision.models.medvitv2_names import official_name

    blocks = [
        (f"stages.{i}.{j}", block) for i, stage in enumerate(model.stages) for j, block in enumerate(stage.children())
    ]
    homes = {name: (number, isinstance(block, GlobalBlock)) for number, (name, block) in enumerate(blocks)}
    return {official_name(name, homes): tensor for name, tensor in model.state_dict().items()}


def test_official_files_are_read(tmp_path: Any) -> None:
    import numpy as np

    torch.manual_seed(0)
    model: Any = MedViTV2(**SMALL).eval()
    state = official(model)
    global_block = next(re.match(r"features\.\d+", name) for name in state if ".kan." in name)
    assert global_block is not None
    state[f"{global_block[0]}.conv.conv.0.weight"] = torch.zeros(3)  # made and never used
    state = {name: tensor for name, tensor in state.items() if not name.endswith("rbf.grid")}
    torch.save({"model": state, "acc": np.float64(0.93), "epoch": 7, "optimizer": {"state": {}}}, tmp_path / "best.pth")
    loaded = medvision.load_official("medvitv2", tmp_path / "best.pth", **SMALL)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    state["features.0.conv.conv.9.weight"] = torch.zeros(3)  # no such thing in a local block
    with pytest.raises(InputError, match=r"missing none; unexpected 1 \(features.0.conv.conv.9.weight\)"):
        medvision.load_official("medvitv2", state, **SMALL)
    with pytest.raises(InputError, match=r"variant 'tiny' is unknown; known: MedViT_tiny, "):
        medvision.load_official("medvitv2", state, variant="tiny")
