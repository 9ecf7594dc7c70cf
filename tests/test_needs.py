"""Tests that lack something of the machine: skipped and listed, or failing where it is required."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.needs import VARIABLE, Need, missing, required
from tests.skips import skipped_line

NEEDY = """
from tests.cluster.small_cluster import why_not
from tests.needs import missing
from tests.pipelines.report.browser import chromium

def test_data(data_root):
    raise AssertionError

def test_browser():
    with chromium():
        raise AssertionError

def test_cluster():
    missing("cluster", why_not())
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [("", set()), ("data", {"data"}), (" cluster,data ,", {"data", "cluster"}), ("browser,browser", {"browser"})],
)
def test_the_variable_is_a_list(text: str, words: set[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, text)
    assert required() == words


def test_without_the_variable_nothing_is_required(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert required() == set()


@pytest.mark.parametrize(
    ("need", "outcome"),
    [("data", pytest.fail.Exception), ("cluster", pytest.fail.Exception), ("browser", pytest.skip.Exception)],
)
def test_what_is_missing_fails_where_the_list_names_it(
    need: Need, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, "data,cluster")
    with pytest.raises(outcome, match="none is here"):
        missing(need, "none is here")


def bare_run(folder: Path, words: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Needy tests in a process of xdist that sees neither programs nor data; and where it names what it skipped."""
    (folder / "nothing").mkdir()
    (folder / "conftest.py").write_text(
        "from tests.conftest import data_root, pytest_configure, pytest_terminal_summary\n"
    )
    (folder / "test_needy.py").write_text(NEEDY)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "PATH": str(folder / "nothing"), "DOMAIN_VISION_DATA": str(folder / "absent"),
        VARIABLE: words, "DOMAIN_VISION_SKIPPED": str(folder / "skipped"),
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-ra", "--numprocesses=1", f"--rootdir={folder}", str(folder)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True), folder / "skipped"


def test_what_is_missing_and_not_required_is_skipped_and_listed(tmp_path: Path):
    done, skipped = bare_run(tmp_path, "")
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(
        r"3 skipped \[munged, [^]]* not installed[^]]*: test_needy.py::test_cluster\]"
        r" \[no Chromium on this machine[^]]*: test_needy.py::test_browser\]"
        r" \[no real data at [^]]*: test_needy.py::test_data\]",
        skipped.read_text(),
    )


def test_what_is_missing_and_required_fails(tmp_path: Path):
    done, skipped = bare_run(tmp_path, "data,browser,cluster")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "2 failed, 1 error" in done.stdout and skipped.read_text() == "0 skipped"
    for need in ("data", "browser", "cluster"):
        assert f"({VARIABLE} names {need})" in done.stdout


def test_an_unknown_word_ends_the_run_before_its_first_test(tmp_path: Path):
    done, skipped = bare_run(tmp_path, "data,chromium")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and not skipped.exists()
    assert f"{VARIABLE}: unknown chromium; known: data, browser, cluster" in done.stderr


def test_cases_that_share_a_reason_are_counted_and_a_whole_file_is_named():
    def report(test: str, reason: str) -> pytest.TestReport:
        return pytest.TestReport(test, ("t.py", 0, ""), {}, "skipped", ("t.py", 1, f"Skipped: {reason}"), "setup")

    reports = [report(f"t.py::a[{n}]", "no\n tea") for n in range(3)]
    reports += [report("t.py::b[x]", "no\n tea"), report("t.py::a[3]", "no milk")]
    collected = pytest.CollectReport("u.py", "skipped", ("u.py", 1, "Skipped: no tea"), None)
    assert skipped_line([*reports, collected]) == (
        "6 skipped [no milk: t.py::a] [no tea: t.py::a (3 cases), t.py::b, u.py]"
    )
