"""Volumes of several channels, from the files of a data set to the label map."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from apps.cli.medvision.program import app
from apps.cli.shared.program import run as run_program
from medvision.datasets.layouts import find_cases, is_nnunet
from medvision.datasets.slices import Augment
from medvision.datasets.volume_patches import RandomPatches
from medvision.segmentation import Segmenter
from medvision.volumes.channels import read_channels
from medvision.volumes.files import Volume, read_volume, scan_sha256
from medvision.volumes.geometry import Grid, to_ras
from medvision.volumes.intensities import normalise
from pipelines.data.store import Store
from pipelines.kinds.labelled_volumes import StoredVolumes
from pipelines.recipe.loading import load_recipe
from pipelines.recipe.volumes import Augmentation, PatchData
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.benchmarks.planned_memory import measure
from tests.medvision.phantoms import load, make_affine, write_scan

AFFINE = make_affine("LPS", (1.5, 1.5, 1.5))
CHANNELS = ["T2", "ADC"]
NETWORK = {"network": "UNet", "num_classes": 3, "in_chans": 2, "channels": [8, 16], "strides": [2]}


def balls(number: int, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Channels `(C, X, Y, Z)` and labels of a ball whose halves are bright in one channel each."""
    random = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (20, 24, 18)), indexing="ij"))
    centre = np.array([10, 12, 9]) + random.integers(-2, 3, 3)
    inside = np.square(grid - centre[:, None, None, None]).sum(0) < 36
    labels = (inside * (1 + (grid[1] > centre[1]))).astype(np.uint8)
    image = random.normal(100, 5, (count, *labels.shape)) + 10 * np.arange(count)[:, None, None, None]
    for channel in range(count):
        image[channel] += 100 * (labels == 1 + channel % 2)
    return image.astype(np.float32), labels


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scan(path, data, affine)


def msd(root: Path, count: int = 2) -> Path:
    """4-D images, as the Medical Segmentation Decathlon has them."""
    for number in range(1, 7):
        image, labels = balls(number, count)
        save(root / "imagesTr" / f"ball_{number:03}.nii.gz", np.moveaxis(image, 0, 3), AFFINE)
        save(root / "labelsTr" / f"ball_{number:03}.nii.gz", labels, AFFINE)
    return root


def nnunet(root: Path, count: int = 2) -> Path:
    """A file for each channel, as nnU-Net has them."""
    for number in range(1, 7):
        image, labels = balls(number, count)
        for channel in range(count):
            save(root / "imagesTr" / f"ball_{number:03}_{channel:04}.nii.gz", image[channel], AFFINE)
        save(root / "labelsTr" / f"ball_{number:03}.nii.gz", labels, AFFINE)
    return root


def recipe(root: Path, output: Path, layout: str = "msd", **changes: object) -> dict:
    classes = [{"id": n, "name": name, "color": [90 * n, 0, 0]} for n, name in enumerate(["background", "one", "two"])]
    return {
        "name": "two_channels", "seed": 1, "output": str(output),
        "data": {
            "kind": "volume_patches", "layout": layout, "root": str(root), "channels": CHANNELS, "patch": [16, 16, 16],
            "spacing_mm": 1.5, "normalisation": ["zscore", {"name": "window", "low": 80, "high": 220}],
            "options": {"test_share": 0.34}, "validation": 0.34, **changes,
        },
        "model": {"architecture": "monai", "arguments": NETWORK},
        "train": {
            "steps": 60, "batch_size": 2, "warmup_steps": 5, "learning_rate": 0.01, "ema_decay": 0,
            "validate_every": 30, "threads": 1,
        },
        "evaluate": {"resamples": 20}, "tracking": {"system_metrics": False},
        "card": {"name": "two_channels", "version": "1.0.0", "license": "Apache-2.0", "classes": classes},
    }  # fmt: skip


