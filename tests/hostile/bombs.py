"""Files that claim more than they hold, reach for other places or hide what they are: each small and harmless."""

import functools
import gzip
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from shared_backbones import weights
from tests.geovision.rasters import TRANSFORM, ramp, write_scene
from tests.hostile.formats import FORMATS
from tests.hostile.sound_files import card, dicom, geotiff, nifti, packed, recipe, safetensors, zipped
from tests.medvision.dicom.dicoms import make_slices, write_series
from tests.medvision.phantoms import make_affine, make_image, nifti_bytes, write_file

Bomb = tuple[Callable[[Path], Path], Callable[[Path], Any]]
BOMBS: dict[str, Bomb] = {}


def bomb(kind: str, reader: int = 0) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Add a maker to the corpus, for a reader of its format."""

    def add(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        BOMBS[f"{kind}: {make.__name__.replace('_', ' ')}"] = make, FORMATS[kind][1][reader]
        return make

    return add


# NIfTI and MGH: what a header claims


def _header(path: Path, shape: tuple[int, ...] = (16, 14, 12), **fields: Any) -> Path:
    content = nifti_bytes(np.zeros((16, 14, 12), np.uint8), fields=fields)
    if shape != (16, 14, 12):
        dims = np.zeros(8, "<i2")
        dims[: len(shape) + 1] = (len(shape), *shape)
        content = content[:40] + dims.tobytes() + content[56:]
    return write_file(path / "scan.nii.gz", content)


CLAIMS: dict[str, Callable[[Path], Path]] = {
    "a cube of a thousand": lambda path: _header(path, (1000, 1000, 1000)),
    "a needle": lambda path: _header(path, (32767, 200, 200)),
    "a slab": lambda path: _header(path, (32767, 32767, 8)),
    "a negative side": lambda path: _header(path, (16, -14, 12)),
    "no sides": lambda path: _header(path, (0, 0, 0)),
    "seven axes": lambda path: _header(path, (8, 8, 8, 2, 2, 2, 2)),
    "a far beginning": lambda path: _header(path, vox_offset=1e12),
    "a beginning that is no number": lambda path: _header(path, vox_offset=np.nan),
    "an infinite slope": lambda path: _header(path, scl_slope=np.inf, scl_inter=0.0),
    "a large slope": lambda path: _header(path, scl_slope=1e38, scl_inter=1e38),
    "complex voxels": lambda path: _header(path, datatype=32, bitpix=64),
    "an unknown type": lambda path: _header(path, datatype=12345),
    "an affine of no numbers": lambda path: _header(path, srow_x=np.full(4, np.nan), srow_y=np.full(4, np.nan)),
    "a flat affine": lambda path: _header(path, srow_x=np.zeros(4), srow_y=np.zeros(4), srow_z=np.zeros(4)),
}
for _name, _make in CLAIMS.items():
    BOMBS[f"nifti: {_name}"] = _make, FORMATS["nifti.gz"][1][0]


@bomb("nifti.gz")
def gzip_in_gzip(path: Path) -> Path:
    inner = packed(nifti(path))
    inner.replace(path / "scan.nii.gz")
    return path / "scan.nii.gz"


@bomb("nifti.gz")
def gzip_of_zeros(path: Path) -> Path:
    (path / "scan.nii.gz").write_bytes(gzip.compress(bytes(50 * 2**20)))
    return path / "scan.nii.gz"


@bomb("mgh")
def claims_of_two_thousand_million(path: Path) -> Path:
    content = struct.pack(">7i", 1, 2**31 - 1, 2**31 - 1, 2**31 - 1, 1, 3, 0) + struct.pack(">h", 1)
    (path / "scan.mgh").write_bytes(content.ljust(2000, b"\0"))
    return path / "scan.mgh"


# DICOM and zip archives


def _changed(path: Path, change: Callable[[Any], None], **options: Any) -> Path:
    slices = make_slices(make_image((16, 14, 12)).astype(np.int16), make_affine())
    for dataset in slices:
        change(dataset)
    return write_series(path / "series", slices, **options) / "IM00003"


@bomb("dicom")
def huge_rows_and_columns(path: Path) -> Path:
    def change(dataset: Any) -> None:
        dataset.Rows = dataset.Columns = 65535

    return _changed(path, change)


@bomb("dicom")
def a_million_frames(path: Path) -> Path:
    return _changed(path, lambda dataset: setattr(dataset, "NumberOfFrames", 10**6))


@bomb("dicom")
def sequences_in_sequences(path: Path) -> Path:
    file = dicom(path)
    item = b""
    for _ in range(3000):  # of undefined length, each in the one before
        item = (
            struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
            + item
        )
    content = file.read_bytes()
    for other in file.parent.iterdir():
        other.write_bytes(content[:-4000] + item)
    return file


@bomb("dicom")
def no_position(path: Path) -> Path:
    return _changed(path, lambda dataset: delattr(dataset, "ImagePositionPatient"))


def _archive(path: Path, name: str, content: bytes = b"x", **about: Any) -> Path:
    entry = zipfile.ZipInfo(name)
    for key, value in about.items():
        setattr(entry, key, value)
    with zipfile.ZipFile(path / "series.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path / "series.zip"


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "a member above it": lambda path: _archive(path, "../outside.dcm"),
    "a member at the root": lambda path: _archive(path, "/outside.dcm"),
    "a member of another drive": lambda path: _archive(path, "c:\\outside.dcm"),
    "a link": lambda path: _archive(path, "link.dcm", b"/etc/hostname", external_attr=0o120777 << 16),
    "a device": lambda path: _archive(path, "device.dcm", external_attr=0o060666 << 16),
    "zeros": lambda path: _archive(path, "zeros.dcm", bytes(100 * 2**20)),
    "nothing": lambda path: zipped(path / "series.zip", {}),
    "a zip in it": lambda path: zipped(path / "series.zip", {"inner.zip": b"PK\5\6" + bytes(18)}),
    "twenty thousand members": lambda path: zipped(path / "series.zip", {f"{n}.dcm": b"" for n in range(20_000)}),
}
for _name, _make in ARCHIVES.items():
    BOMBS[f"dicom.zip: {_name}"] = _make, FORMATS["dicom.zip"][1][0]


# Rasters: sizes, side files and VRTs that reach elsewhere


@bomb("geotiff")
def a_sparse_continent(path: Path) -> Path:
    import rasterio

    profile = {"driver": "GTiff", "width": 400_000, "height": 400_000, "count": 1, "dtype": "uint16"}
    tiles = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True, "BIGTIFF": "YES"}
    with rasterio.open(path / "scene.tif", "w", crs="EPSG:32633", transform=TRANSFORM, **profile, **tiles):
        pass
    return path / "scene.tif"


@bomb("geotiff")
def one_tile_of_half_a_gigabyte(path: Path) -> Path:
    import rasterio

    profile = {"driver": "GTiff", "width": 16_384, "height": 16_384, "count": 1, "dtype": "uint16"}
    tiles = {"tiled": True, "blockxsize": 16_384, "blockysize": 16_384, "SPARSE_OK": True}
    with rasterio.open(path / "scene.tif", "w", crs="EPSG:32633", transform=TRANSFORM, **profile, **tiles):
        pass
    return path / "scene.tif"


def _beside(path: Path, ending: str, text: str) -> Path:
    scene = geotiff(path)
    scene.with_name(f"{scene.name}{ending}").write_text(text)
    return scene


_NOTES = "<PAMDataset><Metadata domain='OVERVIEWS'><MDI key='{key}'>{name}</MDI></Metadata></PAMDataset>"
SIDE_FILES: dict[str, Callable[[Path], Path]] = {
    "a mask that is text": lambda path: _beside(path, ".msk", "<text/>"),
    "overviews that are text": lambda path: _beside(path, ".ovr", "<text/>"),
    "a mask in capitals that is text": lambda path: _beside(path, ".MSK", "<text/>"),
    "notes that name overviews": lambda path: _beside(path, ".aux.xml", _NOTES.format(key="OVERVIEW_FILE", name="x")),
    "notes with a document type": lambda path: _beside(path, ".aux.xml", "<!DOCTYPE a><PAMDataset/>"),
}
for _name, _make in SIDE_FILES.items():
    BOMBS[f"geotiff: {_name}"] = _make, FORMATS["geotiff"][1][0]


@bomb("geotiff")
def tags_that_name_overviews(path: Path) -> Path:
    import rasterio

    scene = geotiff(path)
    with rasterio.open(scene, "r+") as target:
        target.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="elsewhere.tif")
    return scene


def _virtual(path: Path, change: Callable[[str], str]) -> Path:
    target = FORMATS["vrt"][0](path / "below" if (path / "below").mkdir() is None else path)
    write_scene(path / "above.tif", ramp())
    target.write_text(change(target.read_text()))
    return target


VRTS: dict[str, Callable[[str], str]] = {
    "a source above it": lambda text: text.replace(">scene.tif<", ">../above.tif<"),
    "an absolute source": lambda text: text.replace('relativeToVRT="1">scene.tif<', 'relativeToVRT="0">/scene.tif<'),
    "a source of another kind": lambda text: text.replace(">scene.tif<", ">/vsimem/scene.tif<"),
    "small letters": lambda text: text.replace("SourceFilename", "sourcefilename").replace("scene.tif", "../above.tif"),
    "itself": lambda text: text.replace(">scene.tif<", ">scene.vrt<"),
    "a document type": lambda text: f"<VRTDataset><!DOCTYPE a></VRTDataset>{text}",
    "code": lambda text: text.replace("<VRTRasterBand", "<PixelFunctionType>min</PixelFunctionType><VRTRasterBand", 1),
    "a warp": lambda text: text.replace("<VRTRasterBand", "<GDALWarpOptions/><VRTRasterBand", 1),
    "raw bands": lambda text: text.replace("SimpleSource", "ImageOffset"),
    "open options": lambda text: text.replace("<SourceBand", "<OpenOptions/><SourceBand"),
}  # fmt: skip
for _name, _change in VRTS.items():
    BOMBS[f"vrt: {_name}"] = functools.partial(_virtual, change=_change), FORMATS["vrt"][1][0]


@bomb("jp2")
def a_box_of_four_gigabytes(path: Path) -> Path:
    (path / "scene.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 2**32 - 1, b"jp2h") + bytes(99))
    return path / "scene.jp2"


# FITS, HDF5, NumPy archives and tables


def _cards(path: Path, *cards: str) -> Path:
    lines = ["SIMPLE  =                    T", *cards, "END"]
    (path / "mosaic.fits").write_bytes("".join(f"{line:80}" for line in lines).encode().ljust(2880))
    return path / "mosaic.fits"


HEADERS: dict[str, tuple[str, ...]] = {
    "a square of a million": ("BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 1000000", "NAXIS2  = 1000000"),
    "axes without end": ("BITPIX  = -32", "NAXIS   = 999"),
    "a negative axis": ("BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = -40", "NAXIS2  = 40"),
    "an unknown type": ("BITPIX  = 7", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 4"),
    "a type that is text": ("BITPIX  = 'x'", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 4"),
    "no image": ("BITPIX  = 8", "NAXIS   = 0"),
}
for _name, _lines in HEADERS.items():
    BOMBS[f"fits: {_name}"] = (lambda path, lines=_lines: _cards(path, *lines)), FORMATS["fits"][1][0]


_IMAGE = (
    "BITPIX  =                  -32",
    "NAXIS   =                    2",
    *(f"NAXIS{n}  =                   40" for n in (1, 2)),
)
_SKY = (
    "CTYPE1  = 'RA---TAN'",
    "CTYPE2  = 'DEC--TAN'",
    *(f"{key}{n}  = 1" for key in ("CRPIX", "CRVAL", "CDELT") for n in (1, 2)),
)
_MORE = "CONTINUE  'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb&'"
CARDS_OF_IMAGES: dict[str, tuple[str, ...]] = {
    "a unit in thousands of cards": ("BUNIT   = 'Jy&'", *[_MORE] * 5000),
    "names of bands in thousands of cards": ("BANDS   = 'g r&'", *[_MORE] * 5000),
    "a text that goes on before it begins": (_MORE,),
    "forty thousand long keys": tuple(f"HIERARCH KEY NUMBER {number} = {number}" for number in range(40_000)),
    "one key forty thousand times": ("HIERARCH A KEY = 1",) * 40_000,
    "a size that comes twice": ("NAXIS1  =              1000000",),
    "a number of axes that comes twice": ("NAXIS   =                    3", "NAXIS3  =                 1000"),
    "a scale that is text": ("BSCALE  = 'x'",),
    "a zero that is complex": ("BZERO   = (1, 2)",),
    "a key with an escape sequence": ("CTYPE1  = 'RA\x1b[2J'",),
}
"""Cards that make an image unreadable."""
ODD_CARDS: dict[str, tuple[str, ...]] = {
    "long keys for a size": ("HIERARCH NAXIS1 = 1000000", "HIERARCH NAXIS2 = 1000000"),
    "a long key without a value": (f"HIERARCH {'A' * 71}",),
    "a long key of no letters": ("HIERARCH = 1",),
    "a unit with an escape sequence": ("HIERARCH BUNIT = 'x'", "BUNIT   = 'Jy\x1b[2J'"),
    "a blank that is text": ("BLANK   = 'x'",),
    "distortion of order ten thousand": (*_SKY, "A_ORDER = 9999", "B_ORDER = 9999"),
    "distortion of an order that is text": (*_SKY, "A_ORDER = 'x'", "B_ORDER = 2"),
    "two thousand million axes of the sky": (*_SKY, "WCSAXES = 2000000000"),
    "a table of distortion with endless axes": (*_SKY, "CPDIS1  = 'LOOKUP'", "DP1     = 'NAXES: 2000000000'"),
    "a place beyond all numbers": (*_SKY, "HIERARCH CRVAL1 = 1e400", "CRVAL2  = -1e400"),
    "a place that is no number": (*_SKY, "CRVAL1  = NaN"),
    "twenty thousand terms": (*_SKY, *(f"PV1_{number} = 1" for number in range(15_000))),
}
"""Cards that are passed over."""


def image_with(path: Path, cards: tuple[str, ...]) -> Path:
    """A FITS image with further cards."""
    file = _cards(path, *_IMAGE, *cards)
    content = file.read_bytes()
    file.write_bytes(content + bytes(-len(content) % 2880) + bytes(4 * 40 * 40).ljust(8640, b"\0"))
    return file


for _name, _lines in CARDS_OF_IMAGES.items():
    BOMBS[f"fits: {_name}"] = functools.partial(image_with, cards=_lines), FORMATS["fits"][1][0]


def _galaxies(path: Path, fill: Callable[[Any], None]) -> Path:
    import h5py

    with h5py.File(path / "galaxies.h5", "w") as file:
        file["ans"] = np.zeros(4, np.uint8)
        fill(file)
    return path / "galaxies.h5"


@bomb("hdf5")
def an_external_link(path: Path) -> Path:
    import h5py

    return _galaxies(path, lambda file: file.__setitem__("images", h5py.ExternalLink("other.h5", "/images")))


@bomb("hdf5")
def external_storage(path: Path) -> Path:
    stored = [(str(path / "other.bin"), 0, 768)]
    return _galaxies(path, lambda file: file.create_dataset("images", (4, 8, 8, 3), "u1", external=stored))


@bomb("hdf5")
def images_that_were_never_written(path: Path) -> Path:
    return _galaxies(
        path, lambda file: file.create_dataset("images", (4, 50_000, 50_000, 3), "u1", chunks=(1, 50, 50, 3))
    )


def _array(path: Path, descr: str, shape: str, content: bytes = b"") -> Path:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}".encode().ljust(118) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
    return zipped(path / "breastmnist.npz", {"test_images.npy": array, "test_labels.npy": array})


ARRAYS: dict[str, tuple[str, str, bytes]] = {
    "a shape of a million squared": ("|u1", "(1000000, 1000, 1000)", b""),
    "a shape beyond 64 bits": ("|u1", f"({2**70}, 28, 28)", b""),
    "a negative shape": ("|u1", "(-1, 28, 28)", b""),
    "objects": ("|O", "(2, 28, 28)", pickle.dumps([1])),
    "a shape that is code": ("|u1", "(len('ab'), 28, 28)", b""),
    "texts": ("<U8", "(2, 28, 28)", b""),
}
for _name, _parts in ARRAYS.items():
    BOMBS[f"npz: {_name}"] = (lambda path, parts=_parts: _array(path, *parts)), FORMATS["npz"][1][0]


def _text(path: Path, name: str, text: str | bytes) -> Path:
    target = path / name
    target.write_bytes(text if isinstance(text, bytes) else text.encode())
    return target


_FIELD = (
    '<VOTABLE version="1.3"><RESOURCE><TABLE><FIELD name="a" datatype="int"/><DATA>{data}</DATA></TABLE></RESOURCE>'
    "</VOTABLE>"
)
TABLES: dict[str, tuple[str, str, str | bytes]] = {
    "an address": ("votable", "t.vot", _FIELD.format(data='<BINARY><STREAM href="elsewhere"/></BINARY>')),
    "entities": ("votable", "t.vot", '<!DOCTYPE a [<!ENTITY b "c">]>' + _FIELD.format(data="<TABLEDATA/>")),
    "elements in elements": ("votable", "t.vot", "<A>" * 50_000),
    "forty megabytes": ("csv", "t.csv", b"a,b\n" + b"1,2\n" * 10_000_000),
    "a column twice": ("csv", "t.csv", "a,a\n1,2\n"),
    "zeros": ("csv", "t.csv", bytes(1000)),
    "half characters": ("csv", "t.csv", b"a,b\n\xff\xfe,\xed\xa0\x80\n"),
    "an object": ("ecsv", "t.ecsv", "# %ECSV 1.0\n# ---\n# !!python/object/apply:os.getcwd []\na\n1\n"),
    "a footer": ("parquet", "t.parquet", b"PAR1" + bytes(8) + struct.pack("<I", 2**31) + b"PAR1"),
}
for _name, (_kind, _file, _content) in TABLES.items():
    BOMBS[f"{_kind}: {_name}"] = functools.partial(_text, name=_file, text=_content), FORMATS[_kind][1][0]


@bomb("parquet")
def a_run_of_thirty_million(path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"a": np.zeros(30_000_000, np.int8)}), path / "t.parquet")
    return path / "t.parquet"


@bomb("parquet")
def a_long_text_three_thousand_times(path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.DictionaryArray.from_arrays(np.zeros(3000, np.int32), ["x" * 100_000])
    pyarrow.parquet.write_table(pyarrow.table({"a": text.cast(pyarrow.string())}), path / "t.parquet")
    return path / "t.parquet"


def lying_footer(path: Path, rows: int) -> Path:
    """A column of five million zeros whose footer claims other numbers of rows."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"a": np.zeros(5_000_000)}), path / "t.parquet", compression="gzip")
    about, content = pyarrow.parquet.read_metadata(path / "t.parquet"), (path / "t.parquet").read_bytes()
    groups = {about.row_group(number).num_rows: 2**20 - 1 for number in range(about.num_row_groups)}
    for size, most in {about.num_rows: rows, **groups}.items():
        content = content.replace(_varint(size), _varint(min(rows, most), len(_varint(size))))
    return _text(path, "t.parquet", content)


