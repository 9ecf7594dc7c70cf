"""Which volumes there are in a study, and which of them is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medvision.dicom.frames import MARKS, Frame
from medvision.dicom.segmentations import read_segmentation, write_segmentation
from medvision.dicom.series import find_series, read_series
from medvision.dicom.splitting import split_volumes
from tests.medvision.dicom.dicoms import (
    AFFINE,
    SHAPE,
    STORED,
    expect,
    make_enhanced,
    make_slices,
    refusal,
    refused,
    retag,
    write_series,
)
from tests.medvision.dicom.test_segmentations import CARD, HASH, make_map
from tests.medvision.phantoms import make_affine

OTHER = STORED + np.int16(1)


def two_volumes(first: dict[str, Any], second: dict[str, Any], other: np.ndarray = OTHER) -> list[Any]:
    """Slices of two volumes at the same places in one series, with other tags for each."""
    uid = generate_uid()
    return [
        *make_slices(STORED, AFFINE, SeriesInstanceUID=uid, **first),
        *make_slices(other, AFFINE, SeriesInstanceUID=uid, **second),
    ]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"EchoTime": "4.92"}, {"EchoTime": "12.3"}, ("echo time 4.92", "echo time 12.3")),
        ({"EchoTime": "9"}, {"EchoTime": "12.3"}, ("echo time 9", "echo time 12.3")),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
         ("type M", "type P")),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, ("b-value 0", "b-value 1000")),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, ("time point 1", "time point 2")),
        ({}, {"InversionTime": "900"}, ("inversion time 900", "inversion time unknown")),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70\x1b[2J"}, ("kernel B30f", "kernel B70\\x1b[2J")),
        ({}, {}, None),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value and value[0],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_volumes_that_share_a_series_are_listed_and_chosen(tmp_path: Path, first: Any, second: Any, told: Any):
    slices = two_volumes(first, second)
    if told is None:  # as of directions of diffusion, which headers do not always name
        for number, dataset in enumerate(slices):
            dataset.InstanceNumber = number + 1
        told = ("repeat 1", "repeat 2")
    else:
        retag(slices, {"InstanceNumber": None})
    uid = slices[0].SeriesInstanceUID
    line = refused(tmp_path, slices)
    assert f"holds 2 volumes in 1 series; choose with --series NUMBER or UID, of 1 MR '{told[0]}' 11 of" in line
    assert f"; 2 MR '{told[1]}' 11 of 9 x 10, 1 x 2 x 3 mm" in line
    assert [series.id for series in find_series(tmp_path)] == [f"{uid}:1", f"{uid}:2"]
    assert "holds 2 volumes" in refusal(lambda: read_series(tmp_path, series=uid))
    values = (OTHER, STORED) if told[0].endswith("900") else (STORED, OTHER)
    found = [read_series(tmp_path, series=wanted) for wanted in ("1", f"{uid}:2")]
    for volume, expected in zip(found, values, strict=True):
        expect(volume, expected.astype(np.float32), AFFINE)
    assert found[0].sha256 != found[1].sha256
    assert found[0].sha256 == find_series(tmp_path)[0].sha256()


def test_volumes_of_one_enhanced_file_are_told_apart(tmp_path: Path):
    both = np.concatenate([STORED, OTHER], axis=2)
    dataset = make_enhanced(both, AFFINE)
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        place = dataset.PerFrameFunctionalGroupsSequence[index % SHAPE[2]].PlanePositionSequence[0]
        group.PlanePositionSequence[0].ImagePositionPatient = place.ImagePositionPatient
        echo = Dataset()
        echo.EffectiveEchoTime = 2.5 if index < SHAPE[2] else 5.0
        group.MREchoSequence = Sequence([echo])
    path = tmp_path / "enhanced.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert "1 MR 'echo time 2.5' 11 of 9 x 10, 1 x 2 x 3 mm; 2 MR 'echo time 5' 11" in refusal(
        lambda: read_series(path)
    )
    first, second = (read_series(path, series=number) for number in "12")
    expect(first, STORED.astype(np.float32), AFFINE)
    expect(second, OTHER.astype(np.float32), AFFINE)
    assert first.sha256 != second.sha256 == find_series(path)[1].sha256()
    labels = make_map(second.grid.shape)
    write_segmentation(tmp_path / "seg.dcm", labels, second, CARD, HASH)
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", grid=second.grid)[0].data, labels)


@settings(max_examples=60)
@given(st.data())
def test_slices_are_parted_as_they_were_put_together(data: Any):
    """Echoes times repeats, in any order of files: each volume has every place once, and one echo."""
    echoes, repeats, places = (data.draw(st.integers(1, 3)) for _ in range(3))
    echo_at = list(MARKS).index("echo time")
    member: Any = type("Member", (), {"name": "x"})
    frames = []
    for number, (echo, repeat, place) in enumerate(np.ndindex(echoes, repeats, places)):
        marks = [str(number) if name == "trigger time" else None for name in MARKS]  # of every slice, as vendors do
        marks[echo_at] = str(echo)
        position = np.array([0.0, 0.0, 2.5 * place])
        frames.append(
            Frame(member, 0, 4, 4, position, np.eye(3)[:2], np.ones(2), 1.0, 0.0, (number, repeat), tuple(marks))
        )
    parts = split_volumes(data.draw(st.permutations(frames)))
    assert sum(len(found) for _, found in parts) == len(frames)
    assert len(parts) == echoes * repeats
    for _, found in parts:
        assert sorted(frame.position[2] for frame in found) == [2.5 * place for place in range(places)]
        assert len({frame.marks[echo_at] for frame in found}) == len({frame.order[1] for frame in found}) == 1


def test_what_differs_within_a_volume_does_not_part_it(tmp_path: Path):
    slices = make_slices(STORED, AFFINE)
    for number, dataset in enumerate(slices):
        dataset.AcquisitionNumber, dataset.EchoTime = 1 + number // 6, str(number % 2)
        dataset.TriggerTime = str(100 + number)
        dataset.InstanceNumber = (7 * number) % 11  # as interleaved slices may be numbered
    expect(read_series(write_series(tmp_path, slices)), STORED.astype(np.float32), AFFINE)


def test_headers_without_what_positions_tell_anyway_are_enough(tmp_path: Path):
    slices = make_slices(STORED, AFFINE, SliceThickness="9", SpacingBetweenSlices="7", SliceLocation="3")
    retag(slices[:5], {"InstanceNumber": None, "SliceThickness": None, "SliceLocation": None})
    retag(slices[5:], {"InstanceNumber": ""})
    for dataset in slices[7:]:  # what the standard does not allow
        for key in ("InstanceNumber", "SeriesNumber", "EchoTime"):
            dataset.add(DataElement(key, "LO", "one"))
    expect(read_series(write_series(tmp_path, slices)), STORED.astype(np.float32), AFFINE)


def test_an_image_that_is_there_twice_is_taken_once_if_it_is_the_same(tmp_path: Path):
    slices = make_slices(STORED, AFFINE)
    write_series(tmp_path / "a", slices)
    write_series(tmp_path / "b", slices, seed=1)
    expect(read_series(tmp_path), STORED.astype(np.float32), AFFINE)
    slices[3].PixelData = bytes(len(slices[3].PixelData))
    assert "has the same SOPInstanceUID as" in refused(tmp_path / "b", slices[3:4])


# what lies beside the volume


def _scouts() -> list[Any]:
    """Three planes at right angles, in one series."""
    planes = [make_slices(STORED[:, :9, :1], make_affine(axes)) for axes in ("PSR", "LSP", "LPS")]
    scouts = [dataset for plane in planes for dataset in plane]
    retag(scouts, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": generate_uid()})
    return scouts


def _coloured() -> list[Any]:
    (dataset,) = make_slices(STORED[:, :, :1], AFFINE)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = dataset.PixelData * 3
    return [dataset]


def _screenshot() -> list[Any]:
    (dataset,) = make_slices(STORED[:, :, :1], AFFINE, SOPClassUID=SecondaryCaptureImageStorage)
    retag([dataset], {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None})
    return [dataset]


@pytest.mark.parametrize("others", [_scouts, _coloured, _screenshot])
def test_what_no_volume_is_made_of_is_left_out_and_counted(tmp_path: Path, others: Callable[[], list[Any]]):
    slices, beside = make_slices(STORED, AFFINE), others()
    write_series(tmp_path / "own/a", slices)
    write_series(tmp_path / "own/b", beside)
    volume = read_series(tmp_path / "own")
    expect(volume, STORED.astype(np.float32), AFFINE)
    assert volume.warnings == ["1 other series, of localizers, screenshots or single slices, were left out"]
    retag(beside, {"SeriesInstanceUID": slices[0].SeriesInstanceUID})
    volume = read_series(write_series(tmp_path / "same", [*beside, *slices]))
    expect(volume, STORED.astype(np.float32), AFFINE)
    assert volume.warnings == [f"{len(beside)} localizer, screen or colour images in the series were left out"]


def test_a_series_that_cannot_be_read_is_not_passed_over_for_another(tmp_path: Path):
    write_series(tmp_path / "a", make_slices(STORED, AFFINE, SeriesDescription="good"))
    spoilt = make_slices(STORED, AFFINE, SeriesDescription="spoilt")
    retag(spoilt[:1], {"ImagePositionPatient": None})
    line = refused(tmp_path / "b", spoilt)
    assert "has no ImagePositionPatient" in line
    line = refusal(lambda: read_series(tmp_path))
    assert "holds 2 series" in line and "'spoilt' 11 of 9 x 10 (no volume)" in line


def test_localizers_alone_are_no_volume(tmp_path: Path):
    line = refused(tmp_path, _scouts())
    assert "mixes slices of 3 orientations" in line and "as localizers do; expected one; choose another series" in line
    assert "(no volume)" in find_series(tmp_path)[0].describe()


def test_objects_without_images_are_left_out_and_counted(tmp_path: Path):
    slices = make_slices(STORED, AFFINE)
    kinds = {
        "PR": GrayscaleSoftcopyPresentationStateStorage,
        "RTSTRUCT": RTStructureSetStorage,
        "DOC": EncapsulatedPDFStorage,
    }
    for modality, kind in kinds.items():
        (other,) = make_slices(STORED[:, :, :1], AFFINE, modality=modality, SOPClassUID=kind)
        retag([other], {"Rows": None, "Columns": None, "PixelData": None})
        write_series(tmp_path / modality, [other])
    volume = read_series(write_series(tmp_path / "images", slices).parent)
    expect(volume, STORED.astype(np.float32), AFFINE)
    assert volume.warnings == ["3 DICOM files without images were left out"]


def test_series_are_listed_and_chosen(tmp_path: Path):
    slices = {
        name: make_slices(STORED, AFFINE, modality=modality, SeriesNumber=number, SeriesDescription=name)
        for number, (name, modality) in enumerate((("T1 \x1b[31mred", "MR"), ("bone", "CT"), ("last", "JOHN DOE")))
    }
    for folder, datasets in zip("xyz", slices.values(), strict=True):
        write_series(tmp_path / folder, datasets)
    line = refusal(lambda: read_series(tmp_path))
    assert "holds 3 series; choose with --series NUMBER or UID" in line
    assert "1 MR 'T1 \\x1b[31mred' 11 of 9 x 10, 1 x 2 x 3 mm; 2 CT 'bone'" in line
    assert "JOHN" not in line and "3 unknown 'last'" in line
    for series in ("2", str(slices["bone"][0].SeriesInstanceUID)):
        assert read_series(tmp_path, series=series).modality == "CT"
    assert "has no series '7'" in refusal(lambda: read_series(tmp_path, series="7"))
