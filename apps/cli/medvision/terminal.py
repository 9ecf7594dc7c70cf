"""What `medvision segment` prints: a bar or lines while it works, and lines for each scan."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NotRequired, TypedDict

from shared_backbones.terminal import say

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from medvision.findings.sidecar import Sidecar

_PATIENCE = 10.0  # seconds that work may last without a word


class ScanResult(TypedDict):
    """What became of one scan, as `--json` prints it.

    Attributes:
        input: the scan's path.
        status: `done`, `skipped` or `failed`.
        outputs: paths of the results by kind, where there are some.
        error: why it failed, in one line.
        changed: files of results that were there already and had been changed since.
        case: what a scan of a batch is called where its file's name must not appear.
        seconds: time it took, where it is done.
        sidecar: content of the side-car, where it is done.
    """

    input: str
    status: str
    outputs: NotRequired[dict[str, str]]
    error: NotRequired[str]
    changed: NotRequired[list[str]]
    case: NotRequired[str]
    seconds: NotRequired[float]
    sidecar: "NotRequired[Sidecar]"


class Progress:
    """Shows how far a scan is: nothing, as this class; its subclasses a bar, or lines."""

    def stage(self, name: str) -> None:
        """Say what begins."""

    def __call__(self, done: int, total: int) -> None:
        """Say how many of the network's slices are done."""


class _Lines(Progress):
    """A line for each stage, and now and then one of the network's, once the work has lasted for `_PATIENCE`."""

    def __init__(self, name: str) -> None:
        self._name, self._began, self._said = name, time.monotonic(), time.monotonic()

    def stage(self, name: str) -> None:
        if time.monotonic() - self._began >= _PATIENCE:
            self._say(name)

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._said >= _PATIENCE:
            self._say(f"segmenting, {done} of {total} slices")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        say(f"{self._name}: {text}", file=sys.stderr, flush=True)


class _Bar(Progress):
    """A bar, as long as it stands."""

    def __init__(self, bar: "RichProgress", name: str) -> None:
        self._bar, self._name, self._task = bar, name, bar.add_task(name, total=None)

    def stage(self, name: str) -> None:
        self._bar.update(self._task, description=f"{self._name}: {name}")

    def __call__(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)


@contextmanager
def progress_of(name: str, *, shown: bool) -> Iterator[Progress]:
    """How far a scan is: a bar on a terminal; elsewhere a line for each stage of work that lasts."""
    if not (shown and sys.stderr.isatty()):
        yield _Lines(name) if shown else Progress()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as RichProgress

    with RichProgress(console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, escape(name))


def print_result(result: ScanResult, prefix: str, *, quiet: bool, verbose: bool) -> None:
    """Print one line, and where there is only one scan or details are asked for, what belongs to it."""
    if "error" in result:
        say(f"{prefix}error: {result['error']} ({result.get('case')})", file=sys.stderr, flush=True)
        return
    if quiet:
        return
    if "sidecar" not in result or "seconds" not in result:
        since = [f"{path} was changed since and is kept" for path in result.get("changed", ())]
        say(f"{prefix}{result['input']}: {'; '.join(['skipped, its results are there already', *since])}", flush=True)
        return
    sidecar = result["sidecar"]
    say(f"{prefix}{result['input']}: {'; '.join(_remarks(sidecar, result['seconds']))}", flush=True)
    for warning in sidecar["warnings"]:
        say(f"{prefix}warning: {warning}", file=sys.stderr, flush=True)
    if verbose or not prefix:
        for kind, path in result.get("outputs", {}).items():
            say(f"  {kind:14}{path}")
        flags = Counter(flag["code"].replace("_", " ") for flag in sidecar["flags"])
        if flags:
            say(f"  {'flags':14}{', '.join(f'{code} {count}' for code, count in flags.items())}")
    if verbose:
        _print_structures(sidecar)
        _print_reference(sidecar)
        say("  " + ", ".join(f"{step} {seconds:.2f} s" for step, seconds in sidecar["timings_s"].items()))


def _remarks(sidecar: "Sidecar", seconds: float) -> list[str]:
    remarks = [f"segmented in {seconds:.1f} s"]
    dice = sidecar["reference"]["summary"]["dice"] if "reference" in sidecar else None
    if dice is not None:
        remarks.append(f"mean Dice {dice:.3f}")
    if sidecar["flags"]:
        remarks.append(f"{len(sidecar['flags'])} quality flag{'s' * (len(sidecar['flags']) > 1)}")
    return [*remarks, sidecar["case"]]


def _print_structures(sidecar: "Sidecar") -> None:
    say(f"  {'id':>3} {'structure':26}{'voxels':>10}{'mL':>16}{'confidence':>12}")
    for row in sidecar["structures"]:
        volume = row["reasons"].get("volume_ml", "").replace("_", " ") or f"{row['volume_ml']:.2f}"
        score = "-" if row["mean_confidence"] is None else f"{row['mean_confidence']:.2f}"
        say(f"  {row['id']:3} {row['name'].replace('_', ' '):26}{row['voxels']:>10}{volume:>16}{score:>12}")


def _print_reference(sidecar: "Sidecar") -> None:
    if "reference" not in sidecar:
        return
    say(f"  {'id':>3} {'structure':26}{'state':>16}{'Dice':>8}{'HD95 mm':>10}{'NSD':>8}")
    for row in sidecar["reference"]["rows"]:
        figures = (row["dice"], row["hd95_mm"], row["nsd"])
        dice, hd95, nsd = ("-" if figure is None else f"{figure:.3f}" for figure in figures)
        state = row["state"].replace("_", " ")
        say(f"  {row['id']:3} {row['name'].replace('_', ' '):26}{state:>16}{dice:>8}{hd95:>10}{nsd:>8}")