@bomb("parquet")
def a_footer_that_claims_a_hundred_million_rows(path: Path) -> Path:
    return lying_footer(path, 10**8)


def _varint(number: int, length: int = 1) -> bytes:
    """A number as Thrift's compact protocol writes it, of at least so many bytes."""
    parts, rest = [], 2 * number
    while rest or len(parts) < length:
        parts.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*parts[:-1], parts[-1] & 127])


def _rows_with_one_long(path: Path, name: str, first: str, row: str, last: str) -> Path:
    return _text(path, name, first + row.format("x" * 10**6) + row.format("y") * 3000 + last)


LONG_CELLS: dict[str, tuple[str, str, str, str]] = {
    "csv": ("t.csv", "a,b\n", "{},1\n", ""),
    "ecsv": ("t.ecsv", "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: string}\na\n", "{}\n", ""),
    "votable": (
        "t.vot",
        "<VOTABLE version='1.3'><RESOURCE><TABLE><FIELD name='a' datatype='char' arraysize='*'/><DATA><TABLEDATA>",
        "<TR><TD>{}</TD></TR>", "</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>",
    ),
}  # fmt: skip
for _name, _long in LONG_CELLS.items():
    BOMBS[f"{_name}: one long text"] = functools.partial(_rows_with_one_long, name=_long[0], first=_long[1],
        row=_long[2], last=_long[3]), FORMATS[_name][1][0]  # fmt: skip


