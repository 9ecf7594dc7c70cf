"""Numbers of brain structures in the label maps that the field uses, and the nine structures of `brain-structures`."""

import numpy as np

STRUCTURES = (
    "background",
    "cerebral_white_matter",
    "cerebral_cortex",
    "deep_grey_nuclei",
    "hippocampus_amygdala",
    "ventricles",
    "other_csf",
    "brainstem",
    "cerebellar_white_matter",
    "cerebellar_cortex",
)
"""Deep grey nuclei: thalamus, caudate, putamen, pallidum, accumbens, ventral diencephalon."""

RIGHT_TO_LEFT = {41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 57: 25}
"""FreeSurfer and SynthSeg ids of right structures, and of the same on the left."""
RIGHT_TO_LEFT |= {58: 26, 60: 28, 62: 30, 163: 136, 164: 137}

_LEFT_AND_MIDLINE = {
    **dict.fromkeys((2, 25, 77, 251, 252, 253, 254, 255), 1),
    3: 2,
    **dict.fromkeys((10, 11, 12, 13, 26, 28), 3),
    **dict.fromkeys((17, 18), 4),
    **dict.fromkeys((4, 5, 14, 15, 136, 137), 5),
    24: 6,
    16: 7,
    7: 8,
    8: 9,
}
FREESURFER = {
    0: 0,
    **_LEFT_AND_MIDLINE,
    **{right: _LEFT_AND_MIDLINE[left] for right, left in RIGHT_TO_LEFT.items() if left in _LEFT_AND_MIDLINE},
}
"""Structure of each FreeSurfer (aseg) or SynthSeg id."""

_PARTS_OF_MAPS = {25: 2, 77: 2, 136: 4, 137: 5}
PARTS = {2: 1, 3: 2, **dict.fromkeys((10, 11, 12, 13, 26, 28), 3), 17: 4, 18: 4, **dict.fromkeys((4, 5, 14, 15), 5)}
PARTS |= {24: 6, 16: 7, 7: 8, 8: 9}
"""The parts that a network learns, by the FreeSurfer id of the left or only one, and the structure each belongs to."""

LEFT_TO_RIGHT = {left: right for right, left in RIGHT_TO_LEFT.items() if left in PARTS}
"""FreeSurfer ids of the parts that have two sides."""

_PART_OF = {0: 0, **{part: part for part in PARTS}, **_PARTS_OF_MAPS}
PART_IDS = {
    **_PART_OF,
    **{right: LEFT_TO_RIGHT[_PART_OF[left]] for right, left in RIGHT_TO_LEFT.items() if left in _PART_OF},
}
"""FreeSurfer id of the part, its side kept, for each id of a label map."""

NEUROMORPHOMETRICS = {
    0: 0,
    **dict.fromkeys((44, 45), 1),
    **dict.fromkeys(range(100, 208), 2),
    **dict.fromkeys((23, 30, 36, 37, 55, 56, 57, 58, 59, 60, 61, 62), 3),
    **dict.fromkeys((31, 32, 47, 48), 4),
    **dict.fromkeys((4, 11, 49, 50, 51, 52), 5),
    46: 6,
    35: 7,
    **dict.fromkeys((40, 41), 8),
    **dict.fromkeys((38, 39, 71, 72, 73), 9),
}
"""Structure of each id of the Neuromorphometrics protocol (MICCAI 2012 multi-atlas labels)."""

UNSCORED = -1


def structures_of(ids: np.ndarray, table: dict[int, int]) -> np.ndarray:
    """Structures of a label map.

    Args:
        ids: integer ids, any shape.
        table: `FREESURFER` or `NEUROMORPHOMETRICS`.

    Returns:
        int16 of the same shape: 0 background, 1 to 9, and `UNSCORED` where the table has no place for an id.
    """
    known, places = np.unique(ids, return_inverse=True)
    values = np.array([table.get(int(number), UNSCORED) for number in known], dtype=np.int16)
    return values[places].reshape(ids.shape)
