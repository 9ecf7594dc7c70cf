"""Labels written as a DICOM segmentation lie where they lay, in our own reader and in others."""

import gzip
import subprocess
from pathlib import Path
from typing import Any

import dcmqi
import highdicom
import numpy as np
import pytest
import yaml
from pydicom import dcmread
from pydicom.sr.codedict import codes

from medvision.dicom.codes import CATEGORIES, MODIFIERS, PRIVATE_SCHEME, codes_of
from medvision.dicom.segmentations import check_source, read_segmentation, write_segmentation
from medvision.dicom.series import DicomVolume, read_series
from medvision.models.catalogue import model_card
from medvision.volumes.files import Volume, read_volume
from medvision.volumes.geometry import Grid
from shared_backbones.errors import InputError
from tests.conftest import ROOT
from tests.medvision.dicom.dicoms import along, make_enhanced, make_slices, retag, write_series
from tests.medvision.phantoms import ORIENTATIONS, load, make_affine, make_labels, write_scan

SHAPE = (9, 11, 10)  # 99 pixels a frame: in the bits of a segmentation, most frames begin within a byte
STORED = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
CARD: dict[str, Any] = {
    "name": "probe",
    "version": "1.2.3",
    "classes": [
        {"id": 0, "name": "background", "color": [0, 0, 0]},
        {"id": 1, "name": "ventricles", "color": [119, 170, 221]},
        {"id": 2, "name": "hippocampus_amygdala", "color": [255, 170, 187]},
        {"id": 3, "name": "cyst", "color": [1, 2, 3], "code": ["SCT", "441457006", "Cyst"]},
    ],
}
HASH = "ab" * 32


