"""Names for what astropy gives, whose annotations are too wide or too narrow to be of use."""

from typing import Any, TypeAlias

Hdu: TypeAlias = Any
"""An HDU, with what its kind has: annotations say nothing of lazily made attributes."""
Hdus: TypeAlias = Any
"""An `astropy.io.fits.HDUList`."""
Header: TypeAlias = Any
"""An `astropy.io.fits.Header`, in whose annotations values cannot be told from headers and comments."""
Table: TypeAlias = Any
"""An `astropy.table.Table`, in whose annotations columns cannot be told from rows and tables."""
TableColumn: TypeAlias = Any
"""A column of one, masked where values are missing."""
Unit: TypeAlias = Any
"""A unit of `astropy.units`, also one that is in no standard."""
Frame: TypeAlias = Any
"""A frame of `astropy.coordinates`."""
Sky: TypeAlias = Any
"""A SkyCoord, or an angle of one, whose attributes depend on its frame."""
