"""Models that tell parts and sides apart: what their label maps show, and the brain that all labels belong to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medvision.channels import Channels
from medvision.contract import InputContract
from medvision.findings.sidecar import build_sidecar, measure
from medvision.parts import Detail
from medvision.scores import CERTAIN, keep_main_body
from medvision.segmentation import Segmenter
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.networks.skip_unet import SkipUnet
from tests.medvision.phantoms import load, make_affine
from tests.medvision.test_segmentation import make_card, make_head, make_volume, turned

CLASSES = [
    {"id": 0, "name": "background", "color": [0, 0, 0]},
    {"id": 1, "name": "white_matter", "color": [238, 221, 136]},
    {"id": 2, "name": "grey_matter", "color": [238, 136, 102]},
    {"id": 3, "name": "fluid", "color": [119, 170, 221]},
]
PARTS = [
    {"id": 2, "right": 41, "name": "white_matter", "structure": 1, "color": [250, 250, 250]},
    {"id": 3, "right": 42, "name": "cortex", "structure": 2, "color": [205, 62, 78]},
    {"id": 10, "right": 49, "name": "thalamus", "structure": 2, "color": [0, 118, 14]},
    {"id": 14, "name": "third_ventricle", "structure": 3, "color": [204, 182, 142]},
    {"id": 4, "right": 43, "name": "lateral_ventricle", "structure": 3, "color": [120, 18, 134]},
]
STRUCTURE_OF = {part[key]: part["structure"] for part in PARTS for key in ("id", "right") if key in part} | {0: 0}
SPACING = (1.0, 1.2, 1.5)


def card(**changes: object) -> dict:
    given = {"spacing_mm": list(SPACING), "patch": [32, 32, 32], "normalisation": "none", "intracranial": True}
    return {**make_card(**given | changes), "classes": CLASSES, "parts": PARTS}


class Painted(nn.Module):
    """Reads its answer from the image: a voxel of 8 k + 3 is of part k, one of 8 k + 5 of part k on the right."""

    def forward(self, x: Tensor) -> Tensor:
        values = x[:, 0].round().long()
        kind = nn.functional.one_hot((values // 8).clamp(0, 5), 6).movedim(-1, 1)
        right = (values % 8 == 5).float()[:, None]
        return torch.cat([12.0 * kind, 16 * right - 8], 1)


def painted_brain() -> tuple[np.ndarray, np.ndarray]:
    """An image of nested ellipsoids with two sides, and its FreeSurfer labels; x runs to the right."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (30, 26, 24)), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    part = np.select([radius < 0.25, radius < 0.45, radius < 0.6, radius < 0.75, radius < 0.88], [4, 5, 3, 1, 2], 0)
    right = (axes[0] > 0) & (part > 0) & (part != 4)
    labels = np.zeros(part.shape, np.uint8)
    for number, entry in enumerate(PARTS, 1):
        labels[part == number] = entry["id"]
        labels[(part == number) & right] = entry.get("right", entry["id"])
    return np.where(part > 0, 8 * part + np.where(right, 5, 3), 0), labels


@pytest.mark.parametrize(
    ("order", "signs"), [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, 1, 1)), ((2, 0, 1), (1, -1, -1))]
)
def test_full_detail_has_parts_and_sides_wherever_the_axes_point(
    order: tuple[int, ...], signs: tuple[int, ...], make_segmenter
):
    image, labels = painted_brain()
    data, affine, turn = turned(image, make_affine("RAS", SPACING), order, signs)
    found = make_segmenter(Painted(), card=card(), detail="full").segment(make_volume(data, affine))
    np.testing.assert_array_equal(found.labels, turn(labels))
    assert [entry["id"] for entry in found.card["classes"]] == [0, 2, 3, 4, 10, 14, 41, 42, 43, 49]
    assert found.card["classes"][4]["name"] == "left_thalamus"
    assert all(found.confidence[number] == pytest.approx(1, abs=0.01) for number in np.unique(labels).tolist())


