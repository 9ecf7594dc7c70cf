#!/usr/bin/env bash
# pyogrio 0.13.0 (GDAL 3.12.4 in its wheel): reading a GeoPackage that was copied while a program had it open rewrites the copy.
#
# A GeoPackage is an SQLite database. Programs that edit one, such as QGIS, put it into WAL mode: the latest changes lie in
# a file `-wal` beside it, and a copy of a folder that is in use has both. To read such a database SQLite opens it for writing,
# and whoever closes it last moves the changes into the database and removes the other files. So `pyogrio.read_dataframe`
# or `pyogrio.raw.read`, which only read, leave another file than they were given: its hash changes, and with it whatever is
# noted of the input by hash; in a folder that a second program had copied, `-wal` is gone.
# Seen: after a read the database has another SHA-256, and `-wal` and `-shm` are removed. With GDAL's open option
# IMMUTABLE=YES the read gives the value from before the changes, and the file is rewritten all the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "pyogrio==0.13.0" "numpy==2.4.0"
"$folder/venv/bin/python" - "$folder" <<'PY'
import hashlib
import shutil
import sqlite3
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.raw

warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
live = folder / "fields.gpkg"
point = np.array([struct.pack("<BIdd", 1, 1, 15.0, 46.0)], object)
about = {"geometry_type": "Point", "crs": "EPSG:4326", "driver": "GPKG", "SPATIAL_INDEX": "NO"}
pyogrio.raw.write(live, point, [np.array([7])], ["class"], **about)
editor = sqlite3.connect(live)  # a program that edits it, and has it open
editor.execute("PRAGMA journal_mode=WAL")
editor.execute("UPDATE fields SET class = 8")
editor.commit()


def copied(name):
    target = folder / name
    target.mkdir()
    for path in folder.glob("fields.gpkg*"):
        shutil.copy(path, target / path.name)
    return target


def state(place):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:8] for path in sorted(place.iterdir())}


def read(place, **options):
    before = state(place)
    _, _, _, (classes,) = pyogrio.raw.read(place / "fields.gpkg", **options)
    return before, state(place), int(classes[0])


print("pyogrio", pyogrio.__version__, "GDAL", ".".join(map(str, pyogrio.__gdal_version__)))
before, after, number = read(copied("plain"))
print("read: class", number, "before", before, "after", after)
kept_before, kept_after, kept = read(copied("immutable"), IMMUTABLE="YES")
print("read with IMMUTABLE=YES: class", kept, "before", kept_before, "after", kept_after)
changed = "the behaviour has changed"
for first, last in ((before, after), (kept_before, kept_after)):
    assert set(first) == {"fields.gpkg", "fields.gpkg-shm", "fields.gpkg-wal"} and set(last) == {"fields.gpkg"}, changed
    assert last["fields.gpkg"] != first["fields.gpkg"], changed
assert (number, kept) == (8, 7), changed
PY
