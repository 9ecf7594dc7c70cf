"""`review agreement` of all programs: how far readers agree, and a page on which somebody decides between them."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.shared.options import JsonOption, QuietOption
from apps.cli.shared.outputs import SIDECAR, Outputs, OverwriteOption
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    from pipelines.report.verdict_files import Identity

FoldersArgument = Annotated[
    list[Path], typer.Argument(metavar="DIR", help="Folders with results that have a report, and verdicts.")
]


@dataclass(frozen=True, kw_only=True)
class AgreementOptions:
    """What a user asks `review agreement` for."""

    folders: FoldersArgument
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Page to write; beside index.html it links to the batch's reports.")
    ]
    adjudicator: Annotated[
        str,
        typer.Option(metavar="NAME", help="Who decides between readers; verdicts of that name count as no reader's."),
    ] = ""
    overwrite: OverwriteOption = False
    as_json: JsonOption = False
    quiet: QuietOption = False


def agreement(options: AgreementOptions) -> int:
    """Measure how far readers agree, and list the reports on which they do not, for somebody to decide.

    The page has counts, percent, Cohen's kappa with quadratic weights and Krippendorff's alpha, with 95 % intervals.
    Decisions are saved from it as verdicts, which `review collect --consensus adjudicator:NAME` takes.
    """
    from pipelines.evaluation.agreement import RESAMPLES
    from pipelines.evaluation.reviews import agreement_of, judged_reports
    from pipelines.report.agreement import agreement_content, agreement_page
    from pipelines.report.verdicts import collect_reviews

    if options.output.suffix.lower() != ".html":
        raise InputError(f"{printable(options.output)}: ends in {printable(options.output.suffix)!r}; expected .html")
    outputs = Outputs({"page": options.output, SIDECAR: options.output.with_suffix(".json")}, options.overwrite)
    outputs.check()
    collected = collect_reviews(options.folders)
    adjudicator = options.adjudicator.strip()
    judged = judged_reports(collected, adjudicator)
    if not judged:
        raise InputError(
            f"{', '.join(map(printable, options.folders))}: contains no verdict on a report that is here; give the "
            "folder of the results, and that of the saved verdicts"
        )
    disputed = {
        about: list(given.values())
        for about, given in judged.items()
        if len({verdict.verdict for verdict in given.values()}) > 1
    }
    own = {about: collected.given[about].get(adjudicator.casefold()) for about in disputed if adjudicator}
    content = agreement_content(
        agreement_of(judged),
        disputed,
        {about: verdict for about, verdict in own.items() if verdict is not None},
        _links(options.output.parent, disputed),
        adjudicator,
    )
    medical = any(report.kind == "segmentation" for report in collected.reports)
    with outputs.placing() as staged:
        staged["page"].write_text(agreement_page(content, RESAMPLES, medical=medical), encoding="utf-8")
        outputs.finish(staged, content)
    for problem in collected.problems:
        print(f"error: {problem}", file=sys.stderr)
    if options.as_json:
        print(json.dumps(content, indent=2))
    elif not options.quiet:
        print(f"{printable(options.output)}: {len(judged)} reports judged, {len(disputed)} to adjudicate")
    return PARTLY_FAILED if collected.problems else COMPLETE


def _links(folder: Path, reports: "Iterable[Identity]") -> "dict[Identity, str]":
    """Where reports lie beside a page, under names that are their cases'."""
    links = {}
    for about in reports:
        for link in (f"reports/{about.case}.html", f"{about.case}_report.html"):
            page = folder / link
            if page.is_file() and f'data-report="{about.number}"' in page.read_text(encoding="utf-8", errors="replace"):
                links[about] = link
    return links