@bomb("picture")
def a_picture_of_fifty_thousand_squared(path: Path) -> Path:
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return _text(path, "image.png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


# Models: cards and weights


def _carded(path: Path, **changes: Any) -> Path:
    file = card(path)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return file


CARDS: dict[str, dict[str, Any]] = {
    "arguments that are a list": {"arguments": [1]},
    "a class without a name": {"classes": [{"id": 0}]},
    "a version that is a number": {"version": 1},
    "an architecture of another place": {"architecture": "os:getcwd"},
    "a newer form": {"schema_version": 2},
    "a thousand million classes": {"arguments": {"num_classes": 10**9}},
    "fewer than no classes": {"arguments": {"num_classes": -1}},
    "a thousand million channels": {"arguments": {"num_classes": 2, "in_chans": 10**9}},
    "other weights": {"weights_sha256": "0" * 64},
    "a sha256 that is no text": {"weights_sha256": 7},
    "a name of half a character": {"name": 5},
}
for _name, _changes in CARDS.items():
    BOMBS[f"card: {_name}"] = (lambda path, changes=_changes: _carded(path, **changes)), FORMATS["card"][1][0]


@bomb("card")
def a_card_of_seventeen_megabytes(path: Path) -> Path:
    file = card(path)
    os.truncate(file, 17 * 2**20)
    return file


@bomb("card")
def a_card_nested_deep(path: Path) -> Path:
    file = card(path)
    file.write_text(file.read_text().replace('"arguments": {', '"arguments": {"x": ' + "[" * 100 + "]" * 100 + ", ", 1))
    return file


def _weighed(path: Path, header: bytes, length: int | None = None) -> Path:
    file = safetensors(path)
    file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)
    text = file.with_name("model.json")
    text.write_text(json.dumps(json.loads(text.read_text()) | {"weights_sha256": weights.file_sha256(file)}))
    return file


