"""Headers of FITS images: what they say of the sky, of bands and of fluxes."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from astrovision.astropy_types import Hdus, Header
from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:  # astropy is imported where a file is opened
    from astropy.wcs import WCS

_FILTERS = ("FILTER", "FILTNAM", "BAND")  # keywords that name a band
_PLAIN = {0: 0.0, 1: 0.0, 2: 90.0}  # PV terms of the longitude that change nothing by the standard
_SIP_ORDERS, _HIGHEST_ORDER = ("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER"), 9  # by the convention
_ZERO_POINTS = ("MAGZERO", "MAGZPT", "MAGZP", "ZP", "ZEROPNT", "PHOTZP")  # magnitude of a flux of one


def celestial(header: Header, hdus: Hdus, label: str) -> tuple["WCS | None", tuple[str, ...]]:
    """The WCS of columns and rows, if those are longitude and latitude, in either order; and what is odd about it.

    Args:
        header: header of the image.
        hdus: the file's HDUs, where tables of distortion lie.
        label: name of the image, for messages.

    Raises:
        InputError: PV terms have no clear meaning.
    """
    from astropy.wcs import WCS

    header, notices = _unambiguous(header, label)
    try:
        orders = {key: header[key] for key in _SIP_ORDERS if key in header}
        if any(not isinstance(order, int) or order > _HIGHEST_ORDER for order in orders.values()):
            raise ValueError(f"SIP terms of another order than 0 to {_HIGHEST_ORDER}")  # each power is looked for
        wcs = WCS(header, hdus, naxis=2)
        if not wcs.has_celestial:
            return None, ()
        wcs.pixel_to_world_values(0, 0)  # what cannot be used says so here
        with np.errstate(invalid="ignore"):
            if not np.isfinite(wcs.pixel_scale_matrix).all():  # such as an infinite CDELT
                return None, ()
        if wcs.sip is not None and not any(str(name).endswith("-SIP") for name in wcs.wcs.ctype):
            shape = (int(header.get("NAXIS2", 1)), int(header.get("NAXIS1", 1)))
            notices.append(
                f"has SIP terms, but no -SIP in CTYPE; they are applied, and shift positions by up to "
                f"{_largest_shift(wcs, shape):.3g} pixels: add -SIP, or remove the terms"
            )
    except Exception as error:  # wcslib raises errors of every kind
        reason = printable(" ".join(str(error).split()))[:160]
        return None, (f"has a WCS that cannot be used ({reason}); it is passed over",)
    return wcs, tuple(notices)


def band_names(header: Header, primary: Header, count: int) -> list[str]:
    """Names of an HDU's planes that its header or the file's first one gives; "" where it gives none."""
    for cards in (header, primary):
        if count == 1:
            names = {_clean(str(cards[key])) for key in _FILTERS if isinstance(cards.get(key), str)} - {""}
            if len(names) == 1:
                return [names.pop()]
            continue
        for first in (0, 1):
            names = [_clean(str(cards.get(f"BAND{first + number}", ""))) for number in range(count)]
            if all(names) and len(set(names)) == count:
                return names
        together = [_clean(name) for name in re.findall(r"\w+", str(cards.get("BANDS", "")))]
        names = list(together[0]) if len(together) == 1 else together
        if len(names) == count == len(set(names)):
            return names
    return [""] * count


def zero_point(headers: Sequence[Header]) -> float | None:
    """Magnitude of a flux of one (MAGZERO, ZP and the like); None where no header, or more than one value, says it."""
    for header in headers:
        points = {float(header[key]) for key in _ZERO_POINTS if _is_number(header.get(key))}
        if points:
            return points.pop() if len(points) == 1 else None
    return None


def _unambiguous(header: Header, label: str) -> tuple[Header, list[str]]:
    """A copy with words as the standard writes them, whose PV terms mean what their writer meant."""
    header, notices = header.copy(), []
    _standardise(header)
    names = {axis: str(header.get(f"CTYPE{axis}", "")).strip().upper() for axis in (1, 2)}
    terms = [match for key in header for match in [re.fullmatch(r"PV([12])_(\d+)", str(key))] if match]
    latitude = next((axis for axis, name in names.items() if name.startswith(("DEC", "GLAT", "ELAT"))), 2)
    odd = [match for match in terms if int(match[1]) == latitude or int(match[2]) not in (3, 4)]
    if not odd or not all(re.fullmatch(r".{4}-TAN(-SIP)?", name) for name in names.values()):
        odd = []
    if odd and "A_ORDER" in header and "B_ORDER" in header:  # the same distortion again, as some archives write it
        for match in terms:
            del header[match[0]]
        notices.append(f"has PV terms beside SIP terms and CTYPE {names[1]}; the SIP terms are applied, the others not")
    elif any(int(match[1]) == latitude or header[match[0]] != _PLAIN.get(int(match[2])) for match in odd):
        if not any(int(match[1]) == latitude or int(match[2]) > 4 for match in odd):
            raise InputError(
                f"{label}: has {', '.join(match[0] for match in odd)} beside CTYPE {names[1]}: by the standard they "
                "turn the sky, by SCAMP they distort it; write TPV in place of TAN for the second, or remove the terms"
            )
        for axis, name in names.items():
            header[f"CTYPE{axis}"] = name[:5] + "TPV"
            header.setdefault(f"PV{axis}_1", 1.0)
        notices.append(f"has PV terms beside CTYPE {names[1]}; they are applied as the distortion TPV, as SCAMP means")
    if latitude == 1 and any(str(header.get(f"CTYPE{axis}", ""))[5:8] == "TPV" for axis in (1, 2)):
        raise InputError(  # wcslib takes its first axis for the longitude
            f"{label}: has the distortion TPV, and its latitude as the first axis, which is not read; swap the axes, "
            "or reproject it, for example with the package reproject"
        )
    return header, notices


def _standardise(header: Header) -> None:
    """Write frames, axes, units and equinoxes as the standard does, which wcslib passes over otherwise."""
    for key in ("RADESYS", "RADECSYS", "CTYPE1", "CTYPE2"):
        if isinstance(header.get(key), str):
            header[key] = header[key].strip().upper()
    for key in ("CUNIT1", "CUNIT2"):
        if isinstance(header.get(key), str):
            header[key] = re.sub(r"^deg(s|rees?)$", "deg", header[key].strip().lower())
    for key in ("EQUINOX", "EPOCH"):
        if match := re.fullmatch(r"([BJ]?)(\d{4}(?:\.\d*)?)", str(header.get(key)).strip().upper()):
            header[key] = float(match[2])
            if match[1] and not {"RADESYS", "RADECSYS"} & set(header):
                header["RADESYS"] = "FK4" if match[1] == "B" else "FK5"
    for axis in (1, 2):  # which wcslib takes to be 0 where nothing is said
        if str(header.get(f"CTYPE{axis}", ""))[5:8] == "TPV":
            header.setdefault(f"PV{axis}_1", 1.0)


def _largest_shift(wcs: "WCS", shape: tuple[int, int]) -> float:
    """By how many pixels positions at the borders and the centre move under distortion."""
    height, width = shape
    x, y = (part.ravel() for part in np.meshgrid(np.linspace(0, width - 1, 5), np.linspace(0, height - 1, 5)))
    moved = wcs.wcs_world2pix(*wcs.all_pix2world(x, y, 0), 0)
    return float(np.nanmax(np.hypot(moved[0] - x, moved[1] - y)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _clean(text: str) -> str:
    return printable(text.strip())[:32]
