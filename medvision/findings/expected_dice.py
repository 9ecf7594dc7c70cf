"""What overlap a structure's confidence stands for: a rising curve, fitted on cases whose truth is known.

A card holds it as `input.expected_dice`: `cases` (how many it rests on), `of` (what they were) and `knots`, by name of
structure: confidences, rising, and the Dice measured there. Between knots it is linear, beyond them level. The
curve says what was common where it was fitted; it is no promise for a scan of another kind.
"""

from collections.abc import Sequence

import numpy as np

from medvision.contract import Expectations


def expected_dice(card_input: Expectations, name: str, confidence: float | None) -> float | None:
    """Dice that a structure of this mean confidence had on average where the card's curve was fitted; None without."""
    knots = ((card_input.get("expected_dice") or {}).get("knots") or {}).get(name)
    if knots is None or confidence is None:
        return None
    return float(np.interp(confidence, knots[0], knots[1]))


def fit_knots(confidences: Sequence[float], dice: Sequence[float], tolerance: float = 0.02) -> list[list[float]]:
    """Knots of the isotonic curve through confidences and Dice of one structure.

    Knots without which the curve stays within `tolerance` of all others are left out.
    """
    from sklearn.isotonic import IsotonicRegression

    places = np.unique(np.asarray(confidences, float))
    fitted = IsotonicRegression().fit(confidences, dice).predict(places)
    kept = list(range(len(places)))
    for place in range(1, len(places) - 1):
        fewer = [other for other in kept if other != place]
        if np.abs(np.interp(places, places[fewer], fitted[fewer]) - fitted).max() <= tolerance:
            kept = fewer
    return [[round(float(value), 3) for value in values[kept]] for values in (places, fitted)]


def fit_threshold(confidences: Sequence[float], poor: Sequence[bool]) -> float:
    """Confidence that best divides poor cases, below it, from the others (Youden's J), half way between two of them.

    Raises:
        ValueError: all were poor, or none.
    """
    values, wrong = np.asarray(confidences, float), np.asarray(poor, bool)
    if wrong.all() or not wrong.any():
        raise ValueError("expected poor cases and others")
    places = np.unique(values)
    cuts = (places[1:] + places[:-1]) / 2
    youden = [np.mean(values[wrong] < cut) - np.mean(values[~wrong] < cut) for cut in cuts]
    return round(float(cuts[int(np.argmax(youden))]), 2)
