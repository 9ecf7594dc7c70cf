"""The program from outside: what it imports, exit codes of the process, and the models it knows."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from apps.cli.shared.doctor_command import commit
from medvision.models.catalogue import bundled_models
from shared_backbones.card import read_card
from tests.conftest import ROOT
from tests.medvision.phantoms import make_affine, make_labels, write_scan

HEAVY = {"torch", "numpy", "scipy", "nibabel", "PIL", "jinja2"}
FOREIGN = {
    *("monai", "lightning", "torchmetrics", "mlflow", "torchvision", "timm", "segmentation_models_pytorch", "pandas"),
    *("albumentations", "yaml", "sklearn", "skimage", "cv2", "matplotlib"),
}


def start(arguments, setup="", after="") -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, with code to run before and after it."""
    program = ["from apps.cli.medvision.program import main", "try: main()", "finally:", f"    {after or 'pass'}"]
    line = f"sys.argv = ['medvision', *{[str(argument) for argument in arguments]!r}]"
    code = "\n".join(["import sys", line, setup, *program])
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models", "list"], ["segment", "--help"]])
def test_what_is_light_imports_nothing_heavy(arguments):
    done = start(arguments, after=f"print('loaded', *sorted({HEAVY | FOREIGN!r} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded"


def test_a_whole_run_imports_nothing_foreign(model, tmp_path):
    affine = make_affine(spacing=(4, 4, 4))
    scan = write_scan(tmp_path / "a.nii.gz", affine=affine)
    truth = write_scan(tmp_path / "t.nii.gz", make_labels(), affine)
    options = ["-i", scan, "--model", model, "--reference", truth, "--save-probabilities", "--device", "cpu"]
    done = start(
        ["segment", *options],
        setup="import pipelines.report.segmentation as report; report._LONGEST_SIDE = 24",
        after=f"print('loaded', *sorted({FOREIGN!r} & set(sys.modules)))",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded"
    assert len(list(tmp_path.iterdir())) == 7


def test_exit_codes_of_the_process():
    refused = start(["models", "show", "nix"])
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    broken = start(
        ["models", "list"], setup="import shared_backbones.catalogue as c; c.Catalogue.model_card = lambda *_: 1/0"
    )
    assert broken.returncode == 1
    assert broken.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_a_reader_that_leaves_is_no_bug():
    read, write = os.pipe()
    os.close(read)
    command = [Path(sys.executable).with_name("medvision"), "models", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--version"], ["segment", "--version"]])
def test_version(medvision, arguments):
    done = medvision(*arguments)
    made = f", commit {commit()}" if commit() else ""
    expected = f"medvision (domain-vision {version('domain-vision')}{made})\n"
    assert (done.code, done.out, done.err) == (0, expected, "")


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["models", "show", "--help"]])
def test_help(medvision, arguments):
    done = medvision(*arguments)
    assert (done.code, done.err) == (0, "")
    assert "Usage: medvision" in done.out


def test_models_are_listed(medvision):
    cards = {name: read_card(folder) for name, folder in bundled_models().items()}
    assert "brain-structures" in cards
    listed = medvision("models", "list")
    assert listed.code == 0
    lines = iter(listed.out.splitlines())
    for name, card in cards.items():
        line, about = next(lines), card["input"]
        takes = about["modality"] if "modality" in about else ", ".join(about["bands"])  # of a classifier
        size = f"{(bundled_models()[name] / 'model.safetensors').stat().st_size / 1e6:.1f} MB"
        assert all(text in line for text in (name, card["version"], card["license"], size, takes, card["description"]))
        if "headline" in card["metrics"]:
            assert next(lines).strip() == card["metrics"]["headline"]
    assert not list(lines)
    assert json.loads(medvision("models", "list", "--json").out) == list(cards.values())


def test_a_model_is_shown(medvision, model):
    for name, card in (
        ("brain-structures", read_card(bundled_models()["brain-structures"])),
        (model, read_card(model)),
    ):
        assert json.loads(medvision("models", "show", name, "--json").out) == card
        shown = medvision("models", "show", name)
        assert shown.code == 0
        words = " ".join(shown.out.split())
        for text in (card["weights_sha256"], card["description"], "1 cerebral_white_matter", *card["limits"]):
            assert text in words
        assert str(card["input"]["spacing_mm"]) in words
        assert not set(words) & set("[]{}"), "Python's own notation"
    absent = medvision("models", "show", "nix")
    assert (absent.code, absent.out) == (2, "")
    assert absent.error.startswith("error: model nix: ")
