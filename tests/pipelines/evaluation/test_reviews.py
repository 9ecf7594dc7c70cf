"""Figures of collected verdicts, and the alias of models whose training was accepted."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluation.reviews import judged_trainings, review_figures
from pipelines.report.verdicts import collect_reviews
from pipelines.tracking.reviewed import move_reviewed
from shared_backbones.errors import InputError
from tests.apps.shared.test_review import identity, put, verdict

# flags, lowest confidence, verdict of AB, verdict of CD; None where there is none
CASES = [
    (0, 0.9, "accept", "accept"),
    (1, 0.8, "accept", "needs_work"),
    (2, None, "reject", "reject"),
    (1, 0.5, "reject", None),
    (0, 0.6, "accept", None),
    (3, 0.1, None, None),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for case, (flags, confidence, *given) in enumerate(CASES):
        put(tmp_path / f"p{case}_seg.json", {
            "case": f"case-{case:08x}", "report": identity(case, 11 + case), "flags": [{}] * flags,
            "summary": {"lowest_confidence": confidence}, "structures": [{"name": "core"}, {"name": "shell"}],
        })  # fmt: skip
        for reader, judged in zip(("AB", "CD"), given, strict=True):
            if judged:
                said = verdict(case, 11 + case, judged, reviewer=reader, seconds=case + 1, comment="Jane Doe",
                               structures={"core": "fix", "Jane Doe": "wrong"})  # fmt: skip
                put(tmp_path / f"{reader}{case}_review.json", said)
    return tmp_path


def test_figures_are_those_of_the_verdicts_and_name_nobody(folder: Path):
    figures = review_figures(collect_reviews([folder]))
    assert (figures["readers"], figures["judged_twice"], figures["seconds_median"]) == (2, 3, 2.5)
    assert figures["accept_share"] == pytest.approx(2 / 5), "what readers disagree on is not accepted"
    assert figures["accept_share_low"] == pytest.approx(0.1176, abs=1e-4)
    assert (figures["structures.core.fix"], figures["structures.core.ok"]) == (8, 0)
    assert "Jane" not in json.dumps(figures) and "AB" not in json.dumps(figures)


def test_kappa_and_alpha_are_those_of_the_page(folder: Path):
    from sklearn.metrics import cohen_kappa_score

    figures = review_figures(collect_reviews([folder]))
    twice = [(a, b) for _, _, a, b in CASES if a and b]
    expected = cohen_kappa_score(*zip(*twice, strict=True), labels=["accept", "needs_work", "reject"],
                                 weights="quadratic")  # fmt: skip
    assert figures["kappa"] == pytest.approx(expected)
    assert figures["alpha"] is not None and figures["alpha"] < 1


def test_flags_and_confidence_are_measured_against_rejects(folder: Path):
    """Without a rule four reports are decided: rejected with 2 flags and no confidence, and 1 and 0.5."""
    figures = review_figures(collect_reviews([folder]))
    assert figures["auc_flags"] == 1, "rejects have 2 and 1 flags, accepts none"
    assert figures["auc_lowest_confidence"] == 1
    worst = review_figures(collect_reviews([folder], "worst"), "worst")
    assert worst["auc_flags"] == pytest.approx(5.5 / 6), "case 1 is decided, too, with as many flags as a reject"
    (folder / "p2_seg.json").write_text(
        (folder / "p2_seg.json").read_text().replace('"flags": [{}, {}]', '"flags": []')
    )
    again = review_figures(collect_reviews([folder]))
    assert again["auc_flags"] == pytest.approx((1 + 2) / 4)


def test_an_adjudicator_decides_and_is_no_reader(folder: Path):
    put(folder / "z.json", verdict(1, 12, "accept", reviewer="Judge", seconds=100))
    figures = review_figures(collect_reviews([folder], "adjudicator:judge"), "adjudicator:judge")
    assert (figures["readers"], figures["accept_share"], figures["seconds_median"]) == (2, pytest.approx(3 / 5), 2.5)


def test_where_nothing_was_judged_figures_are_unknown(folder: Path):
    for path in folder.glob("*_review.json"):
        path.unlink()
    figures = review_figures(collect_reviews([folder]))
    assert figures["readers"] == 0 and figures["accept_share"] is None and figures["auc_flags"] is None
    assert "kappa" not in figures


def put_training(folder: Path, number: int, weights: str, given: str, at: str) -> None:
    report = {"id": f"model-{number:08x}-{number:08x}", "sha256": f"{number:08x}" * 8}
    put(folder / f"t{number}" / "report.json", {"case": f"model-{number:08x}", "report": report,
                                                "model": {"name": "m", "sha256": weights}})  # fmt: skip
    put(folder / f"t{number}_review.json", verdict(1, 1, given, at) | {"report": report})


def register(client: Any, name: str, weights: str) -> int:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        client.create_registered_model(name)
    made = client.create_model_version(name, "file:///nowhere", tags={"domain_vision.weights": weights})
    return int(made.version)


def reviewed(client: Any, name: str) -> int | None:
    alias = client.get_registered_model(name).aliases.get("reviewed")
    return None if alias is None else int(alias)


def test_a_verdict_on_a_training_moves_the_alias(store: str, tmp_path: Path):
    from mlflow import MlflowClient

    client, first, second = MlflowClient(store), "1" * 64, "2" * 64
    for name, weights in (("balls", first), ("balls", second), ("other", second)):
        register(client, name, weights)
    put_training(tmp_path, 1, first, "accept", "2026-01-01T00:00:00Z")
    put_training(tmp_path, 2, second, "needs_work", "2026-01-02T00:00:00Z")
    judged = judged_trainings(collect_reviews([tmp_path]))
    assert judged == [(first, True), (second, False)]
    assert move_reviewed(judged) == ["models:/balls@reviewed is version 1"]
    assert (reviewed(client, "balls"), reviewed(client, "other")) == (1, None)

    put_training(tmp_path, 2, second, "accept", "2026-01-03T00:00:00Z")
    move_reviewed(judged_trainings(collect_reviews([tmp_path])))
    assert (reviewed(client, "balls"), reviewed(client, "other")) == (2, 1), "the latest verdict counts"

    put_training(tmp_path, 2, second, "reject", "2026-01-04T00:00:00Z")
    lines = move_reviewed(judged_trainings(collect_reviews([tmp_path])))
    assert "models:/other@reviewed is no longer version 1: it was not accepted" in lines
    assert reviewed(client, "other") is None

    put_training(tmp_path, 3, "3" * 64, "accept", "2026-01-05T00:00:00Z")
    assert move_reviewed([("3" * 64, True)]) == [
        "model-33333333: no registered version has these weights; no alias was moved"
    ]


def test_readers_who_disagree_move_no_alias(tmp_path: Path):
    put_training(tmp_path, 1, "1" * 64, "accept", "2026-01-01T00:00:00Z")
    report = json.loads((tmp_path / "t1" / "report.json").read_text())["report"]
    put(tmp_path / "b_review.json", verdict(1, 1, "reject", reviewer="B") | {"report": report})
    assert judged_trainings(collect_reviews([tmp_path])) == []
    assert judged_trainings(collect_reviews([tmp_path]), "worst") == [("1" * 64, False)]


def test_a_registered_version_notes_its_weights(store: str, tmp_path: Path):
    import numpy as np
    from mlflow import MlflowClient

    from medvision.models.hbformer import HBFormer
    from pipelines.tracking import registry, runs
    from shared_backbones import weights
    from shared_backbones.card import read_card

    network = HBFormer.compact(
        num_classes=2, in_chans=3, feature_size=4, depths=(1, 1, 1, 1), head_dim=4, window_size=4, img_size=32
    )
    weights.save(tmp_path / "trained", network, {"name": "small"})
    with runs.start_run("medvision", "run", uri=store, parameters={}, tags={}, datasets=[], spool=tmp_path / "spool",
                        system_metrics=False) as run:  # fmt: skip
        registry.register(run, tmp_path / "trained", "small", "newest", np.zeros((2, 3, 32, 32), np.float32))
    digest = read_card(tmp_path / "trained")["weights_sha256"]
    assert move_reviewed([(digest, True)]) == ["models:/small@reviewed is version 1"]
    assert reviewed(MlflowClient(store), "small") == 1


def test_a_store_that_cannot_be_reached_is_one_line(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path))
    with pytest.raises(InputError, match="plain folders are no longer supported"):
        move_reviewed([("1" * 64, True)])
