"""The segmentation report: self-contained, safe, complete."""

import base64
import gzip
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medvision.findings.flags import structure_flags
from medvision.findings.statistics import structure_rows
from medvision.metrics.overlap import compare, summary
from medvision.volumes.geometry import Grid
from pipelines.report.segmentation import segmentation_report
from pipelines.report.text import in_words
from shared_backbones.card import ClassEntry

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "background", "color": [0, 0, 0]},
    {"id": 1, "name": "core", "color": [255, 120, 0]},
    {"id": 2, "name": "shell", "color": [0, 160, 255]},
    {"id": 3, "name": "absent", "color": [0, 200, 120]},
]
DATA = ("application/json", "text/plain")  # types of scripts that no browser runs
VOID = {"meta", "img", "rect", "br", "link", "input", "hr", "path", "use", "image"}


class Page(HTMLParser):
    """Elements, texts and balance of a page."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def inputs(shape=(24, 28, 32), with_reference=False):
    """Arguments of the report for a ball in a ball."""
    grid = Grid.from_affine(shape, np.diag([1.0, 1.0, 2.0, 1.0]))
    radius = np.linalg.norm([(axis - n / 2) for axis, n in zip(np.indices(shape), shape, strict=True)], axis=0)
    labels = np.where(radius < 5, 1, np.where(radius < 9, 2, 0)).astype(np.uint8)
    image = (200 - 10 * radius).astype(np.float32)
    rows = structure_rows(labels, image, grid.affine, CLASSES, {1: 0.91, 2: 0.82, 3: None})
    sidecar = {
        "schema_version": 1,
        "case": "case-0a1b2c3d",
        "model": {"name": "balls", "version": "1.2.3", "sha256": "ab" * 32, "architecture": "hbformer"},
        "input": {
            "sha256": "cd" * 32,
            "shape": list(shape),
            "spacing_mm": [1, 1, 2],
            "orientation": "RAS",
            "qform_code": 2,
        },
        "structures": rows,
        "flags": structure_flags(rows),
        "warnings": ["two views were used"],
        "settings": {"views": ["axial", "coronal"], "fast": False},
        "device": "cpu",
        "precision": "float32",
        "timings_s": {"network": 1.25},
        "versions": {"domain-vision": "0.1.0", "torch": "2.13.0"},
    }
    card = {"classes": CLASSES, "license": "Apache-2.0", "limits": ["balls only"], "description": "Finds balls."}
    arguments = {"sidecar": sidecar, "card": card, "image": image, "labels": labels, "grid": grid}
    if with_reference:
        reference = np.roll(labels, 1, axis=0)
        reference[reference == 1] = 3  # core is a false positive, absent is missed
        compared = compare(labels, reference, grid.spacing_mm, CLASSES, 1.5)
        compared.insert(
            0, {"id": 4, "name": "nowhere", "state": "both_empty", "dice": None, "hd95_mm": None, "nsd": None}
        )
        sidecar["reference"] = {"rows": compared, "summary": summary(compared), "nsd_tolerance_mm": 1.5}
        arguments["reference"] = reference
    return arguments


def test_page_has_what_a_reader_needs():
    html = segmentation_report(**inputs())
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    assert "case-0a1b2c3d: segmentation report" in page.text
    assert page.text.count("Research use only, not for diagnosis") == 1
    for expected in (
        *("balls 1.2.3", "ab" * 32, "cd" * 32, "24 × 28 × 32", "1 × 1 × 2 mm", "qform code 2", "float32", "1.25 s"),
        *("views axial, coronal", "fast no", "torch 2.13.0", "Apache-2.0", "balls only", "two views were used"),
        *("structure has no voxel", "percentiles 0.5 to 99.5 of the foreground", "Structures found 2 of 3"),
    ):
        assert expected in page.text, expected
    images = page.all("image")
    assert len(images) == 3 * 6
    for attributes in images:
        png = Image.open(io.BytesIO(base64.b64decode(attributes["href"].removeprefix("data:image/png;base64,"))))
        assert png.size == (int(attributes["width"]), int(attributes["height"]))
    drawings = [row for row in page.all("svg") if row.get("role") == "img"]
    assert len(drawings) == 18 and [row for row in drawings if "core, shell" in row["aria-label"]]
    first = html[html.index('id="first"') : html.index('id="checks"')]
    assert sorted(re.findall(r'data-plane="(\w+)"', first)) == ["axial", "coronal", "sagittal"]
    assert first.index("<svg") and html.index('id="first"') < html.index('id="checks"')


def test_missing_figures_are_dashes_with_their_reason():
    arguments = inputs()
    html = segmentation_report(**arguments)
    (row,) = re.findall(r"<tr>\s*<th[^>]*>(?:(?!</th>).)*absent.*?</tr>", html[html.index('id="volumes"') :], re.S)
    assert row.count('–<sup><a href="#note-a"') == 3  # volume, intensity, confidence
    assert ">0<" in row
    assert 'id="note-a"' in html and "Not given: no voxel has this label." in Page(html).text


def test_reference_table_is_worst_first_and_states_every_pair():
    html = segmentation_report(**inputs(with_reference=True))
    part = html[html.index('id="reference"') : html.index('id="provenance"')]
    text = Page(part[part.index("<table>") : part.index("</table>") + 8]).text
    assert re.search(
        r"core false positive 0.000 – – absent missed 0.000 – – shell scored 0\.\d{3} 1\.00 \d\.\d{3} "
        "nowhere empty in both – – – Mean",
        text,
    )
    assert "NSD at 1.5 mm" in text
    assert len(Page(html).all("image")) == 3 * 6 and html.count('class="layer difference"') > 3
    assert "only in the reference" in Page(html).text


def test_hostile_texts_are_shown_and_never_run():
    arguments = inputs(with_reference=True)
    sidecar, card = arguments["sidecar"], arguments["card"]
    card["classes"] = [{**entry, "name": HOSTILE} for entry in CLASSES]
    card.update(license=HOSTILE, limits=[HOSTILE], description=HOSTILE)
    for row in [*sidecar["structures"], *sidecar["reference"]["rows"]]:
        row["name"] = HOSTILE
    sidecar["structures"][0].update(volume_ml=None, reasons={"volume_ml": HOSTILE})
    sidecar["reference"]["rows"][0]["state"] = HOSTILE
    sidecar.update(warnings=[HOSTILE], device=HOSTILE, settings={HOSTILE: [HOSTILE]}, versions={HOSTILE: HOSTILE})
    sidecar["flags"] = [{"code": HOSTILE, "structure": HOSTILE, "rule": HOSTILE, "value": HOSTILE}]
    sidecar["model"].update(name=HOSTILE, version=HOSTILE, sha256=HOSTILE, architecture=HOSTILE)
    sidecar["input"].update(orientation=HOSTILE, modality=HOSTILE, sha256=HOSTILE)
    html = segmentation_report(**arguments)
    page = Page(html)
    assert [kind for attributes in page.all("script") if (kind := attributes.get("type")) not in DATA] == [None]
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)
    assert all(attributes["href"].startswith("data:image/png;base64,") for attributes in page.all("image"))
    assert 'alert("x")' in page.text


def test_policy_allows_this_style_and_nothing_from_outside():
    html = segmentation_report(**inputs())
    policy = next(a["content"] for a in Page(html).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    sources = [script]
    if packed := re.search('id="viewer-program">data:application/gzip;base64,([^<]*)<', html):
        sources.append(gzip.decompress(base64.b64decode(packed[1])).decode())
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, *sources)]
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests[1:])
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src {scripts}; base-uri 'none'; "
        "form-action 'none'"
    )
    assert not re.search(r"https?://|@import|url\(|<link", html)


def test_paths_and_scan_names_are_left_out():
    arguments = inputs()
    arguments["sidecar"].update(
        warnings=["MARKER_scan.nii.gz: no qform", "written to /data/MARKER/out", r"read C:\MARKER\x", "ratio 1/255"],
        settings={"output": "~/MARKER", "model": "models:/brain@prod"},
        source="MARKER",
    )
    arguments["sidecar"]["input"]["name"] = "MARKER"
    html = segmentation_report(**arguments)
    assert "MARKER" not in html
    assert "ratio 1/255" in html and "models:/brain@prod" in html and "[path left out]: no qform" in html


@pytest.mark.parametrize("case", ["scan", "case-1234567", "case-ABCDEF01", None])
def test_a_case_without_pseudonym_is_refused(case):
    arguments = inputs()
    arguments["sidecar"]["case"] = case
    with pytest.raises(ValueError, match="8 hex digits"):
        segmentation_report(**arguments)


def test_a_bare_sidecar_makes_a_page():
    arguments = inputs()
    arguments.update(sidecar={"case": "case-00000000"}, card={"classes": CLASSES})
    assert "No rule was met" in Page(segmentation_report(**arguments)).text


@pytest.mark.parametrize("with_reference", [False, True])
def test_page_of_a_large_noisy_scan_stays_below_8_mb(with_reference):
    rng = np.random.default_rng(0)
    shape = (512, 512, 300)
    image = np.frombuffer(rng.bytes(512 * 512 * 300), np.uint8).reshape(shape)
    labels = image & 3  # as noisy as the image
    arguments = inputs(with_reference=with_reference)
    arguments.update(image=image, labels=labels, grid=Grid.from_affine(shape, np.eye(4)))
    if with_reference:
        arguments["reference"] = (image >> 2) & 3
    size = len(segmentation_report(**arguments).encode())
    assert 3e6 < size < 8e6


def test_names_are_in_words_wherever_they_stand():
    given = {"other_csf": ["darker than other_csf (3)", "other_csf_2", 4], "b": {"name": "grey_matter"}}
    assert in_words(given, ["other_csf", "grey_matter", "core"]) == {
        "other_csf": ["darker than other CSF (3)", "other_csf_2", 4],
        "b": {"name": "grey matter"},
    }
    assert in_words(given, ["core"]) is given
