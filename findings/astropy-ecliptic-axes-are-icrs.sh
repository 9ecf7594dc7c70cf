#!/usr/bin/env bash
# astropy 8.0.2: a WCS in ecliptic coordinates without RADESYS is given the frame ICRS, without an error or a warning.
#
# The axes ELON-TAN and ELAT-TAN are ecliptic longitude and latitude (FITS WCS paper II, table 2); RADESYS may be left
# out and then is ICRS, which says what the ecliptic refers to, not that the axes are right ascension and declination.
# Seen: `wcs_to_celestial_frame` gives the ICRS frame, so `pixel_to_world` of a pixel at ecliptic (80, 10) is a SkyCoord
# with RA 80 and Dec 10: 23 degrees from the place. Galactic axes (GLON, GLAT) beside it get their frame. A catalogue is
# then matched with the wrong part of the sky wherever SkyCoords of WCS objects are used.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "astropy==8.0.2" "numpy==2.4.0"
"$folder/venv/bin/python" - <<'PY'
import warnings

import astropy
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame


def header(longitude: str, latitude: str) -> fits.Header:
    return fits.Header(
        {
            "NAXIS": 2, "NAXIS1": 100, "NAXIS2": 100, "CTYPE1": f"{longitude}-TAN", "CTYPE2": f"{latitude}-TAN",
            "CRVAL1": 80.0, "CRVAL2": 10.0, "CRPIX1": 50.5, "CRPIX2": 50.5, "CDELT1": -0.01, "CDELT2": 0.01,
            "CUNIT1": "deg", "CUNIT2": "deg",
        }
    )


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ecliptic, galactic = WCS(header("ELON", "ELAT")), WCS(header("GLON", "GLAT"))
    frames = [type(wcs_to_celestial_frame(wcs)).__name__ for wcs in (ecliptic, galactic)]
    centre = ecliptic.pixel_to_world(49.5, 49.5)
meant = SkyCoord(80 * u.deg, 10 * u.deg, frame=BarycentricMeanEcliptic()).icrs
apart = centre.icrs.separation(meant).deg
print("astropy", astropy.__version__)
print("frame of ELON, ELAT:", frames[0], " of GLON, GLAT:", frames[1], " warnings:", len(caught))
print(f"centre as astropy has it: {centre.to_string()}; as meant: {meant.to_string()}; {apart:.1f} degrees apart")
assert frames == ["ICRS", "Galactic"], "the behaviour has changed"
assert apart > 20 and not caught, "the behaviour has changed"
PY
