"""What a card must say of its model's input, and the words in which a bad one is refused."""

import copy

import pytest

from medvision.channels import Channels
from medvision.contract import InputContract, modality_conflict
from shared_backbones.errors import InputError

CARD = {
    "classes": [
        {"id": 0, "name": "background", "color": [0, 0, 0]},
        {"id": 1, "name": "white_matter", "color": [255, 255, 0]},
        {"id": 2, "name": "cortex", "color": [0, 255, 0]},
        {"id": 3, "name": "fluid", "color": [0, 0, 255]},
    ],
    "input": {
        "spacing_mm": 1.5,
        "slices": [-1, 0, 1],
        "views": ["axial", "coronal"],
        "normalisation": "rescale_intensity",
        "smallest_slice": 64,
        "attached": [3],
        "attached_mm": 7.5,
    },
    "bfloat16_agreement": 0.9992,
}
MISSING = object()


def changed(where: str, value: object) -> dict:
    """The card with one entry changed or missing."""
    card = copy.deepcopy(CARD)
    *path, last = (int(key) if key.isdigit() else key for key in where.split("."))
    part = card
    for key in path:
        part = part[key]  # type: ignore[index]
    if value is MISSING:
        del part[last]  # type: ignore[arg-type]
    else:
        part[last] = value  # type: ignore[index]
    return card


def test_a_card_is_read():
    contract = InputContract.from_card(CARD, "m")
    assert (contract.spacing_mm, contract.slices, contract.views) == ((1.5,) * 3, (-1, 0, 1), ("axial", "coronal"))
    assert (contract.smallest_slice, contract.attached, contract.attached_mm) == (64, (3,), 7.5)
    assert contract.bfloat16_agreement == 0.9992
    assert [entry["name"] for entry in contract.classes] == ["background", "white_matter", "cortex", "fluid"]


def test_a_card_of_a_3d_network_is_read():
    contract = InputContract.from_card(changed("input.patch", [64, 96, 32]), "m")
    assert (contract.patch, contract.overlap, contract.mirror_axes) == ((64, 96, 32), 0.5, ())
    assert (contract.slices, contract.views) == ((), ())


def test_spacings_that_monai_takes_for_one_are_the_scans_own():
    card = changed("input.resampling", "monai")
    assert InputContract.from_card(card, "m").spacing_for((1.5004, 1.4, 1.5)) == (1.5004, 1.5, 1.5)
    assert InputContract.from_card(CARD, "m").spacing_for((1.5004, 1.4, 1.5)) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("how", ["zscore", "none", {"name": "zscore", "nonzero": True}])
def test_a_volume_without_a_value_of_the_background_is_not_cropped(how):
    assert not InputContract.from_card(changed("input.normalisation", how), "m").crops
    assert InputContract.from_card(CARD, "m").crops
    assert not InputContract.from_card(changed("input.crop", False), "m").crops


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("input.patch", [64, 64], "cannot be used"),
        ("input.patch", [64, 64, 4], "patch is"),
        ("input.patch", 64, "cannot be used"),
        ("input.overlap", 1, "overlap is 1"),
        ("input.mirror_axes", [3], "mirror_axes is"),
        ("input.mirror_axes", [0, 0], "mirror_axes is"),
        ("input.resampling", "cubic", "resampling is 'cubic', expected antialiased or monai"),
        ("input.window_weights", 1, "window_weights is 1"),
        ("input.crop", "false", "crop is 'false'"),
        ("input.crop", 0, "crop is 0"),
        ("input.normalisation", {"name": "minmax", "out_high": float("inf")}, "expected finite numbers"),
        ("classes", MISSING, "lacks 'classes'"),
        ("classes", [], "cannot be used"),
        ("classes", "many", "cannot be used"),
        ("classes.2.id", 5, "numbered 0, 1"),
        ("classes.2.id", MISSING, "lacks 'id'"),
        ("classes.2.name", "", "name of its own"),
        ("classes.2.name", "white_matter", "name of its own"),
        ("classes.2.name", 7, "name of its own"),
        ("classes.2.color", MISSING, "lacks 'color'"),
        ("classes.2.color", [0, 0, 256], "color of cortex"),
        ("classes.2.color", [0, 0], "color of cortex"),
        ("classes.2", "cortex", "cannot be used"),
        ("input", MISSING, "lacks 'input'"),
        ("input", ["axial"], "cannot be used"),
        ("input.spacing_mm", MISSING, "lacks 'spacing_mm'"),
        ("input.spacing_mm", "wide", "'wide'"),
        ("classes.1.code", ["SCT", "123"], "code of white_matter"),
        ("classes.1.code", ["SCT", "1" * 17, "White matter"], "code of white_matter"),
        ("input.spacing_mm", 0.01, "spacing_mm is 0.01"),
        ("input.spacing_mm", [1, 1], "spacing_mm has 2 values"),
        ("input.spacing_mm", [1, None, 0.01], "spacing_mm is 0.01"),
        ("input.spacing_mm", float("nan"), "spacing_mm is nan"),
        ("input.slices", [], "slices is empty"),
        ("input.slices", 3, "cannot be used"),
        ("input.slices", [float("inf")], "cannot be used"),
        ("input.views", [], "one to three"),
        ("input.views", "axial", "view 'a'"),
        ("input.views", ["axial", "axial"], "different"),
        ("input.views", [["axial"]], "cannot be used"),
        ("input.normalisation", MISSING, "normalisation is None"),
        ("input.normalisation", "z-score", "'z-score'"),
        ("input.normalisation", {"name": "rescale_intensity", "version": 3}, "rescale_intensity has no version 3"),
        ("input.smallest_slice", 0, "smallest_slice is 0"),
        ("input.smallest_slice", 10**6, "smallest_slice is 1000000"),
        ("input.attached", [1, 2, 3], "not of all"),
        ("input.attached", [9], "expected ids"),
        ("input.attached_mm", -1, "attached_mm is -1"),
        ("bfloat16_agreement", None, "cannot be used"),
    ],
)
def test_a_bad_card_is_one_line_that_names_the_model(where, value, message):
    with pytest.raises(InputError, match=message) as caught:
        InputContract.from_card(changed(where, value), "folder/m")
    line = str(caught.value)
    assert line.startswith("model folder/m: its card") and "\n" not in line


def test_labels_are_known_by_name_and_number():
    channels = Channels(InputContract.from_card(CARD, "m").classes)
    assert channels.label_ids(["cortex", "1", "2"]) == [1, 2]
    for wanted in (["cortex", "bone"], ["0"], ["background"], ["4"], []):
        with pytest.raises(InputError, match="expected some of 1 white_matter, 2 cortex, 3 fluid"):
            channels.label_ids(wanted)


@pytest.mark.parametrize(
    ("expected", "found", "conflict"),
    [
        ("T1-weighted MRI", "CT", True),
        ("T1-weighted MRI", "MR", False),
        ("CT", "MR", True),
        ("contrast-enhanced CT", "CT", False),
        ("PET or CT", "PT", False),
        ("T1-weighted MRI", None, False),
        ("photographs", "CT", False),
        (None, "CT", False),
    ],
)
def test_a_scan_of_another_modality_is_told_where_both_say_what_they_are(expected, found, conflict):
    clause = modality_conflict(expected, found)
    assert clause == (f"the scan's header says {found}, the model expects {expected}" if conflict else None)
