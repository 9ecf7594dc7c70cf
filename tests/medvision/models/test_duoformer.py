from typing import Any

import pytest
import torch
from torch import Tensor, nn

import medvision
from medvision.models.duoformer import DuoFormer
from medvision.models.duoformer_names import official_name
from shared_backbones import optimize_for_inference
from shared_backbones.errors import InputError
from tests.parity.seeded import read_fixture, seeded
from tests.parity.stages import Stages, forms

SMALL: dict[str, Any] = {
    "depth": 2,
    "embed_dim": 16,
    "num_heads": 2,
    "num_classes": 3,
    "backbone": "r18",
    "img_size": 64,
    "freeze_backbone": False,
}


@pytest.mark.parametrize(
    "case",
    [
        "small-r18-4scale-random",
        "token-order-r18-4scale-first",
        "r50-2scale-repaired",
        "default-r50ssl-4scale-channel",
    ],
)
def test_equals_the_official_network(case: str) -> None:
    fixture = read_fixture(f"duoformer-{case}")
    model: Any = medvision.load_official("duoformer", fixture.state(), **fixture.meta["kwargs"])
    assert isinstance(model, DuoFormer) and not model.training
    x = torch.from_numpy(fixture.input())
    with torch.inference_mode():
        for form, dtype in forms(model, double=not case.startswith("default")):
            fixture.assert_output(form(x.to(dtype)))
        record_stages(model, x).assert_equal(fixture)


def record_stages(model: Any, x: Tensor) -> Stages:
    """The official values; those of tokens that our last blocks do not compute come from the blocks run whole."""
    stages = Stages()
    maps = model.backbone(x)
    stages.values |= {f"backbone_{number}": value for number, value in enumerate(maps)}
    for scale, projection in enumerate(model.projections):
        stages.values[f"proj_{3 - scale}"] = projection(maps[3 - scale])
    if model.scale_token == "channel":
        stages.values["channel_token_B_C_49"] = model.channel_token(maps)[:, :, 0].transpose(1, 2)
    tokens = model.tokenise(maps)
    stages.values["tokens_B_49_S_C"] = tokens
    stages.values["tokens_detail_b0_patch8_allS_ch0to3"] = tokens[0, 8, :, :4]
    z = tokens.flatten(0, 1) + model.scale_positions
    for number, block in enumerate(model.scale_blocks):
        z = block(z)
        stages.values[f"scale_block_{number}"] = z
    stages.values["scale_out_detail_b0_patch8_allS_ch0to3"] = z[8, :, :4]
    vectors = z[:, 0].unflatten(0, tokens.shape[:2])
    z = torch.cat([model.class_token.expand(len(x), -1, -1), vectors], 1) + model.positions
    for number, block in enumerate(model.patch_blocks):
        z = block(z)
        stages.values[f"patch_block_{number}"] = z
    stages.values["head_input"] = model.forward_features(x)
    torch.testing.assert_close(stages.values["head_input"], z[:, 0], rtol=1e-4, atol=1e-5)
    return stages


# Backbone, scales, depth, token, patch attention; millions of parameters, and of those trained with a frozen backbone.
SIZES = [
    ("r50_Swav", 4, 8, "channel", True, 148.19, 124.68),
    ("r50_Swav", 4, 8, "random", True, 102.17, 78.66),
    ("r50_BT", 4, 8, "first", True, 102.17, 78.66),
    ("r50_MoCoV2", 4, 8, "avg", True, 102.17, 78.66),
    ("r50_Swav", 4, 8, "channel", False, 129.25, 105.74),
    ("r50", 3, 8, "random", True, 101.92, 78.42),
    ("r50", 3, 8, "channel", True, 147.94, 124.43),
    ("r50", 4, 12, "random", True, 139.97, 116.46),
    ("r50", 4, 12, "channel", True, 185.99, 162.48),
    ("r50", 3, 12, "random", True, 139.72, 116.22),
    ("r50", 3, 12, "channel", True, 185.74, 162.23),
    ("r50", 2, 12, "random", True, 139.32, None),
    ("r18", 4, 8, "random", True, 87.63, None),
    ("r18", 4, 8, "channel", True, 110.42, None),
    ("r18", 4, 12, "random", True, 125.43, None),
    ("r18", 4, 12, "channel", True, 148.22, None),
    ("r18", 3, 12, "random", True, 125.33, None),
    ("r18", 3, 12, "channel", True, 148.12, None),
    ("r18", 2, 12, "random", True, 125.22, None),
]


