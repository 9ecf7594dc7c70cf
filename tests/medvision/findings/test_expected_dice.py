"""What a confidence stands for: a rising curve through cases whose truth is known."""

import numpy as np
import pytest

from medvision.contract import Expectations, expectations
from medvision.findings.expected_dice import expected_dice, fit_knots, fit_threshold
from medvision.models.catalogue import model_card


def test_the_curve_is_linear_between_knots_and_level_beyond():
    card: Expectations = {"expected_dice": {"knots": {"a": [[0.4, 0.8], [0.2, 0.6]]}}}
    found = [expected_dice(card, "a", confidence) for confidence in (0.1, 0.4, 0.5, 0.8, 1.0)]
    assert found == pytest.approx([0.2, 0.2, 0.3, 0.6, 0.6])
    assert expected_dice(card, "b", 0.5) is None and expected_dice(card, "a", None) is None
    assert expected_dice({}, "a", 0.5) is None


def test_a_fit_rises_needs_few_knots_and_stays_near_the_isotonic_curve():
    random = np.random.default_rng(0)
    confidences = random.uniform(0.3, 0.9, 80)
    dice = np.clip(1.2 * confidences - 0.2 + random.normal(0, 0.05, 80), 0, 1)
    places, values = fit_knots(confidences.tolist(), dice.tolist())
    assert len(places) < 40 and places == sorted(places) and values == sorted(values)
    assert np.abs(np.interp(confidences, places, values) - (1.2 * confidences - 0.2)).mean() < 0.03
    assert fit_knots([0.2, 0.5, 0.9], [0.7, 0.7, 0.7]) == [[0.2, 0.9], [0.7, 0.7]]


def test_a_threshold_divides_poor_cases_from_the_others():
    assert fit_threshold([0.2, 0.4, 0.6, 0.9], [True, True, False, False]) == 0.5
    assert fit_threshold([0.2, 0.4, 0.6, 0.9], [True, False, False, False]) == 0.3
    with pytest.raises(ValueError, match="poor cases and others"):
        fit_threshold([0.2, 0.4], [True, True])


def test_the_bundled_model_says_what_its_confidence_stands_for():
    card = expectations(model_card("brain-structures").get("input", {}))
    judged = {entry["name"] for entry in model_card("brain-structures")["classes"]} - {"background", "other_csf"}
    assert set(card["expected_dice"]["knots"]) == set(card["min_confidence"]) == judged
    assert card["expected_dice"]["cases"] > 20 and card["expected_dice"]["of"]
    for name in judged:
        low, high = (expected_dice(card, name, confidence) for confidence in (0.4, 0.85))
        assert low is not None and high is not None and low < 0.6 < high
