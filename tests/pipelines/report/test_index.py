"""The index of a batch as a page: safe, complete without scripts, sortable with them, and its JSON twin."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from pipelines.report.index import batch_index, case_row, index_page
from pipelines.report.segmentation import segmentation_report
from pipelines.report.thumbnails import thumbnail
from tests.pipelines.report.browser import visit
from tests.pipelines.report.test_segmentation import HOSTILE, Page, inputs

PIXEL = "data:image/png;base64,AAAA"


def sidecar(flags=0, confidence=0.8, dice=None, name="core", warnings=()):
    content = {
        "summary": {"structures": 3, "structures_found": 2, "lowest_confidence": confidence, "least_certain": name},
        "flags": [{"code": "empty", "structure": name, "rule": "-", "value": 0}] * flags,
        "warnings": list(warnings),
    }
    if dice is not None:
        rows = [{"name": name, "dice": dice - 0.1}, {"name": "nowhere", "dice": None}, {"name": "b", "dice": dice}]
        content["reference"] = {"rows": rows, "summary": {"dice": dice}}
    return content


def row(number, **options):
    return case_row(f"case-{number:08x}", "done", sidecar=sidecar(**options), report=f"reports/case-{number:08x}.html")


def test_worst_comes_first():
    rows = [
        row(1, flags=0, confidence=0.9),
        row(2, flags=2, confidence=0.9),
        row(3, flags=2, confidence=0.5),
        row(4, flags=9, dice=0.8),
        row(5, flags=0, dice=0.3),
        case_row("case-00000006", "failed", reason="is cut short"),
        row(7, flags=0, confidence=None),
    ]
    index = batch_index(rows, {"name": "balls"})
    assert [int(case["case"][5:]) for case in index["cases"]] == [6, 5, 4, 3, 2, 1, 7]
    assert [case["place"] for case in index["cases"]] == list(range(1, 8))
    assert index["count"] == {"scans": 7, "failed": 1, "done": 6} and index["flagged"] == 3
    assert json.loads(json.dumps(index, allow_nan=False)) == index
    (_, fifth, *_) = index["cases"]
    assert (fifth["mean_dice"], fifth["lowest_dice"], fifth["worst_structure"]) == (0.3, pytest.approx(0.2), "core")


@pytest.mark.parametrize("case", ["scan", "case-1", "case-ABCDEF01", "../case-00000000"])
def test_a_case_without_pseudonym_is_refused(case):
    with pytest.raises(ValueError, match="8 hex digits"):
        case_row(case, "done")


def test_every_figure_of_the_page_is_in_its_twin():
    rows = [row(1, flags=2, confidence=0.512, dice=0.712, warnings=["b"]), row(2), case_row("unreadable-3", "failed")]
    index = batch_index(rows, {"name": "balls", "version": "1.2.3"})
    page = Page(index_page(index, {}))
    text = page.text
    for expected in ("3 scans", "balls 1.2.3", "Failed 1", "Done 2", "0.51 core", "0.712 0.612 core", "2 of 3"):
        assert expected in text, expected
    assert "2 : empty 2" in text and "1: b" in text and "no reason known" in text
    values = [cell["data-value"] for cell in page.all("td") if "data-value" in cell]
    known = {
        str(part) for case in index["cases"] for part in [*case.values(), len(case["flags"]), len(case["warnings"])]
    }
    assert values and set(values) - {""} <= known


def test_hostile_texts_are_shown_and_never_run():
    rows = [
        row(1, flags=1, name=HOSTILE, dice=0.5, warnings=[HOSTILE]),
        case_row("case-00000002", "failed", reason=HOSTILE),
    ]
    html = index_page(batch_index(rows, {"name": HOSTILE, "version": HOSTILE}), {"case-00000001": PIXEL})
    page = Page(html)
    assert [attributes["src"] for attributes in page.all("img")] == [PIXEL]
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)
    assert {attributes["href"] for attributes in page.all("a")} == {"#content", "reports/case-00000001.html"}
    assert page.text.count('alert("x")') >= 5


def test_paths_are_left_out():
    rows = [
        row(1, warnings=["/data/MARKER/scan.nii.gz: odd"]),
        case_row("case-00000002", "failed", reason="cannot write /data/MARKER/out"),
    ]
    index = batch_index(rows, {"name": "balls"})
    assert "MARKER" not in json.dumps(index) + index_page(index, {})


def test_the_policy_allows_this_style_and_this_script_alone():
    html = index_page(batch_index([row(1)], {}), {})
    policy = next(a["content"] for a in Page(html).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digests = []
    for kind in ("style", "script"):
        (source,) = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.S)
        digests.append(base64.b64encode(hashlib.sha256(source.encode()).digest()).decode())
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "frame-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://|@import|url\(|<link", html)


def test_a_thumbnail_is_the_first_picture_with_contours_made_small():
    uri = thumbnail(segmentation_report(**inputs()))
    assert uri is not None
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert max(picture.size) == 112
    colours = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(colours, axis=2) > 60).any(), "no contour is left"
    assert thumbnail("<p>no picture</p>") is None
    assert thumbnail('<svg class="drawing" ><image href="data:image/png;base64,AAAA"/></svg>') is None


def test_a_browser_sorts_the_table_under_the_policy(browser: Browser, tmp_path: Path):
    """The page clicks for itself, with one more script that its policy is told of."""
    rows = [row(1, flags=3, confidence=0.9), row(2, flags=1, confidence=0.5), row(3, flags=0, confidence=None)]
    html = index_page(batch_index(rows, {}), {})
    click = (
        "const b = [...document.querySelectorAll('th button')].find((b) => b.textContent.startsWith('Lowest'));"
        "b.click(); b.click();"
        "document.body.dataset.order = [...document.querySelectorAll('tbody th')].map((c) => c.textContent.slice(-1));"
    )
    allowed = base64.b64encode(hashlib.sha256(click.encode()).digest()).decode()
    html = html.replace("script-src ", f"script-src 'sha256-{allowed}' ")
    html = html.replace("</body>", f"<script>{click}</script><script>document.body.dataset.foreign = 1</script></body>")
    page = tmp_path / "index.html"
    page.write_text(html, encoding="utf-8")
    found = visit(browser, page).page.content()
    assert re.search(r'<body[^>]* data-order="1,2,3"', found), "falling order, what has no figure last"
    assert "data-foreign" not in re.findall("<body[^>]*>", found)[0], "a foreign script ran"
    assert 'aria-sort="descending"' in found


def test_volumes_have_a_column_for_each_structure_and_for_what_else_is_measured():
    volumes = {"case": "c", "intracranial_ml": None, "other_csf_ml": 1.25, "core_ml": None, "core_left_ml": None}
    rows = [
        case_row("case-00000001", "done", sidecar=sidecar(), volumes=volumes),
        case_row("case-00000002", "changed", sidecar=sidecar(), volumes=volumes | {"intracranial_ml": 1500.0}),
        case_row("case-00000003", "failed", reason="is cut short"),
    ]
    page = Page(index_page(batch_index(rows, {"name": "balls"}), {}))
    for expected in ("Other CSF", "1.25", "Core", "Intracranial", "1,500.00", "Changed since 1"):
        assert expected in page.text, expected
    assert "Core left" not in page.text and "a file of the result was changed since" in page.text
    assert "Other CSF" not in Page(index_page(batch_index(rows[2:], {"name": "balls"}), {})).text
