"""What tests need and not every machine has: without it a test is skipped, or fails where it is required."""

import os
from typing import Literal, NoReturn, get_args

import pytest

Need = Literal["data", "browser", "cluster"]
VARIABLE = "DOMAIN_VISION_REQUIRE"


def required() -> frozenset[str]:
    """The needs that DOMAIN_VISION_REQUIRE names, separated by commas.

    Raises:
        pytest.UsageError: It names something else.
    """
    words = {word.strip() for word in os.environ.get(VARIABLE, "").split(",")} - {""}
    unknown = sorted(words - set(get_args(Need)))
    if unknown:
        raise pytest.UsageError(f"{VARIABLE}: unknown {', '.join(unknown)}; known: {', '.join(get_args(Need))}")
    return frozenset(words)


def missing(need: Need, reason: str) -> NoReturn:
    """Skip the test that needs it; fail where it is required."""
    __tracebackhide__ = True
    if need in required():
        pytest.fail(f"{reason} ({VARIABLE} names {need})", pytrace=False)
    pytest.skip(reason)