def run(path: Path, content: dict) -> int:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return run_program(app, ["run", str(path)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run: its outputs, and the data beside them."""
    root = tmp_path_factory.mktemp("channels")
    msd(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run(root / "r.yaml", recipe(root / "data", root / "out")) == 0
    return root


@pytest.fixture(scope="module")
def model(trained: Path) -> Path:
    (path,) = (trained / "out").glob("**/model/model.json")
    return path.parent


def test_a_recipe_of_two_channels_learns_scores_and_registers(trained: Path, model: Path):
    card = weights.read_card(model)
    assert card["input"]["channels"] == CHANNELS and card["arguments"]["in_chans"] == 2
    (summary,) = (trained / "out").glob("**/evaluate*/**/summary.json")
    # either half is seen in one channel alone
    assert all(row["dice"]["mean"] > 0.8 for row in json.loads(summary.read_text())["classes"])


def test_the_store_has_the_channels_first_each_on_its_scale(trained: Path):
    (manifest,) = (trained / "out").glob("**/manifest.json")
    image, labels = StoredVolumes(Store(manifest.parent), "train")[0]
    assert image.shape == (2, *labels.shape)
    first, second = image.astype(np.float32)
    assert abs(first.mean()) < 0.01 and abs(first.std() - 1) < 0.01
    assert second.min() >= 0 and second.max() <= 1 and first.max() > 2
    assert first[labels == 1].mean() > first[labels == 2].mean() + 1
    assert second[labels == 2].mean() > second[labels == 1].mean() + 0.3
    patch, target = RandomPatches(StoredVolumes(Store(manifest.parent), "train"), (8, 9, 10))[0, 3]
    assert patch.shape == (2, 8, 9, 10) and target.shape == (8, 9, 10)


def segment(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = run_program(app, ["segment", *map(str, arguments), "-q"])
    return code, capsys.readouterr().err


def test_both_forms_of_a_scan_give_the_same_labels(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image, labels = balls(77)
    save(tmp_path / "whole.nii.gz", np.moveaxis(image, 0, 3), AFFINE)
    for channel in range(2):
        save(tmp_path / "parts" / f"case_{channel:04}.nii.gz", image[channel], AFFINE)
    assert segment(capsys, "-i", tmp_path / "whole.nii.gz", "-o", tmp_path / "a", "--model", model) == (0, "")
    assert segment(capsys, "-i", tmp_path / "parts", "-o", tmp_path / "b", "--model", model) == (0, "")
    one = tmp_path / "parts" / "case_0000.nii.gz"
    assert segment(capsys, "-i", one, "-o", tmp_path / "c", "--model", model) == (0, "")
    found = [
        load(tmp_path / name).get_fdata() for name in ("a/whole_seg.nii.gz", "b/case_seg.nii.gz", "c/case_seg.nii.gz")
    ]
    assert (found[0] == labels).mean() > 0.98
    assert all(np.array_equal(found[0], other) for other in found[1:])
    sidecar = json.loads((tmp_path / "b" / "case_seg.json").read_text())
    files = sorted((tmp_path / "parts").iterdir())
    assert sidecar["input"]["sha256"] == scan_sha256(*files) == read_channels(files).sha256
    again = tmp_path / "again" / "case_0001.nii.gz"  # another second channel is another scan
    save(again, image[1] + 1, AFFINE)
    assert scan_sha256(files[0], again) != scan_sha256(*files)


def test_a_folder_holds_scans_of_both_forms(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image, _ = balls(78)
    save(tmp_path / "in" / "all_0001.nii.gz", np.moveaxis(image, 0, 3), AFFINE)
    for name in ("full_0000", "full_0001", "half_0000"):
        save(tmp_path / "in" / f"{name}.nii.gz", image[int(name[-1])], AFFINE)
    code, error = segment(capsys, "-i", tmp_path / "in", "-o", tmp_path / "out", "--model", model)
    assert code == 5 and "half_0000.nii.gz: has no channel 0001 beside it, expected 2 channels" in error
    assert sorted(path.name for path in (tmp_path / "out").glob("*_seg.nii.gz")) == [
        "all_0001_seg.nii.gz",
        "full_seg.nii.gz",
    ]
    index = "".join(path.read_text() for path in (tmp_path / "out").glob("index.*"))
    assert "half" not in index and "full" not in index


def test_results_beside_the_channels_are_resumed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = [tmp_path / f"it_{channel:04}.nii.gz" for channel in range(2)]
    for path, image in zip(files, balls(79)[0], strict=True):
        save(path, image, AFFINE)
    command = ["-i", tmp_path, "--model", model, "--save-probabilities"]
    assert segment(capsys, *command) == (0, "")
    sidecar = tmp_path / "it_seg.json"
    before = sidecar.read_bytes()
    assert segment(capsys, *command, "--resume") == (0, "")
    assert sidecar.read_bytes() == before
    save(files[1], balls(80)[0][1], AFFINE)
    assert segment(capsys, *command, "--resume", "--overwrite") == (0, "")
    assert sidecar.read_bytes() != before
    report = (tmp_path / "it_report.html").read_text()
    assert "Shown is T2, the first of 2 channels" in report and "T2, ADC" in report


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, [], "holds 1 volume, expected 2 channels (T2, ADC): a 4-D file of them in this order"),
        (3, [], "holds 3 volumes, expected 2 channels (T2, ADC)"),
        (2, ["--volume-index", 0], "--volume-index has no meaning for a model of 2 channels"),
    ],
)
def test_other_channels_are_one_line(
    count: int, options: list, message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scan = tmp_path / "scan.nii.gz"
    save(scan, np.moveaxis(balls(1, count)[0], 0, 3)[..., 0 if count == 1 else slice(None)], AFFINE)
    code, error = segment(capsys, "-i", scan, "-o", tmp_path / "out", "--model", model, *options)
    assert code == 2 and message in error and error.count("\n") == 1 and "scan.nii.gz" in error
    assert not (tmp_path / "out").exists()


def test_channels_on_other_grids_are_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image, _ = balls(1)
    save(tmp_path / "in" / "it_0000.nii.gz", image[0], AFFINE)
    save(tmp_path / "in" / "it_0001.nii.gz", image[1], make_affine("LPS", (1.5, 1.5, 1.6)))
    scan = tmp_path / "in" / "it_0000.nii.gz"
    code, error = segment(capsys, "-i", scan, "-o", tmp_path / "out", "--model", model)
    assert code == 2 and error.count("\n") == 1
    assert "it_0001.nii.gz: lies on another grid than it_0000.nii.gz" in error and "resample it" in error
    command = ["-i", scan, "-o", tmp_path / "out", "--model", model, "--volume-index", 0]
    assert "--volume-index has no meaning for a file of each channel" in segment(capsys, *command)[1]


def test_a_segmenter_refuses_a_volume_of_one_channel(model: Path, trained: Path):
    scan = next((trained / "data" / "imagesTr").iterdir())
    volume = read_volume(scan, volume_index=0)
    with pytest.raises(InputError, match=r"has 1 channel, the model takes 2 \(T2, ADC\)"):
        Segmenter(model, device="cpu").segment(volume)
    both = Segmenter(model, device="cpu").segment(scan)
    assert both.labels.shape == volume.grid.shape
    np.testing.assert_array_equal(both.volume.data, volume.data)


def test_labels_are_those_of_monais_inference(model: Path):
    from monai.inferers.inferer import SlidingWindowInferer

    image = balls(81)[0]
    volume = Volume(image[0], Grid.from_affine(image.shape[1:], AFFINE), "0" * 64, further=(image[1],))
    first, second = (torch.from_numpy(np.ascontiguousarray(to_ras(channel, volume.grid)[0])) for channel in image)
    scaled = torch.stack([normalise(first, "zscore"), normalise(second, {"name": "window", "low": 80, "high": 220})])
    with torch.inference_mode():
        logits = SlidingWindowInferer((16,) * 3, 1, 0.5, mode="gaussian")(scaled[None], weights.load(model).module)
    assert isinstance(logits, torch.Tensor)
    labels = to_ras(Segmenter(model, device="cpu").segment(volume).labels, volume.grid)[0]
    assert len(np.unique(labels)) == 3
    assert (labels == logits[0].argmax(0).numpy()).mean() > 0.999


class TestLayout:
    """nnU-Net's form of a data set."""

    def test_both_layouts_prepare_the_same(self, tmp_path: Path):
        one, other = find_cases("msd", msd(tmp_path / "a")), find_cases("nnunet", nnunet(tmp_path / "b"))
        assert [case.name for case in one] == [case.name for case in other]
        assert [len(case.image) for case in other] == [2] * 6
        assert is_nnunet(tmp_path / "b") and not is_nnunet(tmp_path / "a")
        first, second = read_volume(one[0].image[0], channels=CHANNELS), read_channels(other[0].image)
        for left, right in zip(first.channels, second.channels, strict=True):
            np.testing.assert_array_equal(left, right)

    def test_one_channel_is_read_too(self, tmp_path: Path):
        cases = find_cases("nnunet", nnunet(tmp_path, 1))
        assert [case.image[0].name for case in cases[:2]] == ["ball_001_0000.nii.gz", "ball_002_0000.nii.gz"]

    @pytest.mark.parametrize("gone", ["ball_003_0000", "ball_003_0001", "ball_003_0002"])
    def test_a_missing_channel_is_named(self, gone: str, tmp_path: Path):
        nnunet(tmp_path, 3)
        (tmp_path / "imagesTr" / f"{gone}.nii.gz").unlink()
        with pytest.raises(InputError, match=rf"ball_003_\d+.nii.gz: has no channel {gone[-4:]} beside it, expected 3"):
            find_cases("nnunet", tmp_path)


@pytest.mark.parametrize("case", ["in_chans", "none named", "three named", "normalisation", "twice"])
def test_a_recipe_of_other_channels_is_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    content = recipe(msd(tmp_path / "data"), tmp_path / "out")
    data, arguments = content["data"], content["model"]["arguments"] = content["data"], {**NETWORK}
    message = {
        "in_chans": "takes 1 channels, the data have 2; give in_chans=2",
        "none named": "ball_001.nii.gz: has 2 channels, expected 1; name those of all cases in data.channels",
        "three named": "ball_001.nii.gz: has 2 channels, expected 3 (T2, ADC, T1)",
        "normalisation": "normalisation has 3 entries, expected one, or one for each of 2 channels",
        "twice": "channels is ['T2', 'T2'], expected different names",
    }[case]
    if case == "in_chans":
        arguments["in_chans"] = 1
    elif case == "none named":
        arguments["in_chans"] = 1
        data |= {"channels": [], "normalisation": "zscore"}
    elif case == "three named":
        arguments["in_chans"] = 3
        data |= {"channels": [*CHANNELS, "T1"], "normalisation": "zscore"}
    elif case == "normalisation":
        data["normalisation"] = ["zscore"] * 3
    else:
        data["channels"] = ["T2", "T2"]
    assert run(tmp_path / "r.yaml", content) == 2
    assert message in capsys.readouterr().err


def test_intensities_are_varied_each_on_its_own_and_space_alike():
    image = torch.rand(1, 16, 16, 16).expand(3, -1, -1, -1) + 0.1
    label, size = (image[:1] > 0.6).to(torch.uint8), (16, 16, 16)
    still = Augmentation(rotation_degrees=0, scaling=0, shift=0).model_dump()
    moved = Augmentation(intensity=0, gamma=0, noise=0).model_dump()
    for seed in range(4):
        varied, _ = Augment(still, size, 3)(image, label, seed)
        assert not torch.allclose(varied[0], varied[1])
        varied, target = Augment(moved, size, 3)(image, label, seed)
        alone, expected = Augment(moved, size)(image[:1], label, seed)
        torch.testing.assert_close(varied, alone.expand(3, -1, -1, -1))
        assert torch.equal(target, expected)


class TestPlan:
    """`medvision plan` of several channels."""

    def plan(self, root: Path, output: Path, *options: object) -> int:
        return run_program(app, ["plan", *map(str, [root, "-o", output, *options])])

    @pytest.mark.parametrize("layout", ["msd", "nnunet"])
    def test_four_channels_give_a_plan_that_trains(self, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        root = (msd if layout == "msd" else nnunet)(tmp_path / "data", 4)
        names = {"0": "FLAIR", "1": "CT", "2": "noNorm", "3": "T2w"}
        described = {"labels": {"background": 0, "one": 1, "two": 2}}
        described |= {"modality": names} if layout == "msd" else {"channel_names": names, "file_ending": ".nii.gz"}
        (root / "dataset.json").write_text(json.dumps(described))
        assert self.plan(root, tmp_path / "p.yaml", "--width", 4, "--memory", 2, "-q") == 0
        planned = load_recipe(str(tmp_path / "p.yaml"))
        data = planned.data
        assert isinstance(data, PatchData) and data.layout == layout and data.channels == list(names.values())
        assert isinstance(data.normalisation, list)
        zscore, window, none, last = data.normalisation
        assert (zscore, none, last) == ("zscore", "none", "zscore") and isinstance(window, dict)
        assert window["name"] == "window" and planned.model.arguments["in_chans"] == 4
        assert planned.card["input"]["modality"] == "FLAIR, CT, noNorm, T2w"
        text = (tmp_path / "p.yaml").read_text()
        assert "FLAIR, T2w: each volume by its own mean" in text and "CT: CT: from the 0.5th" in text
        spacing = data.spacing_mm
        case = {"spacing": spacing, "patch": data.patch, "width": 4, "classes": 3, "batch": planned.train.batch_size}
        promised, taken = measure({**case, "channels": 4})
        assert taken <= promised <= 2
        changes = ["train.steps=1", "train.warmup_steps=0", "evaluate.resamples=20", f"output={tmp_path / 'out'}"]
        assert run_program(app, ["run", str(tmp_path / "p.yaml"), *changes]) == 0

    def test_without_names_the_channels_are_counted(self, tmp_path: Path):
        assert self.plan(msd(tmp_path / "data"), tmp_path / "p.yaml", "-q") == 0
        data = load_recipe(str(tmp_path / "p.yaml")).data
        assert isinstance(data, PatchData) and data.channels == ["channel 0", "channel 1"]

    def test_other_numbers_of_channels_are_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = msd(tmp_path / "data")
        image, _ = balls(4, 3)
        save(root / "imagesTr" / "ball_004.nii.gz", np.moveaxis(image, 0, 3), AFFINE)
        assert self.plan(root, tmp_path / "p.yaml", "-q", "--modality", "T2,ADC") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "ball_004.nii.gz: has 3 channels, expected 2 (T2, ADC)" in error
