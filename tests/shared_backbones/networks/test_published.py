"""Networks of other authors give what the released code gives, with weights that are named after its entries."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared_backbones import load_official, optimize_for_inference
from tests.parity.seeded import read_fixture, seeded, standard_normal
from tests.parity.stages import forms

NETWORKS = ("cct", "crossformer", "cvt", "dhvt", "drct", "drsformer", "fcaformer", "hat", "hornet", "msrnet", "pem")
NETWORKS += ("resformer", "smt", "spectformer", "sret", "vit_comer", "vit_resnas")
FIXTURES = sorted(
    path.stem for path in (Path(__file__).parents[2] / "parity").glob("*.npz") if path.name.split("-")[0] in NETWORKS
)


@pytest.mark.parametrize("name", FIXTURES)
def test_equals_the_released_network(name: str) -> None:
    fixture = read_fixture(name)
    meta = fixture.meta
    variant = meta["class"].split(".")[-1]
    inputs = [torch.from_numpy(fixture.input())]
    for how in meta.get("extra_inputs", {}).values():  # the same image at other sizes
        sides = [int(side * how["scale"]) for side in inputs[0].shape[2:]]
        inputs.append(torch.from_numpy(standard_normal(how["seed"], [*inputs[0].shape[:2], *sides])))
    model = load_official(meta["model"], fixture.state(), variant=variant, **meta["kwargs"])
    assert not model.training
    with torch.inference_mode():
        for form, dtype in forms(model):
            output = form(*(image.to(dtype) for image in inputs))
            fixture.assert_output(output if isinstance(output, torch.Tensor) else output[0])


@pytest.mark.parametrize("name", [name for name in FIXTURES if "amp_scale_overrides" in read_fixture(name).meta])
def test_equals_the_released_network_where_all_its_depth_counts(name: str) -> None:
    fixture = read_fixture(name)
    meta = fixture.meta
    state, first = fixture.state(), meta.get("aliases", {})
    for own, shape in fixture.shapes.items():
        for ending, factor in meta["amp_scale_overrides"].items():
            if own.endswith(ending):  # multiplied before they are rounded to float32
                value = np.asarray(seeded(first.get(own, own), shape, 0.02), np.float64)
                state[own] = (value * factor).astype(np.float32)
    model: Any = load_official(meta["model"], state, variant=meta["class"].split(".")[-1], **meta["kwargs"])
    for dtype in (torch.float64, torch.float32):
        amplified = copy.deepcopy(model).to(dtype)
        with torch.inference_mode():
            for form in (amplified, optimize_for_inference(amplified)):
                fixture.assert_output(form(torch.from_numpy(fixture.input()).to(dtype)), amplified=True)


def test_every_network_has_a_fixture() -> None:
    assert {name.split("-")[0] for name in FIXTURES} == set(NETWORKS)
