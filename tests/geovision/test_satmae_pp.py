import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import geovision
from geovision.models.satmae_pp import (
    GroupMaskedAutoencoder,
    GroupVisionTransformer,
    MaskedAutoencoder,
    VisionTransformer,
    encoder_of,
    is_pretrained_encoder,
)
from geovision.models.satmae_pp_autoencoder import Reconstruction
from geovision.models.satmae_pp_names import official_name
from geovision.models.satmae_pp_trunk import SENTINEL_GROUPS
from shared_backbones.blocks import embeddings
from shared_backbones.blocks.embeddings import frequencies
from shared_backbones.errors import InputError
from tests.parity.seeded import Fixture, read_fixture
from tests.parity.stages import Stages, forms

CASES = {
    "mae-rgb-small": "satmae_pp_mae_rgb",
    "mae-group-small": "satmae_pp_mae_group",
    "vit-group-small": "satmae_pp_vit_group",
    "mae-rgb-vitl-224": "satmae_pp_mae_rgb",
    "mae-group-vitl-96": "satmae_pp_mae_group",
}


def load(case: str, fixture: Fixture) -> Any:
    factory = fixture.meta["class"].rpartition(".")[2]
    variant = {"variant": factory} if factory.startswith("mae_vit") else {}
    return geovision.load_official(CASES[case], fixture.state(), **fixture.meta["kwargs"], **variant)


@pytest.mark.parametrize("case", list(CASES))
def test_equals_the_official_network(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = read_fixture(f"satmae_pp-{case}")
    if case == "mae-group-small":
        monkeypatch.setattr(embeddings, "frequencies", official_frequencies)
    model = load(case, fixture)
    assert not model.training
    with torch.inference_mode():
        for form, dtype in forms(model, double="vitl" not in case):
            check(fixture, form, dtype)
        stages = record_stages(model, fixture)
        check(fixture, model, torch.float32)
    stages.assert_equal(fixture)


def official_frequencies(width: int) -> np.ndarray:
    """As the machine of this fixture had them: its float32 power was 0.75 of a last digit off in one place."""
    found = frequencies(width)
    if width == 12:
        found[1] = np.float32(1) / np.nextafter(np.float32(1) / found[1], np.float32(0))
    return found


def check(fixture: Fixture, form: Any, dtype: torch.dtype) -> None:
    x = torch.from_numpy(fixture.input()).to(dtype)
    if "mask" not in fixture.arrays:
        fixture.assert_output(form(x))
        return
    targets = [
        torch.from_numpy(fixture.extra_input(n)).to(dtype)
        for n in ("imgs_up_2x", "imgs_up_4x")[: len(form.multiscale.blocks)]
    ]
    noise = torch.from_numpy(fixture.extra_input("mask_noise"))
    found = form(x, *targets, mask_ratio=fixture.meta["mask_ratio"], noise=noise)
    assert isinstance(found, Reconstruction)
    fixture.assert_output(found.prediction)
    np.testing.assert_array_equal(found.mask, fixture.arrays["mask"])
    losses = [float(found.reconstruction_loss), float(found.multiscale_loss), float(found.loss)]
    np.testing.assert_allclose(losses, fixture.arrays["loss"], rtol=1e-12 if dtype == torch.float64 else 1e-6)


def record_stages(model: Any, fixture: Fixture) -> Stages:
    stages = Stages()
    grouped = model.trunk.groups is not None
    wanted = {key.removeprefix("stage_") for key in fixture.arrays if key.startswith("stage_")}
    stages.keep(
        model.trunk.patch_embeddings[0],
        "patch_embed_0" if grouped else "patch_embed",
        lambda x: x.flatten(2).transpose(1, 2),
    )
    for number, block in enumerate(model.trunk.blocks):
        if f"blocks_{number}" in wanted:
            stages.keep(block, f"blocks_{number}")
    if "fc_norm" in wanted:
        stages.keep(model.norm, "fc_norm")
        return stages
    stages.keep(model.norm, "norm")
    stages.keep(model.decoder_embedding, "decoder_embed")
    for number, block in enumerate(model.decoder_blocks):
        if f"decoder_blocks_{number}" in wanted:
            stages.keep(block, f"decoder_blocks_{number}")
    stages.keep(model.decoder_norm, "decoder_norm")
    stages.keep(model.multiscale.norm, "proj_up_norm")
    for number, block in enumerate(model.multiscale.blocks, 1):
        stages.keep(block.output, f"up_block{number}_pred" if grouped else "up_block_pred")
    return stages


BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12}