@pytest.mark.parametrize(("backbone", "scales", "depth", "token", "patch_attn", "total", "trained"), SIZES)
def test_the_logged_settings_have_their_sizes(
    backbone: str, scales: int, depth: int, token: str, patch_attn: bool, total: float, trained: float | None
) -> None:
    with torch.device("meta"):
        model = DuoFormer(
            depth, 768, 8, 3, scales, backbone=backbone, scale_token=token, patch_attn=patch_attn, freeze_backbone=True
        )
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == total
    if trained is not None:
        assert round(sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6, 2) == trained


def randomised(**arguments: Any) -> DuoFormer:
    """A small network whose output follows the image; at first, attention without residuals hands on almost nothing."""
    model = DuoFormer(**{**SMALL, **arguments}).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.as_tensor(seeded(name, tuple(tensor.shape), 1.0)))
    return model


def by_definition(model: Any, x: Tensor) -> Tensor:
    """Patches picked cell by cell, softmax attention written out, every token of every block computed."""

    def attend(attention: Any, z: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (attention.num_heads, -1)).transpose(-2, -3) for part in attention.qkv(z).chunk(3, -1)
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        return attention.projection((scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2))

    maps = model.backbone(x)
    rows, columns = maps[3].shape[2:]
    patches = []
    for row in range(rows):
        for column in range(columns):
            cells = []
            for scale, projection in enumerate(model.projections):
                side = 2**scale
                places = [(i, j) for i in range(side) for j in range(side)]
                if scale == 1:
                    places = [(i, j) for j in range(side) for i in range(side)]
                projected = projection(maps[3 - scale])
                cells += [projected[:, :, row * side + i, column * side + j] for i, j in places]
            patches.append(torch.stack(cells, 1))
    z = torch.stack(patches, 1)
    if model.scale_token == "random":
        z = torch.cat([model.token[None].expand(len(x), rows * columns, -1, -1), z], 2)
    elif model.scale_token == "channel":
        z = torch.cat([model.channel_token(maps), z], 2)
    z = z + model.scale_positions
    for block in model.scale_blocks:
        z = z + attend(block.attention, block.norm1(z))
        z = z + block.mlp(block.norm2(z))
    if not len(model.patch_blocks):
        return model.head(z.mean(2).transpose(1, 2) @ model.pool.weight[0] + model.pool.bias)
    vectors = z.mean(2) if model.scale_token == "avg" else z[:, :, 0]
    z = torch.cat([model.class_token.expand(len(x), -1, -1), vectors], 1) + model.positions
    for attention in model.patch_blocks:
        z = attend(attention, z)
    return model.head(z[:, 0])


