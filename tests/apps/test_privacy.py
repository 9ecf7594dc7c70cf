"""What a scan's name and header say of a patient ends up in the content of no result."""

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterator

import numpy as np

from medvision.volumes.files import read_volume
from tests.apps.conftest import SHAPE
from tests.medvision.phantoms import make_affine, make_image, write_scan

MARKER = "DOE^JOHN42"
SIGNS = [encoded for text in ("JOHN42", "john42") for encoded in (text.encode(), text.encode("utf-16-le"))]


def layers(content: bytes) -> Iterator[bytes]:
    """The bytes, and everything that is packed in them: gzip and zlib streams, PNG chunks, base64, escaped texts."""
    yield content
    for start in (match.start() for match in re.finditer(rb"\x1f\x8b\x08", content)):
        stream = zlib.decompressobj(31)
        try:
            yield stream.decompress(content[start:])
        except zlib.error:
            continue  # three bytes that only look like the beginning of a stream
    for match in re.finditer(rb"base64,([A-Za-z0-9+/=]+)", content):
        yield from layers(base64.b64decode(match[1], validate=True))
    if content.startswith(b"\x89PNG"):
        yield from chunks(content)
    if content.startswith(b"{"):
        yield json.dumps(json.loads(content), ensure_ascii=False).encode()


def chunks(png: bytes) -> Iterator[bytes]:
    """Chunks of a PNG file, those that are zlib streams decompressed."""
    pixels, start = b"", 8
    while start < len(png):
        length, kind = int.from_bytes(png[start : start + 4], "big"), png[start + 4 : start + 8]
        body = png[start + 8 : start + 8 + length]
        assert kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"), f"{kind} may hold text"
        pixels += body if kind == b"IDAT" else b""
        yield body
        start += 12 + length
    yield zlib.decompress(pixels)


def holds_marker(content: bytes) -> bool:
    return any(sign in layer for layer in layers(content) for sign in SIGNS)


def test_the_search_finds_what_is_hidden():
    hidden = MARKER.encode()
    assert holds_marker(hidden)
    assert holds_marker(b"xx" + gzip.compress(b"a" * 99 + hidden))
    assert holds_marker(b"<img src='data:image/png;base64," + base64.b64encode(hidden) + b"'>")
    assert holds_marker(b'{"a": "\\u004aOHN42"}')
    assert not holds_marker(gzip.compress(b"nothing"))


def test_no_result_holds_a_marker(segment, tmp_path):
    folder = tmp_path / f"of {MARKER}"
    folder.mkdir()
    affine = make_affine("PIL", (4, 5, 4), (3, 4, 5))
    data = make_image(SHAPE, np.float32)
    data[0, 0, 0] = np.nan  # warnings are part of the side-car and of the page
    named = f"T1 {MARKER}.nii.gz"
    # the geometry disagrees, and fields are outside the standard: each is written about
    odd = {"srow_x": [9, 0, 0, 0], "pixdim": [3, 4, 5, 4, 0, 0, 0, 0]}
    scan = write_scan(folder / named, data, affine, marker=MARKER, fields=odd)
    assert holds_marker(scan.read_bytes())
    truth = write_scan(
        folder / f"truth {MARKER}.nii.gz",
        np.full(SHAPE, 20, np.uint8),
        read_volume(scan, geometry="qform", allow_nonfinite=True).grid.affine,
        marker=MARKER,
    )
    output = folder / "results"
    options = ("--use-qform", "--allow-nonfinite", "--save-probabilities", "--reference", truth, "-o", output)
    assert segment(scan, *options).code == 0

    results = sorted(output.iterdir())
    assert [path.name.removeprefix(f"T1 {MARKER}") for path in results] == [
        "_prob.nii.gz",
        "_report.html",
        "_seg.json",
        "_seg.nii.gz",
        "_volumes.csv",
    ]
    for path in results:
        content = path.read_bytes()
        assert not holds_marker(content), path.name
        assert not any(part.encode() in content for part in (tmp_path.name, "truth ")), path.name
        if path.suffix == ".gz":
            flags, seconds = content[3], int.from_bytes(content[4:8], "little")
            assert (flags, seconds) == (0, 0), "the gzip header names a file or a time"
    sidecar = json.loads((output / f"T1 {MARKER}_seg.json").read_text())
    assert len(sidecar["warnings"]) >= 2
    assert sidecar["case"] == f"case-{sidecar['input']['sha256'][:8]}"
    assert len(re.findall("base64,", (output / f"T1 {MARKER}_report.html").read_text())) > 18


def test_no_page_of_a_batch_holds_a_marker(segment, tmp_path):
    folder = tmp_path / f"of {MARKER}"
    folder.mkdir()
    affine = make_affine(spacing=(4, 4, 4))
    hostile = f'<img src=x onerror="alert(1)">{MARKER}&amp;.nii.gz'
    write_scan(folder / hostile, make_image(SHAPE), affine, marker=MARKER)
    for name, content in {
        f"cut {MARKER}.nii": b"\x5c\x01",
        f"empty {MARKER}.nii.gz": b"",
        f"{MARKER}.mgz": b"x",
    }.items():
        (folder / name).write_bytes(content)
    output = folder / "results"
    done = segment(folder, "-o", output)
    assert done.code == 5 and done.err.count(MARKER) >= 3, "the terminal does say which"
    linked = {path.name for path in (output / "reports").iterdir()}
    for path in (output / "index.html", output / "index.json", *(output / "reports").iterdir()):
        content = path.read_bytes()
        assert not holds_marker(content), path.name
        assert b"onerror" not in content and tmp_path.name.encode() not in content, path.name
    index = json.loads((output / "index.json").read_text())
    assert [row["status"] for row in index["cases"]] == ["failed"] * 3 + ["done"]
    assert all(row["reason"] for row in index["cases"][:3])
    assert linked == {f"{index['cases'][3]['case']}.html"}

    hidden = tmp_path / "hidden"
    assert segment(folder, "-o", hidden, "--pseudonyms", "--save-probabilities").code == 5
    names = {str(path.relative_to(hidden)) for path in hidden.rglob("*")}
    case = index["cases"][3]["case"]
    endings = ("_seg.nii.gz", "_seg.json", "_report.html", "_prob.nii.gz", "_volumes.csv")
    assert names == {"index.html", "index.json", "volumes.csv", *(case + ending for ending in endings)}
    assert not any(holds_marker(path.read_bytes()) for path in hidden.iterdir())
