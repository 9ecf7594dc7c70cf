#!/usr/bin/env bash
# rasterio 1.4.4 (GDAL 3.10.3 in its wheel): a GeoTIFF that meets a full disk while it is closed is cut short in silence.
#
# GDAL keeps what is written in its block cache, and writes most of a small file when the data set is closed. A write that
# fails then is a line of libtiff on standard error, and nothing else: neither `close` nor the `with` block raises, and
# the program goes on with a file that cannot be read. A limit on the size of files stands for the full disk here.
# Seen: a raster of 256 x 256 bytes under a limit of 20,000 bytes is written without an exception; reading it raises
# RasterioIOError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "rasterio==1.4.4" "numpy==2.4.0"
"$folder/venv/bin/python" - "$folder/map.tif" <<'PY'
import os
import resource
import signal
import sys
import warnings

import numpy as np
import rasterio

warnings.simplefilter("ignore")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing beyond the limit then fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
values = np.random.default_rng(1).integers(0, 255, (1, 256, 256), dtype=np.uint8)
raised = None
try:
    with rasterio.open(sys.argv[1], "w", driver="GTiff", width=256, height=256, count=1, dtype="uint8") as target:
        target.write(values)
except Exception as error:
    raised = error
reading = None
try:
    with rasterio.open(sys.argv[1]) as source:
        source.read()
except rasterio.errors.RasterioIOError as error:
    reading = error
print("rasterio", rasterio.__version__, "GDAL", rasterio.__gdal_version__)
print("writing raised:", raised, "; bytes there:", os.path.getsize(sys.argv[1]), "of", values.size)
print("reading raised:", type(reading).__name__)
assert raised is None and reading is not None, "the behaviour has changed"
PY
