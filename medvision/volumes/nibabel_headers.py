"""The parts of nibabel that the suite reads and writes headers with.

nibabel imports pydicom wherever it is installed, for header extensions that nothing here reads. That would add 0.3 s, a
decoder library and an HTTP client to every start, so pydicom is out of its sight while it is imported.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] - Python's way to make an import fail
    try:
        yield
    finally:
        del sys.modules[module]


with _hidden("pydicom"):
    from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.quaternions import mat2quat, quat2mat
    from nibabel.spatialimages import HeaderDataError

__all__ = ["DATA_OFFSET", "HeaderDataError", "MGHHeader", "Nifti1Header", "Nifti2Header", "mat2quat", "quat2mat"]