@pytest.mark.parametrize("token", ["random", "channel", "first", "avg"])
@pytest.mark.parametrize(("scales", "patch_attn"), [(4, True), (3, True), (2, True), (2, False)])
def test_every_setting_is_as_defined_at_other_sizes_and_folded(token: str, scales: int, patch_attn: bool) -> None:
    model = randomised(img_size=(64, 96), num_layers=scales, scale_token=token, patch_attn=patch_attn).double()
    assert model.scale_positions.shape[1] == {2: 5, 3: 21, 4: 85}[scales] + (token in {"random", "channel"})
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = by_definition(model, x)
        assert expected.shape == (2, 3) and (expected[0] - expected[1]).abs().max() > 1e-2
        for form in (model, optimize_for_inference(model)):
            torch.testing.assert_close(form(x), expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_the_cells_of_a_patch_are_in_the_released_order() -> None:
    model: Any = DuoFormer(**{**SMALL, "scale_token": "first"})
    for projection in model.projections:
        nn.init.zeros_(projection.weight)
        nn.init.zeros_(projection.bias)
        projection.weight[:, 0].data.fill_(1)
    maps = []
    for number, (channels, side) in enumerate(zip(model.backbone.channels, (16, 8, 4, 2), strict=True)):
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        value = torch.zeros(1, channels, side, side)
        value[:, 0] = 10000 * number + 100 * rows + columns
        maps.append(value)
    with torch.no_grad():
        cells = model.tokenise(maps)[0, 1, :, 0].long().tolist()  # the patch in row 0, column 1
    assert cells[0] == 30001
    assert cells[1:5] == [20002, 20102, 20003, 20103]  # down the columns
    assert cells[5:10] == [10004, 10005, 10006, 10007, 10104]  # along the rows
    assert cells[21:30] == [8, 9, 10, 11, 12, 13, 14, 15, 108]


@pytest.mark.parametrize("backbone", ["convnext_atto", "swin_tiny_patch4_window7_224", "mobilenetv3_small_050"])
def test_any_timm_pyramid_serves_as_backbone(backbone: str) -> None:
    torch.manual_seed(0)
    arguments = {**SMALL, "backbone": backbone, "img_size": (64, 96), "scale_token": "channel"}
    model = DuoFormer(**arguments, in_chans=2).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 2, 64, 96)).shape == (1, 3)
    rebuilt = DuoFormer(**model.arguments)
    rebuilt.load_state_dict(model.state_dict())


def test_a_backbone_whose_maps_are_of_another_size_is_refused() -> None:
    model: Any = DuoFormer(**SMALL).eval()
    backbone = model.backbone
    model.backbone = nn.Module()
    model.backbone.forward = lambda x: [found[:, :, 1:] for found in backbone(x)]
    with pytest.raises(ValueError, match=r"backbone 'r18' gives a map of 15 x 16, expected 16 x 16: exactly 1/4"):
        model(torch.zeros(1, 3, 64, 64))


def test_maps_and_feature_come_from_one_pass() -> None:
    model: Any = DuoFormer(**SMALL).train()
    x = torch.randn(2, 3, 64, 64)
    _, maps = model.forward_intermediates(x, indices=[1, -1])
    assert model.backbone.bn1.num_batches_tracked == 1
    assert [found.shape[1] for found in maps] == [128, 512]
    assert all(isinstance(model.get_submodule(level["module"]), nn.Sequential) for level in model.feature_info)
    for indices in (0, 5, [4], []):
        with pytest.raises(ValueError, match=r"expected levels 0 to 3, or how many of the last, 1 to 4"):
            model.forward_intermediates(x, indices=indices)


def test_dropouts_drop_what_they_are_named_for() -> None:
    x = torch.randn(2, 3, 64, 64)
    weights: Any = randomised(attn_drop_rate=1.0).train()
    expected = weights.patch_blocks[-1].projection.bias.expand(2, -1)  # all that is left without attention weights
    torch.testing.assert_close(weights.forward_features(x), expected)
    projections: Any = randomised(proj_drop_rate=1.0)
    assert projections.forward_features(x).any()
    assert not projections.train().forward_features(x).any()
    tokens = torch.randn(2, 5, 16)
    attention = weights.scale_blocks[0].attention
    torch.testing.assert_close(attention(tokens), attention.projection.bias.expand(2, 5, -1))
    assert not projections.scale_blocks[0].attention(tokens).any()


def test_starts_as_published() -> None:
    torch.manual_seed(0)
    model: Any = DuoFormer(**{**SMALL, "embed_dim": 128, "scale_token": "channel"}).requires_grad_(False)
    for linear in (model.scale_blocks[0].mlp.fc1, model.patch_blocks[1].qkv):
        assert abs(float(linear.weight.std()) - 0.02) < 1e-3 and not linear.bias.any()
    token = DuoFormer(**{**SMALL, "embed_dim": 512}).state_dict()["token"]
    for table in (model.scale_positions, model.class_token, token):
        assert abs(float(table.std()) - 0.036) < 8e-3
    for convolution in (model.projections[3], model.channel_token.first[0], model.channel_token.second):
        fan_in = convolution.weight[0].numel()
        assert abs(float(convolution.weight.std()) * fan_in**0.5 - 2**0.5) < 0.05
        assert 0 < float(convolution.bias.abs().max()) < 1e-5