@pytest.mark.parametrize(
    ("network", "arguments", "total", "trainable", "encoder"),
    [
        (MaskedAutoencoder, BASE, 111.91, 111.66, 85.80),
        (MaskedAutoencoder, {}, 329.55, 329.24, 303.30),
        (GroupMaskedAutoencoder, BASE, 111.74, 111.61, 85.63),
        (GroupMaskedAutoencoder, {}, 329.33, 329.16, 303.08),
    ],
)
def test_the_autoencoders_have_their_sizes(
    network: Any, arguments: dict[str, int], total: float, trainable: float, encoder: float
) -> None:
    with torch.device("meta"):
        model = network(**arguments)

    def millions(*tensors: Any) -> float:
        return round(sum(tensor.numel() for part in tensors for tensor in part) / 1e6, 2)

    # the tables are parameters without gradients in the released code, and buffers here
    assert millions(model.parameters(), model.buffers()) == total
    assert millions(p for p in model.parameters() if p.requires_grad) == millions(model.parameters()) == trainable
    trunk, norm = model.trunk, model.norm
    assert millions(trunk.parameters(), trunk.buffers(), norm.parameters()) == encoder


@pytest.mark.parametrize(
    ("network", "arguments", "total"),
    [
        (VisionTransformer, BASE, 85.85),
        (VisionTransformer, {}, 303.37),
        (GroupVisionTransformer, BASE, 85.67),
        (GroupVisionTransformer, {}, 303.15),
    ],
)
def test_the_vision_transformers_have_their_sizes(network: Any, arguments: dict[str, int], total: float) -> None:
    with torch.device("meta"):
        model = network(**arguments, num_classes=62)
    assert round(sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6, 2) == total


VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
MAE = {**VIT, "decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
GROUPS = {"in_chans": 4, "channel_groups": [[0, 2], [1, 3]], "channel_embed": 4}


def plain(**changes: Any) -> Any:
    torch.manual_seed(0)
    return MaskedAutoencoder(**{**MAE, **changes})


def grouped(**changes: Any) -> Any:
    torch.manual_seed(0)
    return GroupMaskedAutoencoder(**{**MAE, **GROUPS, "decoder_channel_embed": 4, **changes})


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("make", [plain, grouped])
def test_any_number_of_scales_is_reconstructed(make: Any, scales: int) -> None:
    model = make(scales=scales).eval()
    x = torch.randn(2, model.trunk.in_chans, 32, 32)
    targets = [F.interpolate(x, scale_factor=2 ** (s + 1)) for s in range(scales)]
    noise = torch.rand(2, 16 if make is plain else 32)
    with torch.no_grad():
        whole = model(x, *targets, noise=noise)
        images = model.multiscale(model.to_images(whole.prediction), scales)
        parts = [(a - b).abs().mean() for a, b in zip(images, targets, strict=True)]
        torch.testing.assert_close(whole.multiscale_loss, torch.stack(parts).mean())
        expected = 0.6 * whole.reconstruction_loss + 0.4 * whole.multiscale_loss
        torch.testing.assert_close(whole.loss, expected)
        fewer = model(x, *targets[:-1], noise=noise)
    assert torch.equal(fewer.prediction, whole.prediction)
    if scales == 1:
        assert fewer.multiscale_loss == 0 and fewer.loss == fewer.reconstruction_loss
    else:
        torch.testing.assert_close(fewer.multiscale_loss, torch.stack(parts[:-1]).mean())
    with pytest.raises(ValueError, match=f"{scales + 1} upscaled targets: expected {scales} or fewer"):
        model(x, *targets, x)
    with pytest.raises(ValueError, match=r"upscaled target of shape \(2, \d, 32, 32\): expected \(2, \d, 64, 64\)"):
        model(x, x)


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 32), (0.5, 16), (0.75, 8), (0.9, 3)])
def test_the_smallest_noise_is_kept_over_all_groups(ratio: float, kept: int) -> None:
    model = grouped().eval()
    x, noise = torch.randn(3, 4, 32, 32), torch.rand(3, 32)
    with torch.no_grad():
        mask = model(x, mask_ratio=ratio, noise=noise).mask
    assert mask.shape == (3, 2, 16)
    for row, values in zip(mask.flatten(1), noise, strict=True):
        assert (row == 0).sum() == kept
        assert set(torch.nonzero(row == 0)[:, 0].tolist()) == set(values.argsort()[:kept].tolist())


