"""What every test shares: the real data, and limits that keep runs alike on every machine."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from shared_backbones.memory import set_budget
from tests.needs import missing, required
from tests.skips import skipped_line

# Set before anything imports torch, and inherited by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

settings.register_profile("suite", deadline=None, max_examples=30, derandomize="CI" in os.environ)
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parent.parent

_STORE = os.environ.get("MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True)
def no_store_of_another_test() -> Iterator[None]:
    """MLflow keeps the address it was last given in the environment, where the next test would write to that store."""
    yield
    if _STORE is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = _STORE


@pytest.fixture(autouse=True)
def no_budget_of_another_test() -> Iterator[None]:
    """Programs choose the budget of their process; the next test starts with that of the machine."""
    yield
    set_budget(None)


@pytest.fixture(autouse=True)
def no_trials_of_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which layers run from packed weights depends on the machine: none do, but where a test asks for it."""
    monkeypatch.setattr("shared_backbones.packing._choice", lambda kind, decide: False)
    monkeypatch.setattr("shared_backbones.packing._chosen", {})


@pytest.fixture
def all_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer that can run from packed weights does."""
    monkeypatch.setattr("shared_backbones.packing._choice", lambda kind, decide: True)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data: DOMAIN_VISION_DATA, or `../shared/data` seen from the checkout.

    Where it is absent the test is skipped, or fails where DOMAIN_VISION_REQUIRE names data.
    """
    folder = Path(os.environ.get("DOMAIN_VISION_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        missing("data", f"no real data at {folder}; set DOMAIN_VISION_DATA to its folder")
    return folder


def pytest_configure() -> None:
    required()  # an unknown word ends the run before its first test
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of what a shell starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the skipped tests in the file of DOMAIN_VISION_SKIPPED; the processes of xdist report to this one."""
    path = os.environ.get("DOMAIN_VISION_SKIPPED")
    if path:
        Path(path).write_text(skipped_line(terminalreporter.stats.get("skipped", [])))
