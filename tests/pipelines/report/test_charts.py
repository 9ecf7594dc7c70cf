"""Charts: their marks lie where the values are, and their texts are escaped."""

from xml.etree import ElementTree

import pytest

from pipelines.report.charts import line_chart, reliability_diagram, step_chart, strip_plot

SPACE = "{http://www.w3.org/2000/svg}"


def parsed(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart)  # noqa: S314 - our own


def texts(chart: str) -> list[str | None]:
    return [text.text for text in parsed(chart).iter(f"{SPACE}text")]


def test_a_strip_plot_has_a_dot_for_every_case_and_a_line_for_every_mean():
    chart = strip_plot([("a < b & c", [0.9, 0.7]), ("shell", [0.5, 0.0]), ("nowhere", [])])
    assert {"a < b & c", "shell", "nowhere"} <= set(texts(chart))
    dots = [float(dot.attrib["cx"]) for dot in parsed(chart).findall(f"{SPACE}circle")]
    assert dots == pytest.approx([190 + 420 * value for value in (0.9, 0.7, 0.5, 0.0)])
    means = [path.attrib["d"] for path in parsed(chart).findall(f"{SPACE}path") if "stroke-width" in path.attrib]
    assert [float(line[1:].split()[0]) for line in means] == pytest.approx([190 + 420 * 0.8, 190 + 420 * 0.25])


def test_curves_stand_at_their_severities():
    chart = line_chart({"a": [1, 0.5, 0.25]}, "severity", "dice", (0, 1, 5))
    assert 'points="46.0,12.0 130.0,142.0 466.0,207.0"' in chart and ">3</text>" not in chart


def test_more_curves_than_colours_differ_in_their_dashes():
    chart = line_chart({f"<{number}>": [0.5, 0.5] for number in range(20)}, "x", "y")
    lines = parsed(chart).findall(f"{SPACE}polyline")
    assert len({(line.attrib["stroke"], line.attrib.get("stroke-dasharray")) for line in lines}) == 20
    assert "<19>" in texts(chart)


def test_a_mark_of_the_reliability_diagram_grows_with_its_images():
    low, high = parsed(reliability_diagram([(0.25, 0.5, 25), (0.75, 1.0, 100)])).findall(f"{SPACE}circle")
    assert (low.attrib["cx"], low.attrib["cy"]) == ("106.0", "130.0")
    assert (high.attrib["cx"], high.attrib["cy"]) == ("226.0", "10.0")
    assert (float(low.attrib["r"]), float(high.attrib["r"])) == (6, 10)
    assert not parsed(reliability_diagram([])).findall(f"{SPACE}circle")


def test_a_step_chart_spans_its_lowest_and_highest_value():
    chart = step_chart('"<loss>"', {30: 0.5, 10: 1.5, 20: 1.0})
    assert 'points="76.0,8.0 354.0,97.0 632.0,186.0"' in chart
    root = parsed(chart)
    assert root.attrib["aria-label"] == '"<loss>" from step 10 to 30, at the end 1'
    assert [text.text for text in root.iter("text")] == ["1.5", "0.5", "10", "step 30"]


def test_a_figure_that_never_changes_has_a_flat_chart():
    assert 'points="76.0,8.0 632.0,8.0"' in step_chart("loss", {0: 2.0, 1: 2.0})