def test_a_place_can_be_removed_in_all_groups_together() -> None:
    model = grouped(spatial_mask=True).eval()
    x, noise = torch.randn(2, 4, 32, 32), torch.rand(2, 16)
    with torch.no_grad():
        mask = model(x, noise=noise).mask
    assert torch.equal(mask[:, 0], mask[:, 1]) and (mask[:, 0] == 0).sum() == 8
    with pytest.raises(ValueError, match=r"noise of shape \(2, 32\): expected \(2, 16\)"):
        model(x, noise=torch.rand(2, 32))


def test_removed_patches_leave_no_trace() -> None:
    model = grouped().eval()
    x, noise = torch.randn(1, 4, 32, 32), torch.rand(1, 32)
    with torch.no_grad():
        before = model(x, noise=noise)
        changed = x.clone()
        group, place = torch.nonzero(before.mask[0])[0].tolist()
        row, column = 8 * (place // 4), 8 * (place % 4)
        for band in GROUPS["channel_groups"][group]:
            changed[:, band, row : row + 8, column : column + 8] += 5
        after = model(changed, noise=noise)
    assert torch.equal(after.prediction, before.prediction)
    assert after.reconstruction_loss > before.reconstruction_loss


@pytest.mark.parametrize("make", [plain, grouped])
def test_a_perfect_prediction_has_no_loss(make: Any) -> None:
    model = make()
    x = torch.randn(2, model.trunk.in_chans, 32, 32)
    mask = torch.ones(2, 16) if make is plain else torch.ones(2, 2, 16)
    patches = x.unflatten(3, (4, 8)).unflatten(2, (4, 8))  # (B, C, rows, 8, columns, 8)
    if make is plain:
        prediction = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    else:
        prediction = patches.permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)
    assert float(model._reconstruction_loss(x, prediction, mask)) == 0
    torch.testing.assert_close(model.to_images(prediction), x)
    model.norm_pix_loss = True
    flat = prediction if make is plain else prediction.transpose(1, 2).flatten(2)
    scaled = (flat - flat.mean(-1, keepdim=True)) / (flat.var(-1, keepdim=True) + 1e-6).sqrt()
    scaled = scaled if make is plain else scaled.unflatten(2, (4, 64)).transpose(1, 2)
    assert float(model._reconstruction_loss(x, scaled, mask)) < 1e-10


def test_a_group_s_error_counts_where_its_own_tokens_were_removed() -> None:
    model = grouped()
    x = torch.zeros(1, 4, 32, 32)
    mask = torch.zeros(1, 2, 16)
    mask[0, 1, 3] = 1
    prediction = torch.zeros(1, 4, 16, 64)
    prediction[0, 0, 3] = 9  # band 0 is of the other group
    prediction[0, 3, 3] = 2
    assert float(model._reconstruction_loss(x, prediction, mask)) == 2.0  # the mean of 4 and 0 over bands 1 and 3


def test_images_are_encoded_whole_for_embeddings() -> None:
    model = plain().eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.forward_features(x)
        assert tokens.shape == (2, 17, 16)
        kept = torch.arange(16).expand(2, -1)
        torch.testing.assert_close(
            model._encode(model.trunk.embed(x).gather(1, kept[..., None].expand(-1, -1, 16))), tokens
        )


def test_fine_tuning_starts_from_the_autoencoder() -> None:
    for make, network, arguments in (
        (plain, VisionTransformer, {}),
        (grouped, GroupVisionTransformer, GROUPS),
    ):
        source = make()
        state = {official_name(name, make is grouped): tensor for name, tensor in source.state_dict().items()}
        for given in (source, {"model": state}):
            torch.manual_seed(1)
            model: Any = network(**VIT, **arguments, num_classes=5, global_pool=False)
            model.load_autoencoder(given)
            assert torch.equal(model.trunk.blocks[1].mlp.fc1.weight, source.trunk.blocks[1].mlp.fc1.weight)
            assert torch.equal(model.trunk.positions, source.trunk.positions)
            assert float(model.head.weight.detach().std()) < 4e-5
            x = torch.randn(1, model.trunk.in_chans, 32, 32)
            # the class token's position row is zero, so the tokens start equal
            model.norm.load_state_dict(source.norm.state_dict())
            with torch.no_grad():
                torch.testing.assert_close(model.forward_features(x), source.eval().forward_features(x))
        larger: Any = network(**{**VIT, "img_size": (48, 64)}, **arguments, num_classes=5)
        larger.load_autoencoder(source)
        assert larger.trunk.positions.shape[1] == 1 + 6 * 8
        with pytest.raises(InputError, match=r"has shape|missing"):
            network(
                **{**VIT, **GROUPS, "channel_groups": [[0], [1, 2, 3]]} if arguments else {**VIT, "in_chans": 4}
            ).load_autoencoder(source)


