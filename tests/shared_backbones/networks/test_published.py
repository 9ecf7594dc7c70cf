"""Networks of other authors give what the released code gives, with weights that are named after its entries."""

from pathlib import Path

import pytest
import torch

from shared_backbones import load_official
from tests.parity.seeded import read_fixture, standard_normal
from tests.parity.stages import forms

NETWORKS = ("cct", "crossformer", "cvt", "dhvt", "hornet", "msrnet", "resformer", "smt", "spectformer", "vit_comer")
FIXTURES = sorted(
    path.stem for path in (Path(__file__).parents[2] / "parity").glob("*.npz") if path.name.split("-")[0] in NETWORKS
)


@pytest.mark.parametrize("name", FIXTURES)
def test_equals_the_released_network(name: str) -> None:
    fixture = read_fixture(name)
    meta = fixture.meta
    variant = meta["class"].split(".")[-1]
    model = load_official(meta["model"], fixture.state(), variant=variant, **meta["kwargs"])
    assert not model.training
    inputs = [torch.from_numpy(fixture.input())]
    for how in meta.get("extra_inputs", {}).values():  # the same image at other sizes
        sides = [int(side * how["scale"]) for side in inputs[0].shape[2:]]
        inputs.append(torch.from_numpy(standard_normal(how["seed"], [*inputs[0].shape[:2], *sides])))
    with torch.inference_mode():
        for form, dtype in forms(model):
            output = form(*(image.to(dtype) for image in inputs))
            fixture.assert_output(output if isinstance(output, torch.Tensor) else output[0])


def test_every_network_has_a_fixture() -> None:
    assert {name.split("-")[0] for name in FIXTURES} == set(NETWORKS)