WEIGHTS: dict[str, tuple[bytes, int | None]] = {
    "a header of a terabyte": (b"{}", 2**40),
    "a header of seventeen megabytes": (b" " * (17 * 2**20), None),
    "a negative shape": (b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', None),
    "a shape that is text": (b'{"a":{"dtype":"F32","shape":"4","data_offsets":[0,4]}}', None),
    "tensors beyond its end": (b'{"a":{"dtype":"F32","shape":[99],"data_offsets":[0,396]}}', None),
    "a header that is a list": (b"[]", None),
    "no tensors": (b"{}", None),
}
for _name, _content in WEIGHTS.items():
    BOMBS[f"safetensors: {_name}"] = (lambda path, c=_content: _weighed(path, *c)), FORMATS["safetensors"][1][0]


class _Reduced:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, ()


@bomb("checkpoint")
def a_pickle_that_calls(path: Path) -> Path:
    return _text(path, "official.pth", pickle.dumps({"weight": _Reduced()}))


# Recipes, verdicts and other JSON


def _laughing(path: Path) -> Path:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 9)]
    return _text(path, "recipe.yaml", "\n".join(lines))


RECIPES: dict[str, Callable[[Path], Path]] = {
    "itself many times": _laughing,
    "lists in lists": lambda path: _text(path, "recipe.yaml", "name: " + "[" * 100 + "]" * 100),
    "two megabytes": lambda path: _text(path, "recipe.yaml", b"# " + b"x" * 2**21),
    "an object": lambda path: _text(path, "recipe.yaml", "name: !!python/object/apply:os.getcwd []"),
    "a list": lambda path: _text(path, "recipe.yaml", "[1, 2]"),
    "bytes": lambda path: _text(path, "recipe.yaml", b"\xff\xfe\0\0"),
    "a key twice": lambda path: _text(path, "recipe.yaml", recipe(path).read_text() + "\nname: twice\n"),
    "a number that is none": lambda path: _text(
        path, "recipe.yaml", yaml.safe_dump(yaml.safe_load(recipe(path).read_text()) | {"name": float("nan")})
    ),
}
for _name, _make in RECIPES.items():
    BOMBS[f"recipe: {_name}"] = _make, FORMATS["recipe"][1][0]

