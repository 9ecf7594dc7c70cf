"""Accuracy and areas from a stratified sample: the published example, and what must hold of every sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovision.accuracy import assess

# Olofsson et al. 2014 (doi 10.1016/j.rse.2014.02.015), table 8 and section 5.2: deforestation, forest gain, stable
# forest and stable non-forest; rows are the map's classes, in pixels of 30 m.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
HECTARES = [pixels * 0.09 for pixels in (200_000, 150_000, 3_200_000, 6_450_000)]


def test_the_example_of_olofsson_and_others():
    result = assess(COUNTS, HECTARES)
    areas = [(round(area.value or 0), round(area.margin or 0)) for area in result.areas]
    assert areas == [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)]
    users = [(round(each.value or 0, 2), round(each.margin or 0, 2)) for each in result.users]
    assert users == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    producers = [(round(each.value or 0, 2), round(each.margin or 0, 2)) for each in result.producers]
    # the paper prints 0.85 +- 0.23 and 0.96 +- 0.01 for two of them, which its own equation 7 does not give
    assert producers == [(0.75, 0.21), (0.85, 0.25), (0.93, 0.03), (0.96, 0.02)]
    assert (result.accuracy.value, result.accuracy.margin) == (
        pytest.approx(0.947, abs=5e-4),
        pytest.approx(0.018, abs=5e-4),
    )


def test_counts_that_are_not_weighted_by_area_would_say_something_else():
    result = assess(COUNTS, HECTARES)
    assert abs((result.areas[0].value or 0) - COUNTS[:, 0].sum() / COUNTS.sum() * sum(HECTARES)) > 50_000


samples = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.lists(st.integers(0, 20), min_size=k, max_size=k), min_size=k, max_size=k),
        st.lists(st.integers(0, 10_000), min_size=k, max_size=k),
    )
)


@given(samples)
def test_areas_add_up_to_the_map_and_accuracies_are_fractions(sample):
    counts, mapped = np.array(sample[0]), sample[1]
    counts[[area == 0 for area in mapped]] = 0
    if not sum(mapped) or any(area and not row.sum() for area, row in zip(mapped, counts, strict=True)):
        return
    result = assess(counts, mapped)
    assert sum(area.value or 0 for area in result.areas) == pytest.approx(sum(mapped))
    for each in (result.accuracy, *result.users, *result.producers):
        assert each.value is None or -1e-12 <= each.value <= 1 + 1e-12
    for number, area in enumerate(mapped):
        assert (result.users[number].value is None) == (area == 0)
    single = any(area and row.sum() == 1 for area, row in zip(mapped, counts, strict=True))
    assert (result.accuracy.margin is None) == single, "a single point has no variance"


def test_a_sample_without_errors_gives_the_map_back():
    result = assess(np.diag([5, 3, 2]), [10, 20, 30])
    assert [area.value for area in result.areas] == pytest.approx([10, 20, 30])
    assert [each.value for each in result.producers] == pytest.approx([1, 1, 1]) and result.accuracy.margin == 0


def test_a_class_of_which_every_pixel_was_looked_at_has_no_variance():
    counts = np.array([[1, 0], [3, 7]])
    assert assess(counts, [1, 100]).accuracy.margin is None
    result = assess(counts, [1, 100], [0])
    assert result.accuracy.margin == pytest.approx(1.96 * (100 / 101) * (0.3 * 0.7 / 9) ** 0.5)
    assert result.users[0].margin == 0


def test_a_class_without_a_point_is_refused():
    with pytest.raises(ValueError, match="no point"):
        assess(np.diag([5, 0]), [10, 20])


def test_intervals_contain_the_truth_about_as_often_as_they_say():
    """A map of two classes with known errors, sampled again and again."""
    generator, right, covered = np.random.default_rng(0), (0.9, 0.8), 0
    mapped, truth = [8000.0, 2000.0], 8000 * 0.9 + 2000 * 0.2
    for _ in range(400):
        hits = generator.binomial(60, right)
        counts = np.array([[hits[0], 60 - hits[0]], [60 - hits[1], hits[1]]])
        area = assess(counts, mapped).areas[0]
        covered += abs((area.value or 0) - truth) <= (area.margin or 0)
    assert 0.92 <= covered / 400 <= 0.98
