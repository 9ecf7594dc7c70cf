#!/usr/bin/env bash
# astropy 8.0.2 (with the wcslib that it brings): TPV axes with the declination first are exchanged, without an error.
#
# FITS lets celestial axes come in either order: CTYPE1 = DEC--TAN with CTYPE2 = RA---TAN is as good as the usual one,
# and gives the same sky. With the distortion TPV, whose PV terms are numbered by axis, a step along the axis of the
# right ascension is taken for one in declination, and the other way round. The terms here are the neutral ones
# (PVi_1 = 1), so that TPV should be TAN. Seen: 48.5 pixels of 0.01 degrees along right ascension from (80, 10) are at
# (79.51, 10.00) for TAN in both orders and for TPV in the usual one; at (80.00, 10.48) for TPV with the declination first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "astropy==8.0.2" "numpy==2.4.0"
"$folder/venv/bin/python" - <<'PY'
import warnings

import astropy
from astropy.io import fits
from astropy.wcs import WCS


def place(code: str, right_ascension: int, declination: int) -> tuple[float, float]:
    """Where 48.5 pixels along the axis of the right ascension lead."""
    header = fits.Header({"NAXIS": 2, "NAXIS1": 100, "NAXIS2": 100})
    for axis, name, value, step in ((right_ascension, "RA---", 80.0, -0.01), (declination, "DEC--", 10.0, 0.01)):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"], header[f"CDELT{axis}"] = name + code, value, step
        header[f"CRPIX{axis}"], header[f"CUNIT{axis}"] = 50.5, "deg"
        if code == "TPV":
            header[f"PV{axis}_1"] = 1.0
    pixel = [49.5, 49.5]
    pixel[right_ascension - 1] += 48.5
    sky = WCS(header).pixel_to_world(*pixel)
    return round(float(sky.ra.deg), 3), round(float(sky.dec.deg), 3)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    seen = {(code, first): place(code, *axes) for code in ("TAN", "TPV")
            for first, axes in (("right ascension", (1, 2)), ("declination", (2, 1)))}
print("astropy", astropy.__version__)
for (code, first), sky in seen.items():
    print(f"{code}, {first} first: {sky}")
usual = {sky for key, sky in seen.items() if key != ("TPV", "declination")}
assert len(usual) == 1 and abs(usual.pop()[0] - 79.508) < 0.01, "the behaviour has changed"
assert abs(seen["TPV", "declination"][1] - 10.485) < 0.01 and not caught, "the behaviour has changed"
PY
