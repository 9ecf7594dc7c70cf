"""A system without POSIX file locks, as native Windows."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

WITHOUT_LOCKS = "import sys; sys.modules['fcntl'] = None; "


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT_LOCKS + code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "module", ["apps.cli.medvision.program", "apps.cli.geovision.program", "apps.cli.astrovision.program", "apps.demo"]
)
def test_what_people_start_says_in_a_line_that_it_runs_in_wsl(module: str):
    done = python(f"import {module}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("error: native Windows is not supported") and "WSL 2" in done.stderr


def test_networks_are_there_all_the_same():
    models = ", ".join(f"{domain}.models" for domain in ("medvision", "geovision", "astrovision"))
    done = python(f"import {models}, timm; timm.create_model('medvitv2_tiny')")
    assert done.returncode == 0, done.stderr
