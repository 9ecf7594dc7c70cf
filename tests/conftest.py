"""What every test shares: the real data, and limits that keep runs alike on every machine."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Set before anything imports torch, and inherited by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

settings.register_profile("suite", deadline=None, max_examples=30, derandomize="CI" in os.environ)
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data: DOMAIN_VISION_DATA, or `../shared/data` seen from the checkout.

    Where it is absent the test is skipped, and fails under DOMAIN_VISION_REQUIRE=data.
    """
    folder = Path(os.environ.get("DOMAIN_VISION_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        reason = f"no real data at {folder}; set DOMAIN_VISION_DATA to its folder"
        if os.environ.get("DOMAIN_VISION_REQUIRE") == "data":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
