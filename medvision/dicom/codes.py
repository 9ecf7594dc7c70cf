"""Codes of structures in DICOM segmentations: SNOMED CT where DICOM's own dictionaries have one, else a private one."""

import hashlib
from collections.abc import Mapping
from typing import Any

PRIVATE_SCHEME = "99DOMAINVISION"
ANATOMICAL_STRUCTURE = ("SCT", "91723000", "Anatomical Structure")

# As pydicom's dictionary has them, which is made from the standard's part 16.
_SNOMED = {
    "aorta": ("15825003", "Aorta"),
    "brainstem": ("119238007", "Brain Stem"),
    "cerebellar_cortex": ("25991003", "Cerebellar Cortex"),
    "cerebellar_white_matter": ("33060004", "Cerebellar White Matter"),
    "cerebral_cortex": ("40146001", "Cerebral cortex"),
    "cerebral_white_matter": ("68523003", "Cerebral White Matter"),
    "gallbladder": ("28231008", "Gallbladder"),
    "liver": ("10200004", "Liver"),
    "pancreas": ("15776009", "Pancreas"),
    "spleen": ("78961009", "Spleen"),
    "stomach": ("69695003", "Stomach"),
    "ventricles": ("35764002", "Brain ventricle"),
}


def code_of(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    """Coding scheme, value and meaning of a class of a model's card.

    The card's own `code` comes first, then SNOMED CT by the class's name. A class that neither knows, such as one that
    joins several structures, has a code of the suite's private scheme, made from its name.
    """
    name = str(entry["name"])
    if entry.get("code"):
        scheme, value, meaning = entry["code"]
        return str(scheme), str(value), str(meaning)
    if name in _SNOMED:
        return ("SCT", *_SNOMED[name])
    return PRIVATE_SCHEME, hashlib.sha256(name.encode()).hexdigest()[:12], clean(name.replace("_", " "))


def clean(text: str) -> str:
    """Text fit for a DICOM long string: 64 characters, none of them a separator or invisible."""
    return "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in text)[:64].strip() or "-"
