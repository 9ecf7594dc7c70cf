"""The loop that trains networks for the brain: what it learns, and that it goes on where it was killed."""

import json
import math

import pytest
import torch

from medvision.datasets.brain_labels import PART_IDS, PARTS
from medvision.datasets.synthetic import LabelMapSynthesizer
from shared_backbones.networks.skip_unet import SkipUnet
from tests.benchmarks import brain_gpu, brain_training, drawn_heads
from tests.benchmarks.brain_judging import judge, summary
from tests.benchmarks.brain_networks import NETWORKS
from tests.benchmarks.brain_training import OUTPUTS, Parts, PartsLoss, Training, batches, is_3d
from tests.benchmarks.drawn_heads import NORMALISATION, TRAINING, DrawnHead
from tests.medvision.heads import write_heads

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory) -> LabelMapSynthesizer:
    folder = write_heads(tmp_path_factory.mktemp("maps"))
    return LabelMapSynthesizer(folder, TRAINING, targets=PART_IDS, normalisation=NORMALISATION)


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(brain_training, "PATCH", 32)
    monkeypatch.setattr(brain_training, "SLICE", 32)


def tiny() -> SkipUnet:
    torch.manual_seed(1)
    return SkipUnet(OUTPUTS, widths=(4, 8))


def logits_of(ids: torch.Tensor, parts: Parts) -> torch.Tensor:
    classes = torch.nn.functional.one_hot(parts.class_of[ids], OUTPUTS - 1).float().movedim(-1, 0)
    return torch.cat([20 * classes, 40 * parts.side_of[ids][None] - 20])


def test_ids_survive_the_way_through_classes_and_sides():
    parts = Parts(CPU)
    ids = torch.tensor(sorted(set(PART_IDS.values())))
    assert torch.equal(parts.decode(logits_of(ids, parts)), ids)
    assert parts.structure_of[ids].tolist() == [PARTS.get(int(parts.left[parts.class_of[i]]), 0) for i in ids]


def test_the_loss_is_low_for_the_truth_and_high_for_the_wrong_side(synthesizer):
    parts, loss = Parts(CPU), PartsLoss(Parts(CPU), synthesizer)
    ids = torch.tensor([0, 2, 41, 17, 16]).repeat_interleave(216).view(1, 5, 6, 36)
    truth = logits_of(ids[0], parts)[None]
    assert float(loss(truth, ids, 0.5)) < 1e-3
    mirrored = truth.clone()
    mirrored[:, -1] *= -1
    assert float(loss(mirrored, ids, 0.5)) > 2
    assert float(loss(torch.zeros_like(truth), ids, 0.0)) > math.log(OUTPUTS - 1)


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("volumes", [True, False])
def test_a_round_depends_on_its_number_alone(synthesizer, volumes, coarse):
    kind = {"volumes": volumes, "coarse": coarse, "size": 1, "seed": 1}
    first, again = (list(batches(synthesizer, 3, **kind)) for _ in range(2))
    other = list(batches(synthesizer, 4, **kind))
    assert all(torch.equal(x, y) for a, b in zip(first, again, strict=True) for x, y in zip(a, b, strict=True))
    assert not torch.equal(first[0][0], other[0][0])
    image, ids = first[0]
    count, side = (1 if volumes else 16) * (2 if coarse else 1), 16 if coarse else 32
    assert image.shape == ((count, 1, side, side, side) if volumes else (count, 5, side, side))
    assert ids.shape == ((count, side, side, side) if volumes else (count, side, side))
    assert sum(len(images) for images, _ in first) == 4 * (4 if volumes else 126) * (2 if coarse else 1)


def test_a_killed_training_goes_on_as_if_nothing_had_been(synthesizer, tmp_path, monkeypatch):
    def ticking() -> float:
        ticking.now += 1.0
        return ticking.now

    ticking.now = 0.0
    monkeypatch.setattr(brain_training.time, "process_time", ticking)
    loss, length = PartsLoss(Parts(CPU), synthesizer), 90.0  # of which a step takes one
    whole = Training(tiny(), tmp_path / "whole", length, CPU, seed=1, learning_rate=2e-3)
    whole.run(synthesizer, loss)

    killed = Training(tiny(), tmp_path / "killed", length, CPU, seed=1, learning_rate=2e-3)
    saved = []

    def save() -> None:
        if saved:
            raise KeyboardInterrupt  # in the second round, before its checkpoint
        saved.append(killed.steps)
        Training._save(killed)

    monkeypatch.setattr(killed, "_save", save)
    with pytest.raises(KeyboardInterrupt):
        killed.run(synthesizer, loss)
    resumed = Training(tiny(), tmp_path / "killed", length, CPU, seed=1, learning_rate=2e-3)
    assert 0 < resumed.steps < killed.steps
    resumed.run(synthesizer, loss)
    assert resumed.steps == whole.steps
    for name, value in whole.averaged.items():
        assert torch.equal(value, resumed.averaged[name]), name
    assert (tmp_path / "killed/weights.safetensors").exists()


def test_every_network_learns_and_is_judged(synthesizer, tmp_path):
    loss = PartsLoss(Parts(CPU), synthesizer)
    image, ids = synthesizer(torch.Generator().manual_seed(0))
    head = DrawnHead("head_00", False, True, image, ids)
    for name, make in NETWORKS.items():
        training = Training(make(), tmp_path / name, 1e-3, CPU, seed=1, learning_rate=2e-3)
        training.run(synthesizer, loss)
        assert training.steps == 1
        score = judge(training.trained(), [head], CPU)[0]
        figures = summary([score])
        assert 0 <= figures["mean_all"] <= 1 and figures["mean_all"] == figures["mean_whole"]
        assert is_3d(make()) == (name == "unet_3d")


def test_a_perfect_answer_has_a_dice_of_one(synthesizer, monkeypatch):
    image, ids = synthesizer(torch.Generator().manual_seed(0))
    monkeypatch.setattr("tests.benchmarks.brain_judging.label", lambda *_: ids.long())
    score = judge(tiny(), [DrawnHead("head_00", True, False, image, ids)], CPU)[0]
    assert set(score.dice) <= {1.0} and set(score.parts.values()) <= {1.0, None} and set(score.ratio) <= {1.0}


def test_the_script_for_a_gpu_runs_on_the_cpu(tmp_path, monkeypatch, capsys):
    maps = write_heads(tmp_path / "maps")
    monkeypatch.setattr(drawn_heads, "COUNT", 2)
    given = [str(maps), str(maps), str(tmp_path / "out"), "--seconds", "0.5", "--device", "cpu", "--widths", "4", "8"]
    monkeypatch.setattr("sys.argv", ["brain_gpu", *given])
    brain_gpu.main()
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert figures["volumes_a_second"] > 0 and figures["steps"] > 0 and 0 <= figures["mean_all"] <= 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures
