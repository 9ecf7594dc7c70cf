"""What `medvision segment` prints: a bar while it works, and lines for each scan."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from medvision.findings.sidecar import Sidecar


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


@contextmanager
def progress_bar(name: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A callback for slices done and slices in all; a bar on a terminal, nothing elsewhere."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(name), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_result(result: ScanResult, prefix: str, *, quiet: bool, verbose: bool) -> None:
    """Print one line, and where there is only one scan or details are asked for, what belongs to it."""
    if "error" in result:
        print(f"{prefix}error: {result['error']} ({result.get('case')})", file=sys.stderr, flush=True)
        return
    if quiet:
        return
    if "sidecar" not in result or "seconds" not in result:
        since = [f"{path} was changed since and is kept" for path in result.get("changed", ())]
        print(f"{prefix}{result['input']}: {'; '.join(['skipped, its results are there already', *since])}", flush=True)
        return
    sidecar = result["sidecar"]
    print(f"{prefix}{result['input']}: {'; '.join(_remarks(sidecar, result['seconds']))}", flush=True)
    for warning in sidecar["warnings"]:
        print(f"{prefix}warning: {warning}", file=sys.stderr, flush=True)
    if verbose or not prefix:
        for kind, path in result.get("outputs", {}).items():
            print(f"  {kind:14}{path}")
        flags = Counter(flag["code"].replace("_", " ") for flag in sidecar["flags"])
        if flags:
            print(f"  {'flags':14}{', '.join(f'{code} {count}' for code, count in flags.items())}")
    if verbose:
        _print_structures(sidecar)
        _print_reference(sidecar)
        print("  " + ", ".join(f"{step} {seconds:.2f} s" for step, seconds in sidecar["timings_s"].items()))


def _remarks(sidecar: "Sidecar", seconds: float) -> list[str]:
    remarks = [f"segmented in {seconds:.1f} s"]
    dice = sidecar["reference"]["summary"]["dice"] if "reference" in sidecar else None
    if dice is not None:
        remarks.append(f"mean Dice {dice:.3f}")
    if sidecar["flags"]:
        remarks.append(f"{len(sidecar['flags'])} quality flag{'s' * (len(sidecar['flags']) > 1)}")
    return [*remarks, sidecar["case"]]


def _print_structures(sidecar: "Sidecar") -> None:
    print(f"  {'id':>3} {'structure':26}{'voxels':>10}{'mL':>16}{'confidence':>12}")
    for row in sidecar["structures"]:
        volume = row["reasons"].get("volume_ml", "").replace("_", " ") or f"{row['volume_ml']:.2f}"
        score = "-" if row["mean_confidence"] is None else f"{row['mean_confidence']:.2f}"
        print(f"  {row['id']:3} {row['name']:26}{row['voxels']:>10}{volume:>16}{score:>12}")


def _print_reference(sidecar: "Sidecar") -> None:
    if "reference" not in sidecar:
        return
    print(f"  {'id':>3} {'structure':26}{'state':>16}{'Dice':>8}{'HD95 mm':>10}{'NSD':>8}")
    for row in sidecar["reference"]["rows"]:
        figures = (row["dice"], row["hd95_mm"], row["nsd"])
        dice, hd95, nsd = ("-" if figure is None else f"{figure:.3f}" for figure in figures)
        state = row["state"].replace("_", " ")
        print(f"  {row['id']:3} {row['name']:26}{state:>16}{dice:>8}{hd95:>10}{nsd:>8}")