_VERDICT = "case-00000000-00000000_review.json"
VERDICTS: dict[str, str | bytes] = {
    "a hundred kilobytes": b'{"verdict": "' + b"x" * 100_000 + b'"}',
    "lists in lists": "[" * 5000,
    "another verdict": '{"report": {"id": "case-00000000-00000000", "sha256": "' + "0" * 64 + '"}, "verdict": "maybe"}',
    "a path for a number": '{"report": {"id": "../x", "sha256": "' + "0" * 64 + '"}, "verdict": "accept"}',
    "a list": "[]",
}
for _name, _content in VERDICTS.items():
    BOMBS[f"verdict: {_name}"] = functools.partial(_text, name=_VERDICT, text=_content), FORMATS["verdict"][1][0]

LABEL_MAPS: dict[str, str] = {
    "endless ids": '{"17": 1e999}',
    "no ids": '{"a": 1}',
    "another class": '{"17": 99}',
    "lists in lists": '{"17": ' + "[" * 100 + "]" * 100 + "}",
}
for _name, _content in LABEL_MAPS.items():
    BOMBS[f"label map: {_name}"] = (
        functools.partial(_text, name="labels.json", text=_content),
        FORMATS["label map"][1][0],
    )


# Places that a file names, and numbers of its parts that lie


