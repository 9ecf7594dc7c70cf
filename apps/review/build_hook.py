"""Builds the viewer of reports when a wheel or an editable install is made, where Node and npm are at hand."""

import shutil
import subprocess
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SECONDS = 180


class ViewerHook(BuildHookInterface):
    """What hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, bool | str | list[str]]) -> None:
        """Build what is missing or older than its sources; never fail, as reports do without."""
        root = Path(self.root)
        if viewer_is_built(root):
            return
        npm = shutil.which("npm") if shutil.which("node") else None
        if npm is None:
            self.app.display_warning("no Node and npm: reports will have no interactive viewer")
            return
        try:
            build_viewer(npm, root / "apps" / "review")
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"the viewer was not built, reports will do without: {error}")


def viewer_is_built(root: Path) -> bool:
    """Whether the built viewer is there and no older than what it is built from, or there is nothing to build from."""
    sources = root / "apps" / "review"
    built = root / "pipelines" / "report" / "assets" / "viewer.js.gz"
    names = ("package-lock.json", "build.mjs", "viewer.js", "LICENSE-niivue.txt")
    times = [(sources / name).stat().st_mtime for name in names if (sources / name).is_file()]
    return len(times) < len(names) or (built.is_file() and built.stat().st_mtime >= max(times))


def build_viewer(npm: str, sources: Path) -> None:
    """Fetch what the lock file names, checked by its hashes, and bundle it; no package's own script is run."""
    fetch = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000"]
    for command in (fetch, [npm, "run", "--silent", "build"]):
        subprocess.run(command, cwd=sources, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)  # noqa: S603 - fixed
