"""`review worklist` of all programs: a blinded reading of some reports of a batch by a further reader."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.options import QuietOption
from apps.cli.shared.outputs import SIDECAR, Outputs, OverwriteOption
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_LONGEST_NAME = 16


@dataclass(frozen=True, kw_only=True)
class WorklistOptions:
    """What a user asks `review worklist` for."""

    batch: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of a batch, with its index.")]
    verdicts: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="Further folders with verdicts of other readers.")
    ] = None
    reader: Annotated[str, typer.Option(metavar="NAME", help="Short name of the reader, at most 16 characters.")]
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of what others have judged that is read once more.")
    ] = 0.2
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0
    overwrite: OverwriteOption = False
    quiet: QuietOption = False


def worklist(options: WorklistOptions) -> int:
    """Make a blinded reading: a shell beside the batch's index that shows nobody's verdicts, for one reader.

    It has what nobody else has judged, and of the rest the overlap, drawn by seed, all in random order.
    """
    from pipelines.report.verdicts import collect_reviews
    from pipelines.report.worklist import draw, read_batch, worklist_page

    reader = options.reader.strip()
    if not 0 < len(reader) <= _LONGEST_NAME or not reader.isprintable():
        raise InputError(f"--reader {printable(options.reader)}: expected a short name of 1 to 16 characters")
    stem = "worklist-" + re.sub(r"[^\w-]", "_", reader)
    outputs = Outputs(
        {"page": options.batch / f"{stem}.html", SIDECAR: options.batch / f"{stem}.json"}, options.overwrite
    )
    outputs.check()
    entries = read_batch(options.batch)
    collected = collect_reviews([options.batch, *(options.verdicts or [])])
    own = reader.casefold()
    judged = {about for about, given in collected.given.items() if set(given) - {own}}
    chosen, count = draw(entries, judged, options.overlap, options.seed)
    if not chosen:
        raise InputError(f"{printable(options.batch)}: others have judged all reports, and --overlap is 0; raise it")
    counts = {"reports": len(entries), "listed": len(chosen), "judged_by_others": count}
    content = {"schema_version": 1, "reader": reader, "overlap": options.overlap, "seed": options.seed, "count": counts}
    with outputs.placing() as staged:
        staged["page"].write_text(worklist_page(chosen, reader, options.batch), encoding="utf-8")
        outputs.finish(staged, content)
    for problem in collected.problems:
        print(f"error: {problem}", file=sys.stderr)
    if not options.quiet:
        print(f"{printable(outputs.files['page'])}: {len(chosen)} reports, {count} of them judged by others before")
    return PARTLY_FAILED if collected.problems else COMPLETE