def _linked(path: Path, fill: Callable[[Any, Any], None]) -> Path:
    import h5py

    return _galaxies(path, lambda file: fill(h5py, file))


def _virtual_images(h5py: Any, file: Any) -> None:
    layout = h5py.VirtualLayout((4, 8, 8, 3), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "images", (4, 8, 8, 3))
    file.create_virtual_dataset("images", layout)


def _chain(h5py: Any, file: Any) -> None:
    file["a"], file["images"] = h5py.SoftLink("/images"), h5py.SoftLink("/a")


LINKS: dict[str, Callable[[Any, Any], None]] = {
    "a virtual set of another file": _virtual_images,
    "links in a circle": _chain,
    "a link to its own root": lambda h5py, file: file.__setitem__("images", h5py.SoftLink("/")),
    "a named type": lambda h5py, file: file.__setitem__("images", np.dtype("u1")),
}
for _name, _fill in LINKS.items():
    BOMBS[f"hdf5: {_name}"] = functools.partial(_linked, fill=_fill), FORMATS["hdf5"][1][0]


def _item(path: Path, href: str) -> Path:
    item = FORMATS["stac"][0](path)
    item.write_text(item.read_text().replace("./b2.tif", href))
    return item


HREFS = [
    "file:///etc/hostname", "/etc/hostname", "http://127.0.0.1:9/b2.tif", "s3://bucket/b2.tif", "../b2.tif",
    "/vsicurl/http://127.0.0.1:9/b2.tif", "./%2e%2e/b2.tif", "/vsizip/b2.zip/b2.tif", "b2.tif\\u0000.tif", ".",
]  # fmt: skip
for _href in HREFS:
    BOMBS[f"stac: {_href}"] = functools.partial(_item, href=_href), FORMATS["stac"][1][0]


