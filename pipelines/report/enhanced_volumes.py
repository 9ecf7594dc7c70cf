"""The report of a scan whose slices were made thinner: a plane across them, and its profiles."""

from collections.abc import Sequence

import numpy as np

from medvision.enhancing import Enhanced
from medvision.volumes.files import Volume
from pipelines.report.enhanced import EnhancedPictures, Samples, Wording, enhanced_report
from pipelines.report.map_pictures import LEVELS, jpeg, palette, ramp
from pipelines.report.sections import Block, Bullets, Pairs, Section, data_uri
from pipelines.report.text import as_text, code, list_at, moment, part_at, text_at, words
from shared_backbones.json_values import Document, Json

_WORDING = Wording(
    kind="Enhancement report",
    difference="Change against the slices as they were given, in the scan’s standard deviations.",
    curve="Profile across the slices",
    number="Position (mm)",
    remark="Not for diagnosis: made-up detail is possible. What lies between the measured slices is inferred.",
)
_MISSING = 255


def volume_report(sidecar: Document, volume: Volume, result: Enhanced) -> str:
    """The report of an enhanced scan as an HTML page.

    Args:
        sidecar: Content of the side-car.
        volume: The scan as it was given.
        result: The scan with thinner slices.
    """
    scan, made, model = (part_at(sidecar, name) for name in ("input", "result", "model"))
    facts = [
        ("Spacing before", _millimetres(list_at(scan, "spacing_mm"))),
        ("Spacing after", _millimetres(list_at(made, "spacing_mm"))),
        ("Warnings", str(len(list_at(sidecar, "warnings")))),
    ]
    name, number = text_at(model, "name") or "unnamed model", text_at(model, "version")
    rows = [(words(key), as_text(model[key])) for key in ("name", "version", "architecture") if model.get(key)]
    rows.append(("weights, SHA-256", code(text_at(model, "sha256"))))
    again = float(str(made.get("degraded_again_rms")))
    blocks: list[Block] = [
        Pairs(rows, "Model"),
        Pairs(
            [
                ("file, SHA-256", code(text_at(scan, "sha256"))),
                ("degraded again", f"{again:.2%} of the standard deviation off (root mean square)"),
            ],
            "Scan",
        ),
        Pairs([(words(key), as_text(value)) for key, value in part_at(sidecar, "versions").items()], "Software"),
    ]
    warnings = [as_text(warning) for warning in list_at(sidecar, "warnings")]
    sections = [
        *([Section("warnings", "Warnings", [Bullets(warnings, alert=True)], contents="Warnings")] if warnings else []),
        Section("provenance", "Provenance", blocks, contents="Provenance", columns=True),
    ]
    lead = f"{f'{name} {number}'.strip()}, {moment(text_at(sidecar, 'created'))}"
    pictures = volume_pictures(volume, result)
    return enhanced_report(str(sidecar["case"]), lead, facts, pictures, _WORDING, sections, medical=True)


def volume_pictures(volume: Volume, result: Enhanced) -> EnhancedPictures:
    """A plane across the slices, through the middle: as it was given, each voxel repeated, and as it is now."""
    axis = result.axis
    other, along = (each for each in range(3) if each != axis)
    ratio = result.data.shape[axis] // volume.data.shape[axis]
    middle = volume.data.shape[other] // 2
    # rows across the slices, from the far end so that up is up in most scans, and columns along them
    before, after = (np.moveaxis(np.take(part, middle, other), 0 if axis < along else 1, 0)[::-1] for part in (
        volume.data, result.data
    ))  # fmt: skip
    before = before.repeat(ratio, 0)
    low, high = np.percentile(before, [1, 99])
    std = max(float(volume.data.std()), 1e-12)
    change = np.abs(after - before) / std
    largest = max(float(np.percentile(change, 99)), 1e-6)
    levels = np.clip(change / largest * LEVELS, 0, LEVELS - 1).astype(np.uint8)
    height, width = before.shape
    step = max(1, width // 256)
    columns, every = list(range(step // 2, width, step)), max(1, height // 128)
    positions = range(0, height, every)
    spacing = result.grid.spacing_mm
    names = [f"{position * spacing[axis]:.4g}" for position in positions]
    parts = (part[list(positions)][:, columns].T[None].astype(np.float64) for part in (before, after))
    return EnhancedPictures(
        shape=(height, width),
        aspect=spacing[axis] / spacing[along],
        shown="a plane across the slices",
        before=_grey(before, low, high),
        after=_grey(after, low, high),
        difference=data_uri(palette(np.ascontiguousarray(levels), ramp(), _MISSING), "image/png"),
        largest=f"{largest:.2g}",
        samples=Samples([height // 2], columns, names, *parts),
    )


def _grey(plane: np.ndarray, low: float, high: float) -> str:
    scaled = np.clip((plane - low) / max(high - low, 1e-12), 0, 1)
    grey = (scaled * 255).round().astype(np.uint8)
    return data_uri(jpeg(np.repeat(grey[..., None], 3, 2)), "image/jpeg")


def _millimetres(sides: Sequence[Json]) -> str:
    return " × ".join(f"{float(str(side)):.3g}" for side in sides) + " mm"
