"""When a scene was taken, as its files say it."""

import contextlib
import re
from datetime import date

from geovision.rasters import open_raster
from geovision.scene import Scene
from shared_backbones.errors import InputError

# Tags that products and drivers of GDAL give, none of which is the time at which a file was written.
_TAGS = (
    "ACQUISITIONDATETIME", "SENSING_TIME", "DATE_ACQUIRED", "PRODUCT_START_TIME", "DATATAKE_1_DATATAKE_SENSING_START",
    "acquired",
)  # fmt: skip
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?:T\d{4,6}|(?!\d))")
_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)(\d{3})(?:T\d{4,6}|(?!\d))")  # day of the year, as HLS has it


def acquisition_date(scene: Scene) -> tuple[date, str] | None:
    """The day on which a scene was taken, and whether the `file` says so or its `name`; None where neither does."""
    paths = list(dict.fromkeys(layer.path for layer in scene.layers))
    for path in paths[:1]:
        with contextlib.suppress(InputError), open_raster(path) as source:
            tags = {**source.tags(), **source.tags(ns="IMAGERY")}
            for day in filter(None, (_day_in(str(tags.get(name, ""))) for name in _TAGS)):
                return day, "file"
    return next(((day, "name") for day in (_day_in(path.name) for path in paths) if day), None)


def _day_in(text: str) -> date | None:
    """The first day in a text, as 2015-07-31, 20150731 or 2015212."""
    for match in _DATE.finditer(text):
        with contextlib.suppress(ValueError):
            return date(int(match[1]), int(match[3]), int(match[4]))
    for match in _DAY.finditer(text):
        with contextlib.suppress(ValueError):
            return date.fromordinal(date(int(match[1]), 1, 1).toordinal() + int(match[2]) - 1)
    return None
