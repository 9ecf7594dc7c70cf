#!/usr/bin/env bash
# pydicom 3.0.2: `apply_voi` looks up the wrong entries of a VOI LUT whose entries have 8 bits.
#
# A VOI LUT may have more than 256 entries of 8 bits each: DICOM PS3.3 C.11.2.1.1 lets the first number of the LUT
# Descriptor be up to 65536, whatever the third, the bits of an entry. The value less the first mapped value is an index.
# Seen: the index is kept in the type of the entries, so that of 1024 entries only the first 256 are ever used: values
# 255, 256, 700 and 1023 of a rising LUT become 63, 0, 47 and 63 instead of 63, 64, 175 and 255. The same LUT with
# entries of 16 bits is looked up rightly. There is no error and no warning; mammograms come with such LUTs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "pydicom==3.0.2" "numpy==2.4.0"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi

entries = [number // 4 for number in range(1024)]  # rises from 0 to 255


def looked_up(bits: int) -> list[int]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [1024, 0, bits])
    item.add_new("LUTData", "US", entries)
    ds = Dataset()
    ds.VOILUTSequence = [item]
    return apply_voi(np.array([0, 255, 256, 700, 1023], np.uint16), ds).tolist()


wide, narrow = looked_up(16), looked_up(8)
print("pydicom", pydicom.__version__)
print("values            [0, 255, 256, 700, 1023]")
print("entries, 16 bits ", wide)
print("entries, 8 bits  ", narrow)
assert wide == [0, 63, 64, 175, 255], "the 16-bit LUT is no longer looked up as expected"
assert narrow == [0, 63, 0, 47, 63], "the behaviour has changed"
PY
