"""Where a run comes from, in MLflow's tags: the program, its version and commit; no host, person or folder."""

import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path


def source_tags(program: str, *, is_job: bool) -> dict[str, str]:
    """Name and kind of a run's source, under the names by which MLflow's pages show them.

    Args:
        program: Program with its arguments, without paths.
        is_job: Whether a scheduler started it.
    """
    return {"mlflow.source.name": program, "mlflow.source.type": "JOB" if is_job else "LOCAL"}


def environment_tags() -> dict[str, str]:
    """Versions, the commit of this suite where it runs from a checkout, and the kind of machine."""
    versions = {f"version.{package}": importlib.metadata.version(package) for package in ("domain-vision", "torch")}
    return {**versions, "version.python": platform.python_version(), "machine": platform.machine(), **_commit()}


def _commit() -> dict[str, str]:
    git, here = shutil.which("git"), Path(__file__)
    # an installed package may lie in somebody else's repository, whose commit says nothing of it
    if git is None or not _output(git, "-C", str(here.parent), "ls-files", here.name):
        return {}
    changed = _output(git, "-C", str(here.parent), "status", "--porcelain")
    return {
        "mlflow.source.git.commit": _output(git, "-C", str(here.parent), "rev-parse", "HEAD"),
        "mlflow.source.git.dirty": str(bool(changed)).lower(),
    }


def _output(*command: str) -> str:
    """What a program prints; nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - git, with fixed words
    return done.stdout.strip() if done.returncode == 0 else ""