def test_structures_are_their_parts_together_and_have_sides_in_the_table(make_segmenter):
    image, labels = painted_brain()
    affine = make_affine("RAS", SPACING)
    found = make_segmenter(Painted(), card=card()).segment(make_volume(image, affine))
    np.testing.assert_array_equal(found.labels, np.vectorize(STRUCTURE_OF.get)(labels))
    rows, _ = measure(found)
    voxel_ml = np.prod(SPACING) / 1000
    for row, ids in zip(rows[:2], (([2], [41]), ([3, 10], [42, 49])), strict=True):
        for side, numbers in zip(("left_ml", "right_ml"), ids, strict=True):
            assert row[side] == pytest.approx(np.isin(labels, numbers).sum() * voxel_ml)
    assert "left_ml" not in rows[2], "the third ventricle has no side"
    (wide,) = found.volumes()
    assert wide["intracranial_ml"] == pytest.approx((labels > 0).sum() * voxel_ml, abs=1e-4)
    assert wide["white_matter_left_ml"] == pytest.approx((labels == 2).sum() * voxel_ml, abs=1e-4)
    summary = build_sidecar(found, settings={})["summary"]
    assert summary.get("intracranial_ml") == pytest.approx((labels > 0).sum() * voxel_ml)


def test_a_brain_that_the_scan_cuts_has_no_intracranial_volume(make_segmenter):
    image, _ = painted_brain()
    found = make_segmenter(Painted(), card=card()).segment(make_volume(image[:, :20], make_affine("RAS", SPACING)))
    assert found.intracranial_ml is None
    sidecar = build_sidecar(found, settings={})
    assert "intracranial_ml" not in sidecar["summary"]
    (flag,) = [flag for flag in sidecar["flags"] if flag["code"] == "field_of_view"]
    assert flag["structure"] is None and "ends inside the skull" in flag["rule"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = SkipUnet(7, widths=(4, 8, 8))
    with torch.no_grad():
        for head in network.heads.parameters():
            head.mul_(20)
    folder = tmp_path_factory.mktemp("parts")
    weights.save(folder, network, card(normalisation="zscore", any_size=True))
    return folder


def test_structures_and_parts_are_read_from_one_network(trained: Path):
    volume = make_volume(make_head(), make_affine("RAS", SPACING))
    coarse, full = (Segmenter(trained, device="cpu", detail=detail).segment(volume) for detail in Detail)
    merged = np.vectorize(lambda number: STRUCTURE_OF[number])(full.labels)
    assert len(np.unique(coarse.labels)) > 2
    # a structure of several parts may win where none of its parts is the likeliest
    assert (merged == coarse.labels).mean() > 0.8
    assert full.settings["detail"] == "full" and coarse.settings["detail"] == "structures"


def test_probabilities_of_all_labels_add_up_to_one(trained: Path, tmp_path: Path):
    volume = make_volume(make_head(), make_affine("RAS", SPACING))
    for detail, count in ((Detail.structures, 4), (Detail.full, 10)):
        found = Segmenter(trained, device="cpu", detail=detail).segment(volume, keep_scores=True)
        found.save_probabilities(tmp_path / "p.nii.gz")
        saved = load(tmp_path / "p.nii.gz").get_fdata()
        assert saved.shape == (*volume.data.shape, count)
        np.testing.assert_allclose(saved.sum(-1), 1, atol=0.04)


def test_a_volume_smaller_than_the_patch_is_seen_in_one_piece(trained: Path):
    volume = make_volume(make_head((18, 20, 22)), make_affine("RAS", SPACING))
    calls: list[tuple[int, int]] = []
    Segmenter(trained, device="cpu").segment(volume, progress=lambda done, count: calls.append((done, count)))
    assert calls == [(16, 18), (18, 18)], "rows of one piece"


def test_a_model_without_parts_has_no_more_detail(tmp_path: Path):
    plain = {**card(), "parts": []}
    weights.save(tmp_path / "m", SkipUnet(4, widths=(4, 8)), plain)
    with pytest.raises(InputError, match="tells no parts apart, its 3 structures are all"):
        Segmenter(tmp_path / "m", device="cpu", detail="full")
    with pytest.raises(InputError, match="detail 'parts': expected structures or full"):
        Segmenter(tmp_path / "m", device="cpu", detail="parts")


def changed(**part: object) -> dict:
    return {**card(), "parts": [{**PARTS[0], **part}, *PARTS[1:]]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (changed(id=41), "ids of parts must differ"),
        (changed(id=300), "lie between 1 and 255"),
        (changed(structure=9), "every structure needs one"),
        (changed(name="cortex"), "names of parts must differ"),
        (changed(color=[1, 2]), "cannot be used"),
        (changed(pieces=0), "pieces of white_matter is 0"),
        ({**card(), "parts": PARTS[1:]}, "every structure needs one"),
        ({**card(), "parts": [7]}, "cannot be used"),
        (card(mirror_axes=[0]), "exchanges left and right"),
        (card(intracranial=1), "intracranial is 1, expected False or True"),
        ({**make_card(), "classes": CLASSES, "parts": PARTS}, "a network of slices has no parts"),
    ],
)
def test_parts_that_cannot_be_meant_are_one_line(bad: dict, message: str):
    with pytest.raises(InputError, match=message) as caught:
        InputContract.from_card(bad, "m")
    assert "\n" not in str(caught.value)


