"""What a header holds against the standard keeps no segmentation from being written, and is named before the work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement

from medvision.dicom.segmentations import check_source, read_segmentation, write_segmentation
from medvision.dicom.series import read_series
from shared_backbones.errors import InputError
from tests.medvision.dicom.dicoms import make_enhanced, make_slices, write_series
from tests.medvision.dicom.test_numbers import write_as
from tests.medvision.dicom.test_segmentations import CARD, HASH, SHAPE, STORED, make_map
from tests.medvision.phantoms import make_affine

LACKS = "the DICOM segmentation lacks attributes whose values have another form than the standard's: "
ODD = {
    "StudyTime": "10:10:10", "StudyDate": "2020-01-02", "PatientBirthDate": "unknown", "PatientSex": "Male",
    "PatientAge": "42", "AccessionNumber": "x" * 17, "PatientSize": "1,80", "PatientWeight": "80 kg",
    "StudyID": "far more than sixteen", "PatientBirthTime": "noon", "StudyDescription": "x" * 70,
}  # fmt: skip
NONE_OF_OURS = {"ContentDate": "today", "EchoTime": "3,5", "SeriesTime": "1:2:3", "PatientPosition": "supine"}

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value length", "ignore:Value")


@settings(max_examples=10, deadline=None)
@given(
    odd=st.sets(st.sampled_from(sorted(ODD)), min_size=1), other=st.sets(st.sampled_from(sorted(NONE_OF_OURS))),
    enhanced=st.booleans(),
)  # fmt: skip
def test_attributes_of_another_form_are_left_out_and_named(
    tmp_path_factory: Any, odd: set[str], other: set[str], enhanced: bool
):
    folder = tmp_path_factory.mktemp("study")
    affine = make_affine("LPS")
    images = [make_enhanced(STORED, affine)] if enhanced else make_slices(STORED, affine)
    for dataset in images:
        dataset.PatientName, dataset.PatientID = "Doe^Jane", "42"
        set_text(dataset, {key: (ODD | NONE_OF_OURS)[key] for key in odd | other})
    volume = read_series(write_series(folder / "series", images))
    (clause,) = check_source(volume)
    assert clause.startswith(LACKS) and set(clause.removeprefix(LACKS).split(", ")) == odd
    assert not any(ODD[key] in clause for key in odd)
    labels = make_map()
    write_segmentation(folder / "seg.dcm", labels, volume, CARD, HASH)
    written = dcmread(folder / "seg.dcm")
    assert (written.PatientName, written.PatientID) == ("Doe^Jane", "42")
    assert not any(written.get(key) for key in odd)
    assert np.array_equal(read_segmentation(folder / "seg.dcm", grid=volume.grid)[0].data, labels)


def set_text(dataset: Any, tags: dict[str, str]) -> None:
    """Set attributes as their types, without a look at the values."""
    from pydicom import config

    mode = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    try:
        for key, value in tags.items():
            kind = "UT" if key in ("PatientSize", "PatientWeight", "EchoTime") else None
            if kind:
                dataset[key] = DataElement(key, kind, value)
            else:
                setattr(dataset, key, value)
    finally:
        config.settings.reading_validation_mode, config.settings.writing_validation_mode = mode


def test_attributes_in_the_standards_form_are_kept(tmp_path: Path):
    tags: dict[str, Any] = {
        "StudyTime": "101010.5",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "PatientAge": "050Y",
    }
    volume = read_series(write_series(tmp_path / "s", make_slices(STORED, make_affine("LPS"), **tags)))
    assert check_source(volume) == []
    write_segmentation(tmp_path / "seg.dcm", make_map(), volume, CARD, HASH)
    written = dcmread(tmp_path / "seg.dcm")
    assert {key: str(written.get(key)) for key in tags} == tags


def test_spacings_with_commas_are_written_with_points(tmp_path: Path):
    volume = read_series(write_as(tmp_path / "s", "PixelSpacing", "2,0\\1,0", "DS"))
    assert check_source(volume) == []
    labels = np.zeros(volume.data.shape, np.uint8)
    labels[3, 4, 5] = 1
    write_segmentation(tmp_path / "seg.dcm", labels, volume, CARD, HASH)
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", grid=volume.grid)[0].data, labels)


def test_headers_that_cannot_be_referred_to_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    volume = read_series(write_series(tmp_path / "s", make_slices(STORED, make_affine("LPS"))))

    def refuse(**options: Any) -> None:
        raise AttributeError("DOE^JOHN is odd")

    monkeypatch.setattr("highdicom.seg.Segmentation", refuse)
    with pytest.raises(
        InputError, match=r"cannot refer to its header \(attribute error\).*run without --dicom-seg"
    ) as e:
        check_source(volume)
    assert "DOE" not in str(e.value) and volume.data.shape == SHAPE
