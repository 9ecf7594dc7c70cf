"""What collected verdicts amount to: how far readers agree, how much is accepted, and what flags tell of rejects."""

from collections import Counter
from collections.abc import Mapping
from statistics import median

from pipelines.evaluation.agreement import NOT_JUDGED, Agreement, proportion, readers_agreement
from pipelines.evaluation.flag_usefulness import auroc
from pipelines.report.results import Figures
from pipelines.report.verdict_files import STRUCTURE_VERDICTS, VERDICTS, Identity, Verdict
from pipelines.report.verdicts import Reviews, consensus_of
from shared_backbones.errors import InputError

MOST_READERS = 20
"""Readers between whom agreement is measured, at most."""


def judged_reports(reviews: Reviews, adjudicator: str = "") -> dict[Identity, dict[str, Verdict]]:
    """Readers' verdicts on the reports that are there, in the order of their numbers.

    Args:
        reviews: Collected verdicts.
        adjudicator: Name of the one who decides between readers, whose verdicts are left out.
    """
    judged = {}
    for report in reviews.reports:  # of equal content there may be several
        given = reviews.given.get(report.about, {})
        judged[report.about] = {reader: each for reader, each in given.items() if reader != adjudicator.casefold()}
    return {about: given for about, given in judged.items() if given}


def reader_names(judged: Mapping[Identity, Mapping[str, Verdict]]) -> dict[str, str]:
    """Readers in the order of their names: how they last wrote theirs, by the name in lower case."""
    names = {reader: verdict.reviewer for given in judged.values() for reader, verdict in given.items()}
    return {reader: names[reader] or "(no name)" for reader in sorted(names)}


def agreement_of(judged: Mapping[Identity, Mapping[str, Verdict]]) -> Agreement:
    """How far the readers of `judged_reports` agree; categories are `VERDICTS`.

    Raises:
        InputError: there are more than `MOST_READERS`.
    """
    names = reader_names(judged)
    if len(names) > MOST_READERS:
        raise InputError(
            f"verdicts of {len(names)} readers; expected at most {MOST_READERS}, between each two of whom agreement is "
            "measured; give folders with the verdicts of fewer"
        )
    codes = {
        shown: [VERDICTS.index(given[reader].verdict) if reader in given else NOT_JUDGED for given in judged.values()]
        for reader, shown in names.items()
    }
    return readers_agreement(codes, len(VERDICTS))


def review_figures(reviews: Reviews, rule: str = "") -> Figures:
    """Figures of collected verdicts, as a tracked run keeps them; they name no reader.

    `accept_share` is the fraction of judged reports whose consensus is accept; AUCs are over judged reports with flags
    whose readers agree, or for which the rule decides: how well flags and lowest confidence tell rejected ones. `kappa`
    and `alike` are of two readers, `alpha` of any number. Structures are those that reports have.

    Args:
        reviews: Collected verdicts.
        rule: Rule for readers who disagree, as in `collect_reviews`; an adjudicator counts as no reader.
    """
    name, _, adjudicator = rule.partition(":")
    judged = judged_reports(reviews, adjudicator.strip() if name == "adjudicator" else "")
    results = {about: consensus_of(reviews.given[about], rule) for about in judged}
    accepted = proportion(sum(result == "accept" for result in results.values()), len(results))
    seconds = [each.seconds for given in judged.values() for each in given.values() if each.seconds is not None]
    figures: Figures = {
        "readers": len(reader_names(judged)),
        "accept_share": accepted["value"],
        "accept_share_low": accepted["low"],
        "accept_share_high": accepted["high"],
        "seconds_median": median(seconds) if seconds else None,
    }
    return figures | _agreement(judged) | _usefulness(reviews, results) | _structures(reviews, judged)


def judged_trainings(reviews: Reviews, rule: str = "") -> list[tuple[str, bool]]:
    """Weights (sha256) of trainings with a consensus, and whether it is accept; the latest verdicts last."""
    trainings = {report.about: report.weights for report in reviews.reports if report.weights}
    judged = [about for about in trainings if about in reviews.given]
    judged.sort(key=lambda about: max(verdict.at for verdict in reviews.given[about].values()))
    results = [(trainings[about], consensus_of(reviews.given[about], rule)) for about in judged]
    return [(weights, result == "accept") for weights, result in results if result in VERDICTS]


def _agreement(judged: Mapping[Identity, Mapping[str, Verdict]]) -> Figures:
    if len(reader_names(judged)) < 2:
        return {}
    agreement = agreement_of(judged)
    estimates = {"alpha": agreement["alpha"]}
    if len(agreement["readers"]) == 2 and agreement["pairs"]:
        estimates |= {key: agreement["pairs"][0][key] for key in ("alike", "kappa")}
    figures: Figures = {"judged_twice": agreement["cases"]}
    for key, estimate in estimates.items():
        figures |= {key: estimate["value"], f"{key}_low": estimate["low"], f"{key}_high": estimate["high"]}
    return figures


def _usefulness(reviews: Reviews, results: Mapping[Identity, str | None]) -> Figures:
    """AUC of the number of flags and of low confidence for rejects; no confidence counts as the lowest."""
    reports = {report.about: report for report in reviews.reports if report.flags is not None}
    decided = [about for about, result in results.items() if result in VERDICTS and about in reports]
    rejected = [results[about] == "reject" for about in decided]
    if not any(rejected) or all(rejected):
        return {"auc_flags": None, "auc_lowest_confidence": None}
    flags = [reports[about].flags or 0 for about in decided]
    confidences = [reports[about].confidence for about in decided]
    measured = any(value is not None for value in confidences)
    return {
        "auc_flags": auroc(flags, rejected),
        "auc_lowest_confidence": auroc([-(value or 0) for value in confidences], rejected) if measured else None,
    }


def _structures(reviews: Reviews, judged: Mapping[Identity, Mapping[str, Verdict]]) -> Figures:
    """How often each structure of the reports got each verdict; names that no report has stay with their files."""
    known = {report.about: set(report.structures) for report in reviews.reports}
    counts = Counter(
        (name, verdict)
        for about, given in judged.items()
        for each in given.values()
        for name, verdict in each.structures.items()
        if name in known[about]
    )
    names = sorted({name for name, _ in counts})
    return {f"structures.{name}.{verdict}": counts[name, verdict] for name in names for verdict in STRUCTURE_VERDICTS}