def test_a_frozen_backbone_takes_no_gradients_and_may_keep_its_statistics() -> None:
    for frozen, told in ((False, True), (True, True), (True, False)):  # a new module trains without being told
        model: Any = DuoFormer(**{**SMALL, "freeze_backbone": True, "frozen_statistics": frozen})
        model = model.train() if told else model
        before = model.backbone.bn1.running_mean.clone()
        model(torch.randn(2, 3, 64, 64)).square().mean().backward()
        assert torch.equal(model.backbone.bn1.running_mean, before) is frozen
        assert all(p.grad is None for p in model.backbone.parameters())
        assert all(p.grad is not None for p in model.scale_blocks.parameters())


def test_patches_may_have_the_blocks_that_the_paper_draws() -> None:
    torch.manual_seed(0)
    model: Any = DuoFormer(**SMALL, patch_block="transformer").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = model.tokenise(model.backbone(x)).flatten(0, 1) + model.scale_positions
        for block in model.scale_blocks:
            tokens = block(tokens)
        z = torch.cat([model.class_token.expand(2, -1, -1), tokens[:, 0].unflatten(0, (2, 4))], 1) + model.positions
        for block in model.patch_blocks:
            z = z + block.attention(block.norm1(z))
            z = z + block.mlp(block.norm2(z))
        torch.testing.assert_close(model(x), model.head(z[:, 0]))


def official(model: DuoFormer, indexed: bool) -> dict[str, Tensor]:
    state = {official_name(name, indexed): tensor for name, tensor in model.state_dict().items()}
    if "channel_token" in state:
        state["channel_token"] = state["channel_token"][None]
    name = "vision_transformer.pos_embed_for_scale"
    state[name] = state[name][None]
    return state


def test_a_checkpoint_of_another_size_is_read() -> None:
    source = randomised(img_size=96)
    state = {**official(source, True), "vision_transformer.fc_norm.weight": torch.zeros(16)}
    loaded: Any = medvision.load_official("duoformer", {"model_state_dict": state}, **SMALL)
    assert torch.equal(loaded.positions[:, 0], source.positions[:, 0]) and loaded.positions.shape == (1, 5, 16)
    assert torch.equal(loaded.token, source.token)
    same: Any = medvision.load_official("duoformer", state, **{**SMALL, "img_size": 96})
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(same(x), source(x)) and not torch.allclose(source(x)[0], source(x)[1], atol=1e-2)


def test_the_name_of_the_backbone_decides_the_names_of_the_entries() -> None:
    model = DuoFormer(**{**SMALL, "backbone": "r50"})
    state = official(model, False)
    assert "resnet_projector.layer3.0.downsample.1.running_var" in state
    medvision.load_official("duoformer", state, **{**SMALL, "backbone": "r50_BT"})
    with pytest.raises(InputError, match=r"missing \d+ \(resnet_projector.0.weight, .* unexpected"):
        medvision.load_official("duoformer", state, **{**SMALL, "backbone": "r50"})
    assert "resnet_projector.6.0.downsample.1.running_var" in official(model, True)


def test_a_narrower_resnet_has_fewer_channels_and_a_published_one_keeps_its_own():
    narrow = DuoFormer(**SMALL, backbone_width=12)
    assert (
        tuple(narrow.backbone.channels) == (12, 24, 48, 96) == tuple(level["num_chs"] for level in narrow.feature_info)
    )
    with torch.inference_mode():
        assert narrow.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert DuoFormer(**narrow.arguments).backbone.channels == narrow.backbone.channels
    with pytest.raises(ValueError, match="only with r18"):
        DuoFormer(**{**SMALL, "backbone": "resnet10t", "backbone_width": 12})
    with pytest.raises(ValueError, match="backbone_width is 0"):
        DuoFormer(**SMALL, backbone_width=0)
