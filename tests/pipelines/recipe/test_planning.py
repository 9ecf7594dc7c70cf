"""Plans follow the data, say why, and keep to the memory that they were given."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.cli.medvision.program import app
from apps.cli.shared.program import run as run_program
from medvision.datasets.fingerprint import CaseFacts, Fingerprint
from pipelines.recipe.loading import check_recipe, load_recipe
from pipelines.recipe.planning import SMALLEST_SIDE, Plan, gigabytes_of, plan, target_spacing, topology_of
from pipelines.recipe.volumes import PatchData
from shared_backbones import architectures
from tests.benchmarks.planned_memory import measure
from tests.golden import miniatures
from tests.medvision.phantoms import make_affine, make_image, write_scan


def fingerprint(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    cases: int = 20,
    classes: int = 2,
    modality: str = "MRI",
) -> Fingerprint:
    values = np.linspace(-200, 300, 1001, dtype=np.float32)
    case = CaseFacts(shape, spacing, {0: 10, 1: 5}, values[None], None)
    return Fingerprint([case] * cases, ["background", *(f"organ {n}" for n in range(1, classes))], [modality])


def planned(given: Fingerprint, memory_gb: float = 8, width: int = 16) -> Plan:
    data: dict[str, object] = {"root": "data", "layout": "msd"}
    return plan(given, name="it", data=data, memory_gb=memory_gb, width=width)


def patch_of(result: Plan) -> tuple[int, ...]:
    data = check_recipe(result.recipe, "plan").data
    assert isinstance(data, PatchData)
    return data.patch


class TestKnownAnswers:
    """What nnU-Net's own planner gives for these data sets, as its publication's tables have it."""

    def test_hippocampus(self):
        result = planned(fingerprint((36, 50, 35), cases=260, classes=3), memory_gb=11, width=32)
        assert patch_of(result) == (40, 56, 40)
        assert check_recipe(result.recipe, "plan").train.batch_size == 9

    def test_thick_slices_keep_their_resolution(self):
        topology = topology_of((0.8, 0.8, 5.0), (256, 256, 16))
        assert topology.strides[:3] == [[1, 1, 1], [2, 2, 1], [2, 2, 1]]
        assert topology.kernels[:3] == [[3, 3, 1], [3, 3, 1], [3, 3, 3]]
        assert topology.patch == (256, 256, 16)


def test_isotropic_data_keep_the_median_spacing():
    spacing, reason = target_spacing(fingerprint((100, 100, 100), (1.1, 0.9, 1.0)))
    assert spacing == [1.1, 0.9, 1.0] and "anisotropic" not in reason


def test_the_anisotropic_axis_takes_its_tenth_percentile():
    thick = [
        CaseFacts((300, 300, 20), (0.8, 0.8, step), {1: 5}, np.zeros((1, 1)), None) for step in np.linspace(4, 6, 21)
    ]
    spacing, reason = target_spacing(Fingerprint(thick, ["background", "organ"], ["MRI"]))
    assert spacing == [0.8, 0.8, 4.2]
    assert "axis S is anisotropic" in reason


def test_ct_is_windowed_to_its_labelled_intensities():
    result = planned(fingerprint((90, 90, 90), modality="CT"))
    data = check_recipe(result.recipe, "plan").data
    assert isinstance(data, PatchData)
    assert data.normalisation == {"name": "window", "low": -197.5, "high": 297.5}
    assert "0.5th to the 99.5th percentile of 20020 labelled voxels" in result.reasons["data.normalisation"]


def test_left_and_right_are_not_mirrored():
    sided = Fingerprint(fingerprint((50, 50, 50)).cases, ["background", "Left kidney"], ["MRI"])
    data = check_recipe(planned(sided).recipe, "plan").data
    assert isinstance(data, PatchData) and data.mirror_axes == [1, 2]


def test_memory_decides_the_patch_and_the_batch():
    large = fingerprint((400, 400, 300), classes=3)
    small, more = planned(large, 4, 32), planned(large, 24, 32)
    assert math.prod(patch_of(small)) < math.prod(patch_of(more))
    assert small.gigabytes <= 4 and more.gigabytes <= 24
    assert "cut down from" in small.reasons["data.patch"] and "until two fit into 4 GB" in small.reasons["data.patch"]


@settings(deadline=None, max_examples=20)
@given(
    shape=st.tuples(*[st.integers(6, 700)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    memory=st.floats(2, 48),
    width=st.sampled_from([8, 16, 32]),
    classes=st.integers(2, 40),
)
def test_any_plan_is_a_recipe_that_its_network_takes(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], memory: float, width: int, classes: int
):
    result = planned(fingerprint(shape, spacing, classes=classes), memory, width)
    content = yaml.safe_load(result.text("medvision run it.yaml"))
    assert content == json.loads(json.dumps(result.recipe))
    recipe = check_recipe(content, "plan")
    data = recipe.data
    assert isinstance(data, PatchData)
    assert all(side >= SMALLEST_SIDE for side in data.patch)
    assert result.gigabytes <= memory or max(data.patch) < 2 * SMALLEST_SIDE
    architectures.check("monai", recipe.model.arguments, role="segmenter", shape=(1, *data.patch), classes=classes)


@pytest.mark.parametrize("spacing", [[1, 1, 1], [0.8, 0.8, 5]])
def test_a_step_takes_no_more_than_planned(spacing: list[float]):
    patch = [48, 48, 48] if spacing[2] == 1 else [96, 96, 12]
    promised, taken = measure({"spacing": spacing, "patch": patch, "width": 8, "classes": 3, "batch": 2})
    assert taken <= promised


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run_program(app, ["plan", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


class TestProgram:
    def test_the_recipe_of_a_data_set_loads(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        miniatures.msd(tmp_path / "organs")
        described = {"labels": {"0": "background", "1": "front", "2": "back"}, "modality": {"0": "CT"}}
        (tmp_path / "organs" / "dataset.json").write_text(json.dumps(described))
        code, printed, _ = run(capsys, tmp_path / "organs", "-o", tmp_path / "new" / "p.yaml", "--hours", 0.01)
        assert code == 0 and "planned from 6 cases" in printed and "timed on this machine" in printed
        recipe = load_recipe(str(tmp_path / "new" / "p.yaml"))
        assert recipe.name == "organs" and [c["name"] for c in recipe.card["classes"]] == [
            "background",
            "front",
            "back",
        ]
        data = recipe.data
        assert isinstance(data, PatchData) and isinstance(data.normalisation, dict)
        text = (tmp_path / "new" / "p.yaml").read_text()
        for before, line in itertools.pairwise(text.splitlines()):
            if line.strip().startswith(("spacing_mm:", "normalisation:", "patch:", "batch_size:", "steps:")):
                assert before.strip().startswith("#"), line

    @pytest.mark.parametrize("case", ["there", "no folder", "empty", "gap", "channels", "ignore", "json"])
    def test_what_cannot_be_planned_is_one_line(self, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root, output = tmp_path / "data", tmp_path / "p.yaml"
        miniatures.msd(root)
        message = {
            "there": "p.yaml: already there; give another --output",
            "no folder": "not a folder; give the folder of the labelled volumes",
            "empty": "contains no labelsTr",
            "gap": "labels are 1, 2, 7, expected 1 to 7 without a gap",
            "channels": "has 1 channel, expected 2 (T1, T2); name those that all cases have in dataset.json",
            "ignore": "has nnU-Net's label `ignore`",
            "json": "dataset.json: cannot be read",
        }[case]
        if case == "there":
            output.write_text("mine")
        elif case == "no folder":
            root = root / "none"
        elif case == "empty":
            root = tmp_path / "nothing"
            root.mkdir()
        elif case == "gap":
            shape = (9, 10, 11)
            labels = np.zeros(shape, np.uint8)
            labels[2:4] = 7
            write_scan(root / "imagesTr" / "other_9.nii.gz", make_image(shape), make_affine())
            write_scan(root / "labelsTr" / "other_9.nii.gz", labels, make_affine())
        elif case == "channels":
            (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "T2"}}))
        elif case == "ignore":
            (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1, "ignore": 2}}))
        else:
            (root / "dataset.json").write_text("{")
        code, _, error = run(capsys, root, "-o", output)
        assert code == 2 and message in error and error.count("\n") == 1
        assert not output.exists() or output.read_text() == "mine"


def test_gigabytes_grow_with_everything():
    topology = topology_of((1, 1, 1), (64, 64, 64))
    base = gigabytes_of(topology, 16, 3, 2)
    assert gigabytes_of(topology, 32, 3, 2) > base
    assert gigabytes_of(topology, 16, 30, 2) > base
    assert gigabytes_of(topology, 16, 3, 4) > base
    assert gigabytes_of(topology_of((1, 1, 1), (64, 64, 96)), 16, 3, 2) > base
