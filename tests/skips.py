"""The skipped tests of a run in one line."""

from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest


def skipped_line(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> str:
    """How many tests were skipped, then each reason with its tests; a test's cases of one reason are counted."""
    tests: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for report in reports:
        assert isinstance(report.longrepr, tuple), report.nodeid
        reason = " ".join(report.longrepr[2].removeprefix("Skipped: ").split())
        tests[reason][report.nodeid.partition("[")[0]] += 1
    total = sum(cases.total() for cases in tests.values())
    line = f"{total} skipped"
    for reason, cases in sorted(tests.items()):  # the order in which xdist's processes report is never the same
        names = (f"{test} ({count} cases)" if count > 1 else test for test, count in sorted(cases.items()))
        line += f" [{reason}: {', '.join(names)}]"
    return line
