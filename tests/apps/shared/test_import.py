"""Official checkpoints turned into trained-model folders from the command line."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from apps.cli.astrovision import program as astrovision
from apps.cli.geovision import program as geovision
from apps.cli.medvision import program as medvision
from apps.cli.shared.program import run
from shared_backbones import weights
from tests.apps.conftest import Outcome
from tests.astrovision.test_astroformer import official as astroformer_state
from tests.medvision.models.test_hbformer import SMALL as HBFORMER
from tests.medvision.models.test_hbformer import randomised, small_official_state
from tests.parity.seeded import read_fixture


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(domain: str, *arguments: object) -> Outcome:
        capsys.readouterr()
        apps = {"medvision": medvision.app, "geovision": geovision.app, "astrovision": astrovision.app}
        code = run(apps[domain], [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def words(arguments: dict) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in arguments.items()]


def test_a_checkpoint_becomes_a_model_folder(program: Callable[..., Outcome], tmp_path: Path) -> None:
    model = randomised()
    torch.save({"state_dict": small_official_state(model)}, tmp_path / "best.pth")
    options = ["--architecture", "hbformer", "--checkpoint", tmp_path / "best.pth", "-o", tmp_path / "out"]
    done = program("medvision", "import", *options, *words(HBFORMER))
    assert done.code == 0 and "out, hbformer" in done.out and done.err == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.safetensors"]
    loaded = weights.load(tmp_path / "out")
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.module(x), model(x))
    digest = hashlib.sha256((tmp_path / "best.pth").read_bytes()).hexdigest()
    assert loaded.card["training"] == {"source": "official checkpoint", "checkpoint_sha256": digest}
    assert loaded.card["name"] == "out" and loaded.card["license"] == "unknown"
    shown = program("medvision", "models", "show", tmp_path / "out")
    assert shown.code == 0 and "hbformer" in shown.out
    refused = program("medvision", "segment", "-i", tmp_path / "best.pth", "--model", tmp_path / "out")
    assert refused.code == 2  # it says nothing of how volumes become its input
    again = program("medvision", "import", *options, *words(HBFORMER))
    assert again.code == 2 and "already there" in again.error


def test_another_domain_s_checkpoint_and_a_dict_argument(program: Callable[..., Outcome], tmp_path: Path) -> None:
    from astrovision.models.astroformer import Astroformer

    sizes = {"embed_dim": [8, 16, 32, 64], "depths": [1, 1, 1, 1], "stem_width": 8, "head_hidden_size": 16}
    model = Astroformer(5, img_size=64, **sizes)
    torch.save(astroformer_state(model), tmp_path / "model_best.pth.tar")
    options = ["--architecture", "astroformer", "--checkpoint", tmp_path / "model_best.pth.tar", "-o", tmp_path / "out"]
    done = program("astrovision", "import", *options, *words({"cfg": sizes, "num_classes": 5, "img_size": 64}))
    assert done.code == 0, done.err
    assert weights.read_card(tmp_path / "out")["arguments"]["head_hidden_size"] == 16


@pytest.mark.parametrize(
    ("domain", "arguments", "parts"),
    [
        (
            "medvision",
            ["--architecture", "astroformer"],
            ["'astroformer' is a network of astrovision", "run `astrovision import`"],
        ),
        ("geovision", ["--architecture", "satmae_pp_vit_rgb", "depth=two"], ["satmae_pp_vit_rgb", "fix them"]),
        ("geovision", ["--architecture", "satmae_pp_vit_rgb", "deep=2"], ["unexpected keyword argument 'deep'"]),
        ("medvision", ["--architecture", "hbformer", "num_classes"], ["'num_classes'", "expected NAME=VALUE"]),
        ("medvision", ["--architecture", "hbformer", "img_size=64", "img_size=96"], ["img_size: given twice"]),
        ("medvision", ["--architecture", "hbformer", *words(HBFORMER)], ["missing", "unexpected 1 (other)"]),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    program: Callable[..., Outcome], tmp_path: Path, domain: str, arguments: list[str], parts: list[str]
) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "best.pth")
    done = program(domain, "import", "--checkpoint", tmp_path / "best.pth", "-o", tmp_path / "out", *arguments)
    assert done.code == 2 and not (tmp_path / "out").exists()
    for part in parts:
        assert part in done.error


def test_a_pickled_program_is_not_run(program: Callable[..., Outcome], tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"model": Planted()}, tmp_path / "best.pth")
    done = program(
        "medvision",
        "import",
        "--architecture",
        "hbformer",
        "--checkpoint",
        tmp_path / "best.pth",
        "-o",
        tmp_path / "out",
    )
    assert done.code == 2 and "holds other objects than tensors" in done.error
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("domain", ["geovision", "astrovision"])
def test_the_programs_say_their_version(program: Callable[..., Outcome], domain: str) -> None:
    done = program(domain, "--version")
    assert done.code == 0 and done.out.startswith(f"{domain} (domain-vision ")


@pytest.mark.parametrize("domain", ["medvision", "geovision"])
def test_weights_whose_licence_forbids_a_use_are_asked_for(
    program: Callable[..., Outcome], tmp_path: Path, domain: str
) -> None:
    fixture = read_fixture("vit_resnas-small-112")
    state = {name: torch.from_numpy(value) for name, value in fixture.state().items()}
    torch.save({"model": state}, tmp_path / "best.pth")
    options = ["--architecture", "vit_resnas", "--checkpoint", tmp_path / "best.pth", "-o", tmp_path / "out"]
    given = words({**fixture.meta["kwargs"], "average": True})
    refused = program(domain, "import", *options, *given)
    assert refused.code == 2 and not (tmp_path / "out").exists()
    assert "CC-BY-NC-4.0" in refused.error and "--accept-license" in refused.error
    done = program(domain, "import", *options, "--accept-license", *given)
    assert done.code == 0, done.err
    assert weights.read_card(tmp_path / "out")["license"] == "CC-BY-NC-4.0"
