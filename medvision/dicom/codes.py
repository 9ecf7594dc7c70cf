"""Codes of structures in DICOM segmentations: SNOMED CT where DICOM's own dictionaries have one, else a private one."""

import hashlib
import re
from dataclasses import dataclass

from shared_backbones.card import ClassEntry

PRIVATE_SCHEME = "99DOMAINVISION"

Code = tuple[str, str, str]
"""Coding scheme, value and meaning."""


@dataclass(frozen=True)
class StructureCodes:
    """What a segment shows.

    Attributes:
        category: Category in context group 7150, such as an anatomical structure.
        kind: Code of the structure.
        modifiers: Codes that make it more specific, such as its side.
    """

    category: Code
    kind: Code
    modifiers: tuple[Code, ...] = ()


def codes_of(entry: ClassEntry) -> StructureCodes:
    """Codes of a class of a model's card.

    The card's own `code` comes first, then SNOMED CT by the class's name, such as `left_kidney` or `kidney_left`. A
    class that neither knows, such as one that joins several structures, has a code of the suite's private scheme, made
    from its name.
    """
    name = str(entry["name"])
    code = entry.get("code")
    if code:
        scheme, value, meaning = code
        return StructureCodes(_ANATOMICAL_STRUCTURE, (str(scheme), str(value), str(meaning)))
    words = re.findall(r"[a-z0-9]+", name.lower())
    modifiers: list[Code] = []
    while words:
        for category, names in CATEGORIES.items():
            if "_".join(words) in names:
                return StructureCodes(category, ("SCT", *names["_".join(words)]), tuple(modifiers))
        place = next((place for place in (0, -1) if words[place] in MODIFIERS), None)
        if place is None:
            break
        modifiers.append(("SCT", *MODIFIERS[words.pop(place)]))
    private = (PRIVATE_SCHEME, hashlib.sha256(name.encode()).hexdigest()[:12], clean(name.replace("_", " ")))
    return StructureCodes(_ANATOMICAL_STRUCTURE, private)


def clean(text: str) -> str:
    """Text fit for a DICOM long string: 64 characters, none of them a separator or invisible."""
    return "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in text)[:64].strip() or "-"


# As pydicom's dictionary has them, which is made from the standard's part 16.
_ANATOMICAL_STRUCTURE = ("SCT", "91723000", "Anatomical Structure")
MODIFIERS = {
    "left": ("7771000", "Left"),
    "right": ("24028007", "Right"),
    "anterior": ("255549009", "Anterior"),
    "posterior": ("255551008", "Posterior"),
    "deep": ("795002", "Deep"),
}
_STRUCTURES = {
    "accumbens": ("427667007", "Nucleus Accumbens"),
    "adrenal_gland": ("23451007", "Adrenal gland"),
    "amygdala": ("4958002", "Amygdala"),
    "aorta": ("15825003", "Aorta"),
    "ascending_aorta": ("54247002", "Ascending aorta"),
    "bladder": ("89837001", "Bladder"),
    "brain": ("12738006", "Brain"),
    "brainstem": ("119238007", "Brain Stem"),
    "caudate": ("11000004", "Caudate Nucleus"),
    "cerebellar_cortex": ("25991003", "Cerebellar Cortex"),
    "cerebellar_white_matter": ("33060004", "Cerebellar White Matter"),
    "cerebellum": ("113305005", "Cerebellum"),
    "cerebral_cortex": ("40146001", "Cerebral cortex"),
    "cerebral_white_matter": ("68523003", "Cerebral White Matter"),
    "colon": ("71854001", "Colon"),
    "corpus_callosum": ("88442005", "Corpus callosum"),
    "descending_aorta": ("281130003", "Descending aorta"),
    "duodenum": ("38848004", "Duodenum"),
    "esophagus": ("32849002", "Esophagus"),
    "femur": ("71341001", "Femur"),
    "fourth_ventricle": ("35918002", "Fourth Ventricle"),
    "gallbladder": ("28231008", "Gallbladder"),
    "globus_pallidus": ("14738005", "Globus Pallidus"),
    "gray_matter": ("389081007", "Gray Matter"),
    "grey_matter": ("389081007", "Gray Matter"),
    "grey_nuclei": ("389081007", "Gray Matter"),
    "heart": ("80891009", "Heart"),
    "hippocampus": ("5366008", "Hippocampus"),
    "inferior_vena_cava": ("64131007", "Inferior vena cava"),
    "kidney": ("64033007", "Kidney"),
    "lateral_ventricle": ("66720007", "Lateral Ventricle"),
    "left_atrium": ("82471001", "Left atrium"),
    "left_ventricle": ("87878005", "Left ventricle"),
    "left_ventricle_myocardium": ("49848007", "Left Ventricle Myocardium"),
    "liver": ("10200004", "Liver"),
    "lung": ("39607008", "Lung"),
    "pallidum": ("14738005", "Globus Pallidus"),
    "pancreas": ("15776009", "Pancreas"),
    "portal_vein": ("32764006", "Portal vein"),
    "prostate": ("41216001", "Prostate"),
    "pulmonary_artery": ("81040000", "Pulmonary artery"),
    "putamen": ("89278009", "Putamen"),
    "right_atrium": ("73829009", "Right atrium"),
    "right_ventricle": ("53085002", "Right ventricle"),
    "skull": ("89546000", "Skull"),
    "small_intestine": ("30315005", "Small intestine"),
    "spinal_cord": ("2748008", "Spinal cord"),
    "spleen": ("78961009", "Spleen"),
    "splenic_vein": ("35819009", "Splenic vein"),
    "stomach": ("69695003", "Stomach"),
    "superior_vena_cava": ("48345005", "Superior vena cava"),
    "thalamus": ("42695009", "Thalamus"),
    "third_ventricle": ("49841001", "Third ventricle"),
    "trachea": ("44567001", "Trachea"),
    "urinary_bladder": ("89837001", "Bladder"),
    "uterus": ("35039007", "Uterus"),
    "ventricles": ("35764002", "Brain ventricle"),
    "vertebra": ("51282000", "Vertebra"),
    "white_matter": ("389080008", "White Matter"),
}
_SUBSTANCES = {
    "cerebrospinal_fluid": ("65216001", "Cerebrospinal Fluid"),
    "csf": ("65216001", "Cerebrospinal Fluid"),
    "other_csf": ("65216001", "Cerebrospinal Fluid"),  # all that lies outside the ventricles
}
_ABNORMAL = {
    "cyst": ("367643001", "Cyst"),
    "edema": ("79654002", "Edema"),
    "lesion": ("52988006", "Lesion"),
    "mass": ("4147007", "Mass"),
    "necrosis": ("6574001", "Necrosis"),
    "tumor": ("108369006", "Neoplasm"),
    "tumour": ("108369006", "Neoplasm"),
}
CATEGORIES = {
    _ANATOMICAL_STRUCTURE: _STRUCTURES,
    ("SCT", "91720002", "Body Substance"): _SUBSTANCES,
    ("SCT", "49755003", "Morphologically Abnormal Structure"): _ABNORMAL,
}