def _tarred(path: Path, name: str, kind: bytes, link: str = "", size: int = 0) -> Path:
    import io
    import tarfile

    with tarfile.open(path / "scene.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, link, size
        archive.addfile(member, io.BytesIO(bytes(size)) if size else None)
    return path / "scene.tar.gz"


MEMBERS: dict[str, tuple[str, bytes, str, int]] = {
    "a link out of it": ("product/B2.tif", b"2", "/etc/hostname", 0),
    "a hard link out of it": ("product/B2.tif", b"1", "/etc/hostname", 0),
    "a device": ("product/B2.tif", b"3", "", 0),
    "a pipe": ("product/B2.tif", b"6", "", 0),
    "a member above it": ("../B2.tif", b"0", "", 10),
    "a member at the root": ("/B2.tif", b"0", "", 10),
    "zeros": ("product/B2.tif", b"0", "", 400 * 2**20),
}
for _name, _member in MEMBERS.items():
    BOMBS[f"scene.tar: {_name}"] = (lambda path, member=_member: _tarred(path, *member)), FORMATS["scene.tar"][1][0]


def _voted(path: Path, fields: str, data: str, head: str = "") -> Path:
    table = f"<RESOURCE><TABLE>{fields}{data}</TABLE></RESOURCE>"
    return _text(path, "t.vot", f"<?xml version='1.0'?>{head}<VOTABLE version='1.3'>{table}</VOTABLE>")


_FIELD = "<FIELD name='a' datatype='{}' {}/>"
_ROWS = "<DATA><TABLEDATA><TR><TD>{}</TD></TR></TABLEDATA></DATA>"
VOTES: dict[str, tuple[str, ...]] = {
    "an entity of a file": (
        _FIELD.format("char", "arraysize='*'"), _ROWS.format("&x;"),
        "<!DOCTYPE v [<!ENTITY x SYSTEM '/etc/hostname'>]>",
    ),
    "entities in entities": (
        _FIELD.format("char", "arraysize='*'"), _ROWS.format("&x9;"),
        "<!DOCTYPE v [<!ENTITY x0 'xxxxxxxxxx'>"
        + "".join(f"<!ENTITY x{n} '{f'&x{n - 1};' * 10}'>" for n in range(1, 10)) + "]>",
    ),
    "an array of a terabyte": (_FIELD.format("double", "arraysize='1000000x1000000'"), _ROWS.format("1")),
    "a stream elsewhere": (
        _FIELD.format("int", ""), "<DATA><BINARY><STREAM href='file:///etc/hostname'/></BINARY></DATA>",
    ),
    "a stream of another host": (
        _FIELD.format("int", ""), "<DATA><FITS><STREAM href='http://127.0.0.1:9/t.fits'/></FITS></DATA>",
    ),
}  # fmt: skip
for _name, _vote in VOTES.items():
    BOMBS[f"votable: {_name}"] = (lambda path, vote=_vote: _voted(path, *vote)), FORMATS["votable"][1][0]


def _heap(path: Path, form: str, row: bytes) -> Path:
    cards = [
        "XTENSION= 'BINTABLE'", "BITPIX  =                    8", "NAXIS   =                    2",
        f"NAXIS1  = {len(row):20}", "NAXIS2  =                    1", "PCOUNT  =                    8",
        "GCOUNT  =                    1", "TFIELDS =                    1", "TTYPE1  = 'a'", f"TFORM1  = '{form}'",
        "END",
    ]  # fmt: skip
    first = _cards(path, "BITPIX  =                    8", "NAXIS   =                    0").read_bytes()
    second = "".join(f"{card:80}" for card in cards).encode().ljust(2880)
    (path / "table.fits").write_bytes(first + second + (row + bytes(8)).ljust(2880, b"\0"))
    return path / "table.fits"


HEAPS: dict[str, tuple[str, bytes]] = {
    "a heap beyond its end": ("1PE(9)", struct.pack(">ii", 9, 2**31 - 1)),
    "an array of two thousand million": ("1PE(2147483647)", struct.pack(">ii", 2**31 - 1, 0)),
    "an array before the heap": ("1PE(9)", struct.pack(">ii", 9, -(2**31))),
    "a cell of a terabyte": ("999999999999E", bytes(8)),
    "a negative width": ("-1E", bytes(8)),
}
for _name, _stored in HEAPS.items():
    BOMBS[f"fits.table: {_name}"] = (lambda path, stored=_stored: _heap(path, *stored)), FORMATS["fits.table"][1][0]


SHARED: dict[str, bytes] = {
    "tensors that overlap": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
    "an end before its beginning": b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[8,0]}}',
    "a shape that overflows": b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
    "a name twice": b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
}
for _name, _header_of in SHARED.items():
    BOMBS[f"safetensors: {_name}"] = (lambda path, c=_header_of: _weighed(path, c)), FORMATS["safetensors"][1][0]


@bomb("recipe")
def merges_of_merges(path: Path) -> Path:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    return _text(path, "recipe.yaml", "\n".join(lines))


@bomb("recipe")
def an_anchor_in_itself(path: Path) -> Path:
    return _text(path, "recipe.yaml", "name: &a [*a]")