def test_labels_are_chosen_by_the_names_that_the_map_has():
    contract = InputContract.from_card(card(), "m")
    assert Channels.of(contract, "full", "m").label_ids(["left_thalamus", "43"]) == [10, 43]
    with pytest.raises(InputError, match="10 left_thalamus"):
        Channels.of(contract, "full", "m").label_ids(["grey_matter"])


def body(*boxes: tuple[slice, slice, slice]) -> Tensor:
    scores = torch.zeros(3, 60, 50, 40, dtype=torch.uint8)
    scores[0] = CERTAIN
    for number, box in enumerate(boxes):
        scores[0][box] = 0
        scores[1 + number % 2][box] = CERTAIN
    return scores


BRAIN = (slice(10, 40), slice(10, 40), slice(8, 32))
MUSCLE = (slice(47, 56), slice(15, 27), slice(10, 25))
NERVE = (slice(40, 47), slice(20, 22), slice(15, 17))


@pytest.mark.parametrize("bridged", [False, True])
def test_what_hangs_on_the_brain_by_a_thread_is_taken_off(bridged: bool):
    scores = body(BRAIN, MUSCLE, *([NERVE] if bridged else []))
    before = int((scores.argmax(0) > 0).sum())
    share = keep_main_body(scores, CERTAIN, 1)
    labelled = scores.argmax(0) > 0
    assert labelled[BRAIN].all() and not labelled[MUSCLE].any()
    assert share == pytest.approx(1 - int(labelled.sum()) / before)
    assert share > 0.05


def test_a_second_hemisphere_and_thin_tips_stay():
    other = (slice(45, 58), slice(10, 40), slice(8, 32))
    tip = (slice(20, 22), slice(40, 43), slice(10, 30))
    scores = body(BRAIN, other, tip)
    assert keep_main_body(scores, CERTAIN, 1) == 0


@pytest.mark.parametrize("boxes", [(), ((slice(3, 4),) * 3,), ((slice(0, 60), slice(0, 50), slice(0, 40)),)])
def test_nothing_or_everything_labelled_stays(boxes: tuple):
    scores = body(*boxes)
    kept = scores.clone()
    assert keep_main_body(scores, CERTAIN, 1) == 0
    assert torch.equal(scores, kept)


def test_labels_outside_the_brain_are_flagged_with_their_share(make_segmenter):
    image, labels = painted_brain()
    image = np.pad(image, ((0, 12), (0, 0), (0, 0)))
    image[34:40, 5:15, 5:15] = 8 + 3
    found = make_segmenter(Painted(), card=card()).segment(make_volume(image, make_affine("RAS", SPACING)))
    assert not found.labels[31:].any()
    share = 600 / (600 + (labels > 0).sum())
    (flag,) = [flag for flag in measure(found)[1] if flag["code"] == "outside_brain"]
    assert flag["value"] == pytest.approx(share) and flag["structure"] is None