@pytest.mark.parametrize("make", ["plain", "grouped"])
def test_an_encoder_alone_has_the_autoencoders_tokens_and_can_be_fine_tuned(make: str) -> None:
    source: Any = {"plain": plain, "grouped": grouped}[make]().eval()
    torch.nn.init.normal_(source.norm.weight)
    encoder: Any = encoder_of(source)
    assert encoder.num_classes == 0
    x = torch.randn(2, source.trunk.in_chans, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.forward_features(x), source.forward_features(x))
    model: Any = type(encoder)(**{**encoder.arguments, "num_classes": 5, "img_size": 48})
    model.load_autoencoder(encoder)
    assert torch.equal(model.trunk.blocks[1].mlp.fc1.weight, source.trunk.blocks[1].mlp.fc1.weight)
    assert [is_pretrained_encoder(network) for network in (source, encoder, model)] == [True, True, False]


@pytest.mark.parametrize("pool", [True, False, "avg", "token"])
def test_what_the_classifier_sees(pool: bool | str) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(**VIT, num_classes=5, global_pool=pool).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.trunk.attend(model.embed(x)[0])[0]
        averaged = pool in {True, "avg"}
        feature = model.norm(tokens[:, 1:].mean(1)) if averaged else model.norm(tokens)[:, 0]
        torch.testing.assert_close(model(x), model.head(feature))


def test_official_files_are_read_with_their_options_and_without_their_tables(tmp_path: Path) -> None:
    source = grouped(scales=2)
    state = {official_name(name, True): tensor for name, tensor in source.state_dict().items()}
    assert {"decoder_channel_embed", "up_block2.res_block.conv1.weight", "patch_embed.1.proj.bias"} <= set(state)
    options = argparse.Namespace(lr=1e-3, dropped_bands=[0, 9, 10], device=None)
    torch.save({"model": state, "optimizer": {"state": {}}, "epoch": 9, "args": options}, tmp_path / "checkpoint.pth")
    arguments = {**MAE, **GROUPS, "decoder_channel_embed": 4}
    loaded = geovision.load_official("satmae_pp_mae_group", tmp_path / "checkpoint.pth", **arguments)
    tables = ("pos_embed", "channel_embed")
    bare = geovision.load_official(
        "satmae_pp_mae_group", {n: t for n, t in state.items() if not n.endswith(tables)}, **arguments
    )
    for name, tensor in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor) and torch.equal(bare.state_dict()[name], tensor)
    with pytest.raises(InputError, match=r"unexpected \d+ \(channel_embed, decoder_channel_embed"):
        geovision.load_official("satmae_pp_mae_rgb", state, **MAE)


def test_a_fine_tuned_transformer_is_read_at_another_size() -> None:
    torch.manual_seed(0)
    source: Any = GroupVisionTransformer(**VIT, **GROUPS, num_classes=5)
    torch.nn.init.normal_(source.class_code)
    state: dict[str, Tensor] = {official_name(n, True, True): t for n, t in source.state_dict().items()}
    assert {"channel_cls_embed", "fc_norm.weight", "head.bias"} <= set(state) and "norm.weight" not in state
    arguments = {**VIT, **GROUPS, "num_classes": 5}
    same = geovision.load_official("satmae_pp_vit_group", state, **arguments)
    larger: Any = geovision.load_official("satmae_pp_vit_group", state, **{**arguments, "img_size": 64})
    x = torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(same(x), source.eval()(x))
        assert larger(torch.randn(1, 4, 64, 64)).shape == (1, 5)
    assert torch.equal(larger.trunk.positions[:, 0], source.trunk.positions[:, 0])
    with pytest.raises(InputError, match=r"variant 'vit_huge' is unknown; known: vit_base_patch16, vit_large_patch16"):
        geovision.load_official("satmae_pp_vit_group", state, variant="vit_huge")


def test_the_sentinel_groups_hold_the_released_bands() -> None:
    assert SENTINEL_GROUPS == ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