def make_map(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Labels 0 to 3, with slices without any at an end and in between."""
    labels = make_labels(shape, 3, seed=seed)
    labels[:, :, [0, 1, 5]] = 0
    return labels


def series(folder: Path, affine: np.ndarray, **tags: Any) -> DicomVolume:
    return read_series(write_series(folder, make_slices(STORED, affine, **tags)))


def run_dcmqi(path: Path, folder: Path, *options: str) -> None:
    program = Path(dcmqi.__file__).parent / "bin/segimage2itkimage"
    target = ["--outputDirectory", folder, "--outputType", "nii"]
    done = subprocess.run([program, "--inputDICOM", path, *target, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def dcmqi_map(path: Path, folder: Path) -> Volume:
    """What dcmqi makes of a segmentation whose segments do not overlap, as a label map."""
    run_dcmqi(path, folder, "--mergeSegments")
    image = load(folder / "1.nii.gz")
    return Volume(np.asarray(image.dataobj), Grid.from_affine(image.shape, image.affine), "")


def assert_same_places(found: Volume, labels: np.ndarray, grid: Grid) -> None:
    """Every labelled voxel of either is labelled alike at the same place in the other; the first may be a part."""
    across = np.linalg.inv(grid.affine) @ found.grid.affine
    places = (across @ np.r_[np.indices(found.data.shape).reshape(3, -1), np.ones((1, found.data.size))])[:3]
    assert np.abs(places - np.rint(places)).max() < 1e-2
    back = np.zeros_like(labels)
    back[tuple(np.rint(places).astype(int))] = found.data.ravel()
    assert np.array_equal(back, labels)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_labels_come_back_voxel_by_voxel(tmp_path: Path, orientation: str):
    volume = series(tmp_path / "series", make_affine(orientation, (1, 2, 3), (10, 20, 5)))
    labels = make_map(volume.grid.shape)
    write_segmentation(tmp_path / "seg.dcm", labels, volume, CARD, HASH)
    back, names = read_segmentation(tmp_path / "seg.dcm", grid=volume.grid)
    assert np.array_equal(back.data, labels) and back.grid is volume.grid
    assert names == {1: "ventricles", 2: "hippocampus_amygdala", 3: "cyst"}
    alone, _ = read_segmentation(tmp_path / "seg.dcm")
    assert_same_places(alone, labels, volume.grid)
    assert alone.data.shape[2] == 8
    assert_same_places(dcmqi_map(tmp_path / "seg.dcm", tmp_path), labels, volume.grid)
    other = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    affine = np.diag([-1, -1, 1, 1]) @ other.affine
    assert_same_places(Volume(other.array, Grid.from_affine(other.array.shape, affine), ""), labels, volume.grid)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
def test_labels_come_back_on_a_grid_that_is_turned(tmp_path: Path, orientation: str):
    """As of the same scan converted to NIfTI by a program that turns axes."""
    affine = make_affine("RAS", (1, 2, 3), (10, 20, 5))
    volume = series(tmp_path / "series", affine)
    labels = make_map(volume.grid.shape)
    write_segmentation(tmp_path / "seg.dcm", labels, volume, CARD, HASH)
    turned, there = along(orientation, labels, volume.grid.affine)
    back, _ = read_segmentation(tmp_path / "seg.dcm", grid=Grid.from_affine(turned.shape, there))
    assert np.array_equal(back.data, turned)


def test_frames_of_an_enhanced_image_are_referred_to(tmp_path: Path):
    order = [4, 2, 9, 0, 1, 7, 8, 3, 6, 5]
    source = make_enhanced(STORED, make_affine("LPS", (1, 2, 3)), order=order)
    source.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    volume = read_series(tmp_path / "enhanced.dcm")
    labels = make_map()
    write_segmentation(tmp_path / "seg.dcm", labels, volume, CARD, HASH)
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", grid=volume.grid)[0].data, labels)
    assert_same_places(dcmqi_map(tmp_path / "seg.dcm", tmp_path), labels, volume.grid)
    positions = [group.PlanePositionSequence[0] for group in source.PerFrameFunctionalGroupsSequence]
    for group in dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        referred = positions[image.ReferencedFrameNumber - 1].ImagePositionPatient
        assert group.PlanePositionSequence[0].ImagePositionPatient == referred


def test_what_the_object_says(tmp_path: Path):
    tags: dict[str, Any] = {"PatientID": "007", "PatientName": "Doe^Jane", "StudyID": "5", "SpacingBetweenSlices": "9"}
    slices = make_slices(STORED, make_affine("LPS", (1, 2, 3)), **tags)
    volume = read_series(write_series(tmp_path / "series", slices))
    write_segmentation(tmp_path / "seg.dcm", make_map(), volume, CARD, HASH)
    found = dcmread(tmp_path / "seg.dcm")
    source = slices[0]
    for key in ("PatientID", "PatientName", "StudyID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert found[key] == source[key]
    assert (found.Modality, found.SegmentationType) == ("SEG", "BINARY")
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    (referenced,) = found.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    uids = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert uids == {dataset.SOPInstanceUID for dataset in slices}
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in slices}
    for group in found.PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = by_uid[image.ReferencedSOPInstanceUID].ImagePositionPatient
        assert group.PlanePositionSequence[0].ImagePositionPatient == place
    # sizes are those of the positions, not what the header claims
    assert found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 3

    first, second, third = found.SegmentSequence
    types = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in (first, second, third)]
    assert [code.CodingSchemeDesignator for code in types] == ["SCT", PRIVATE_SCHEME, "SCT"]
    assert (types[0].CodeValue, types[0].CodeMeaning) == ("35764002", "Brain ventricle")
    assert "SegmentedPropertyTypeModifierCodeSequence" not in types[0]
    assert types[1].CodeMeaning == "hippocampus amygdala" and types[2].CodeValue == "441457006"
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == ["ventricles", "hippocampus_amygdala", "cyst"]
    color = highdicom.color.CIELabColor.from_dicom_value(first.RecommendedDisplayCIELabValue).to_rgb()
    np.testing.assert_allclose(color, CARD["classes"][1]["color"], atol=1)
    for segment in found.SegmentSequence:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("probe", "1.2.3")
        assert HASH in algorithm.AlgorithmParameters
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == codes.DCM.ArtificialIntelligence.value


def test_the_side_of_a_segment_is_said(tmp_path: Path):
    volume = series(tmp_path / "series", make_affine("LPS"))
    card = CARD | {"classes": [CARD["classes"][0], {"id": 1, "name": "left_kidney", "color": [1, 2, 3]}]}
    write_segmentation(tmp_path / "seg.dcm", make_map() // 3, volume, card, HASH)
    (kind,) = dcmread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    (side,) = kind.SegmentedPropertyTypeModifierCodeSequence
    assert (kind.CodeValue, side.CodeValue, side.CodeMeaning) == ("64033007", "7771000", "Left")
    assert (kind.CodingSchemeDesignator, side.CodingSchemeDesignator) == ("SCT", "SCT")


def test_segments_of_kept_classes_are_numbered_in_order(tmp_path: Path):
    volume = series(tmp_path / "series", make_affine("LPS"))
    labels = make_map()
    labels[labels == 2] = 0
    write_segmentation(tmp_path / "seg.dcm", labels, volume, CARD, HASH, kept=[1, 3])
    back, names = read_segmentation(tmp_path / "seg.dcm", grid=volume.grid)
    assert names == {1: "ventricles", 2: "cyst"}
    assert np.array_equal(back.data, np.array([0, 1, 0, 2], np.uint8)[labels])
    only, _ = read_segmentation(tmp_path / "seg.dcm", grid=volume.grid, segments=[2])
    assert np.array_equal(only.data, 2 * (labels == 3))


@pytest.mark.parametrize("voxels", [0, 1])
def test_few_labels(tmp_path: Path, voxels: int):
    volume = series(tmp_path / "series", make_affine("LPS", (1, 2, 3)))
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 4, 5 : 5 + voxels] = 3
    write_segmentation(tmp_path / "seg.dcm", labels, volume, CARD, HASH)
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", grid=volume.grid)[0].data, labels)


def test_labels_of_a_resampled_series_keep_their_places(tmp_path: Path):
    sheared = make_affine("LPS", (2, 2, 3))
    sheared[:3, 2] += (0, 0.8, 0)
    folder = write_series(tmp_path / "series", make_slices(STORED, sheared))
    volume = read_series(folder, resample_irregular=True)
    assert volume.resampled and volume.grid.shape != SHAPE
    labels = make_map(volume.grid.shape)
    write_segmentation(tmp_path / "seg.dcm", labels, volume, CARD, HASH)
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", grid=volume.grid)[0].data, labels)
    assert_same_places(dcmqi_map(tmp_path / "seg.dcm", tmp_path), labels, volume.grid)
    found = dcmread(tmp_path / "seg.dcm")
    assert found.FrameOfReferenceUID == dcmread(next(folder.iterdir())).FrameOfReferenceUID


def test_every_snomed_code_is_in_the_standards_dictionary():
    known = {(code.value, code.meaning) for code in (getattr(codes.SCT, name) for name in codes.SCT.dir())}
    assert {code for names in (*CATEGORIES.values(), MODIFIERS) for code in names.values()} <= known
    for group, used in ((codes.cid7150, CATEGORIES), (codes.cid2, [("SCT", *code) for code in MODIFIERS.values()])):
        concepts = [getattr(group, name) for name in group.dir()]
        assert set(used) <= {(code.scheme_designator, code.value, code.meaning) for code in concepts}


def test_classes_of_the_bundled_model_and_of_the_recipes_are_coded():
    cards = [model_card("brain-structures")]
    for recipe in (
        "acdc_paratranscnn",
        "avt_paratranscnn",
        "hippocampus_unet_cpu",
        "lits_hbformer",
        "synapse_hbformer",
    ):
        cards.append(yaml.safe_load((ROOT / f"pipelines/recipes/medvision/{recipe}.yaml").read_text())["card"])
    entries = [entry for card in cards for entry in card["classes"][1:]]
    assert len(entries) > 20
    private = {entry["name"] for entry in entries if codes_of(entry).kind[0] == PRIVATE_SCHEME}
    assert private == {"hippocampus_amygdala"}  # two structures, which no code joins


@pytest.mark.parametrize(
    ("name", "category", "kind", "modifiers"),
    [
        ("left_kidney", "Anatomical Structure", "Kidney", ["Left"]),
        ("Kidney Right", "Anatomical Structure", "Kidney", ["Right"]),
        ("anterior_hippocampus", "Anatomical Structure", "Hippocampus", ["Anterior"]),
        ("right_posterior_hippocampus", "Anatomical Structure", "Hippocampus", ["Right", "Posterior"]),
        ("left_ventricle", "Anatomical Structure", "Left ventricle", []),
        ("deep_grey_nuclei", "Anatomical Structure", "Gray Matter", ["Deep"]),
        ("other_csf", "Body Substance", "Cerebrospinal Fluid", []),
        ("tumour", "Morphologically Abnormal Structure", "Neoplasm", []),
        ("left", "Anatomical Structure", "left", []),
        ("???", "Anatomical Structure", "???", []),
    ],
)
def test_sides_and_parts_are_modifiers(name: str, category: str, kind: str, modifiers: list[str]):
    found = codes_of({"id": 1, "name": name})
    assert (found.category[2], found.kind[2]) == (category, kind)
    assert [code[2] for code in found.modifiers] == modifiers


# objects of others


def read_nrrd(path: Path) -> Volume:
    """A label map of dcmqi's tests: gzip, little-endian, in left, back, up."""
    header, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
    assert (fields["space"], fields["encoding"], fields["type"]) == ("left-posterior-superior", "gzip", "short")
    shape = tuple(int(size) for size in fields["sizes"].split())
    affine = np.eye(4)
    vectors = [*fields["space directions"].split(), fields["space origin"]]
    for column, vector in enumerate(vectors):
        affine[:3, column] = [float(part) for part in vector.strip("()").split(",")]
    data = np.frombuffer(gzip.decompress(body), "<i2").reshape(shape, order="F")
    return Volume(data, Grid.from_affine((shape[0], shape[1], shape[2]), np.diag([-1.0, -1, 1, 1]) @ affine), "")


def test_real_objects_are_equal_to_the_label_maps_beside_them(data_root: Path, tmp_path: Path):
    folder = data_root / "medical/dicom_seg_dcmqi"
    scan = read_series(folder / "ct-3slice", smallest_axis=3)
    truth = read_nrrd(folder / "liver_seg.nrrd")
    found, names = read_segmentation(folder / "liver.dcm", grid=scan.grid)
    assert names == {1: "Liver"}
    assert_same_places(truth, (found.data > 0).astype(truth.data.dtype), scan.grid)
    assert np.count_nonzero(found.data) == np.count_nonzero(truth.data) > 1000

    # a segmentation of a real label map on the real series, as dcmqi sees it
    drawn = read_nrrd(folder / "liver_spine_seg.nrrd")
    places = (np.linalg.inv(drawn.grid.affine) @ scan.grid.affine).round(3)
    assert np.array_equal(places[:3, :3], np.eye(3)) and not places[:3, 3].any()
    assert set(np.unique(drawn.data)) == {0, 1, 2}
    write_segmentation(tmp_path / "seg.dcm", drawn.data.astype(np.uint8), scan, CARD, HASH)
    assert_same_places(dcmqi_map(tmp_path / "seg.dcm", tmp_path), drawn.data, scan.grid)


def test_real_segments_that_overlap_are_read_one_by_one_as_dcmqi_reads_them(data_root: Path, tmp_path: Path):
    path = data_root / "medical/dicom_seg_dcmqi/partial_overlaps.dcm"
    with pytest.raises(InputError, match=r"segments \d+ and \d+ overlap"):
        read_segmentation(path)
    run_dcmqi(path, tmp_path)
    numbers = [int(segment.SegmentNumber) for segment in dcmread(path).SegmentSequence]
    assert len(numbers) == 5
    for number in numbers:
        image = load(tmp_path / f"{number}.nii.gz")
        mask, _ = read_segmentation(path, segments=[number])
        theirs = Volume(np.asarray(image.dataobj), Grid.from_affine(image.shape, image.affine), "")
        assert theirs.data.any()
        assert_same_places(theirs, mask.data.astype(theirs.data.dtype), mask.grid)


def test_a_label_map_segmentation_is_read(tmp_path: Path):
    volume = series(tmp_path / "series", make_affine("LPS", (1, 2, 3)))
    labels = make_map()
    write_segmentation(tmp_path / "binary.dcm", labels, volume, CARD, HASH)
    binary = highdicom.seg.segread(tmp_path / "binary.dcm")
    slices = sorted(map(dcmread, (tmp_path / "series").iterdir()), key=lambda each: each.ImagePositionPatient[2])
    retag(slices, {"SliceThickness": "3"})
    other = highdicom.seg.Segmentation(
        slices, labels.transpose(2, 1, 0), "LABELMAP",
        [binary.get_segment_description(number) for number in (1, 2, 3)],
        "1.2.3", 1, "1.2.4", 1, "x", "y", "1", "2",
    )  # fmt: skip
    other.save_as(tmp_path / "map.dcm", enforce_file_format=True)
    found, _ = read_segmentation(tmp_path / "map.dcm", grid=volume.grid)
    assert np.array_equal(found.data, labels)


# what is refused


def test_what_no_segmentation_can_refer_to_is_refused_before_any_work(tmp_path: Path):
    scan = read_volume(write_scan(tmp_path / "scan.nii.gz"))
    with pytest.raises(InputError, match="is no DICOM series"):
        check_source(scan)
    slices = make_slices(STORED, make_affine("LPS"))
    retag(slices, {"FrameOfReferenceUID": None})
    with pytest.raises(InputError, match="has no FrameOfReferenceUID"):
        check_source(read_series(write_series(tmp_path / "a", slices)))
    halves = [make_enhanced(STORED[:, :, part], make_affine("LPS", origin=(0, 0, z))) for part, z in
              ((slice(5), 0), (slice(5, 10), 5))]  # fmt: skip
    halves[1].SeriesInstanceUID = halves[0].SeriesInstanceUID
    volume = read_series(write_series(tmp_path / "b", halves))
    assert volume.grid.shape == SHAPE
    with pytest.raises(InputError, match="2 multi-frame files"):
        check_source(volume)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen"),
        ("", "Doe^Jane"),
        ("ISO_IR 192", "山田^太郎"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_names_in_any_script_stay_what_they_are(tmp_path: Path, charset: Any, name: str):
    volume = series(tmp_path / "series", make_affine("LPS"), SpecificCharacterSet=charset, PatientName=name)
    write_segmentation(tmp_path / "seg.dcm", make_map(), volume, CARD, HASH)
    assert str(dcmread(tmp_path / "seg.dcm").PatientName) == name


def test_patients_without_attributes_do_not_hinder(tmp_path: Path):
    slices = make_slices(STORED, make_affine("LPS"))
    keys = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate")
    retag(slices, dict.fromkeys(keys))
    volume = read_series(write_series(tmp_path / "series", slices))
    write_segmentation(tmp_path / "seg.dcm", make_map(), volume, CARD, HASH)
    assert dcmread(tmp_path / "seg.dcm").PatientID in (None, "")


def test_what_is_no_segmentation_of_the_scan_is_refused(tmp_path: Path):
    volume = series(tmp_path / "series", make_affine("LPS", (1, 2, 3)))
    write_segmentation(tmp_path / "seg.dcm", make_map(), volume, CARD, HASH)

    def refused(path: Path, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            read_segmentation(path, **options)
        return str(caught.value)

    image = next((tmp_path / "series").iterdir())
    assert "is not a DICOM segmentation" in refused(image)
    assert "holds 10 DICOM files; expected one" in refused(tmp_path / "series")
    affine = volume.grid.affine.copy()
    affine[2, 3] += 1.2
    shifted = Grid.from_affine(SHAPE, affine)
    assert "off the scan's grid" in refused(tmp_path / "seg.dcm", grid=shifted)
    smaller = Grid.from_affine((9, 11, 5), volume.grid.affine)
    assert "reaches beyond the scan" in refused(tmp_path / "seg.dcm", grid=smaller)
    found = dcmread(tmp_path / "seg.dcm")
    found.SegmentationType = "FRACTIONAL"
    found.save_as(tmp_path / "fraction.dcm")
    assert "is a fractional segmentation" in refused(tmp_path / "fraction.dcm")
    found.SegmentationType = "BINARY"
    far = found.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0]
    far.ImagePositionPatient[2] += 3e8
    found.save_as(tmp_path / "far.dcm")
    assert "GB of voxels; the limit is" in refused(tmp_path / "far.dcm")


@pytest.mark.parametrize("seed", range(3))
def test_damaged_segmentations_end_in_one_line(tmp_path: Path, seed: int):
    volume = series(tmp_path / "series", make_affine("LPS", (1, 2, 3)))
    write_segmentation(tmp_path / "seg.dcm", make_map(), volume, CARD, HASH)
    content = (tmp_path / "seg.dcm").read_bytes()
    random = np.random.default_rng(seed)
    for _ in range(12):
        damaged = bytearray(content)
        for place in random.integers(132, len(damaged), 12):
            damaged[place] = random.integers(256)
        (tmp_path / "bad.dcm").write_bytes(damaged)
        try:
            read_segmentation(tmp_path / "bad.dcm", grid=volume.grid)
        except InputError as error:
            assert "\n" not in str(error) and str(error).isprintable()
