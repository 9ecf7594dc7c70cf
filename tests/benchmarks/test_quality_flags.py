"""What corruption costs the bundled model, how well flags tell of it, and where their thresholds come from.

Thresholds and curves are fitted on volumes drawn from label maps that nothing was trained on; real scans are reported
on only.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medvision.contract import expectations
from medvision.corruptions.volumes import SCALES, corrupt_volume
from medvision.datasets.synthetic import LabelMapSynthesizer, SynthesisSettings
from medvision.findings.expected_dice import expected_dice, fit_knots, fit_threshold
from medvision.metrics.overlap import compare
from medvision.segmentation import Segmenter
from medvision.volumes.files import Volume
from medvision.volumes.geometry import Grid
from pipelines.evaluation.flag_usefulness import POOR, flag_usefulness
from pipelines.evaluation.volume_robustness import measure_volume
from tests.brain_references import SCORED, manual_scan

REPORTED = ("1006", "1007", "1008")
SEVERITIES = (3, 5)
DRAWN = 25

KINDS = list(SCALES["mr"])
OF = (
    "volumes drawn from two label maps that nothing was trained on (T1-weighted, half of them stripped), a fifth as "
    "drawn, the others under MR corruptions of severity 3 to 5"
)


def test_flags_tell_of_what_corruption_costs(data_root: Path):
    segmenter = Segmenter(device="cpu")
    found = []
    for name in REPORTED:
        volume, reference = manual_scan(data_root, name)
        truth = np.where(np.isin(reference, SCORED), reference, 0).astype(np.uint8)
        found.append(measure_volume(segmenter, volume, truth, KINDS, SEVERITIES, modality="mr")[0])
    clean = np.mean([part["clean"]["dice"] for part in found])
    print(
        f"\nmean Dice of {len(REPORTED)} scans, clean {clean:.3f}\n{'corruption':12}"
        + " severity".join(["", " 3", " 5"])
    )
    for kind in KINDS:
        cells = [cell for part in found for cell in part["cells"] if cell["corruption"] == kind]
        means = [np.mean([cell["dice"] for cell in cells if cell["severity"] == severity]) for severity in SEVERITIES]
        print(f"{kind:12} " + "  ".join(f"{mean:.3f} ({mean - clean:+.3f})" for mean in means))
    states = [state for part in found for state in (part["clean"], *part["cells"])]
    print(json.dumps(flag_usefulness(states), indent=2))
    flagged = [sum(bool(state["flags"]) for state in states if (state["dice"] < 0.7) == poor) for poor in (True, False)]
    print(f"flagged: {flagged[0]} of the poor, {flagged[1]} of the others")
    card = expectations(segmenter.card["input"])
    errors = [
        expected - dice
        for state in states
        for name, dice in state["dice_of"].items()
        if (expected := expected_dice(card, name, state["confidence_of"][name])) is not None
    ]
    print(f"expected less found Dice: mean {np.mean(errors):+.3f}, mean absolute {np.mean(np.abs(errors)):.3f}")


def drawn_cells(data_root: Path) -> Iterator[tuple[str | None, Volume, np.ndarray]]:
    """Corruption (None for every fifth), volume and structures of drawn heads."""
    settings = SynthesisSettings(t1_share=1.0, stripped_share=0.5)
    draw = LabelMapSynthesizer(data_root / "medical/brain_labelmaps_synthseg_validation", settings)
    for number in range(DRAWN):
        image, truth = draw(torch.Generator().manual_seed(1000 + number))
        data = np.asfortranarray(image.numpy())
        x, y, z = data.shape
        grid = Grid.from_affine((x, y, z), np.diag([1.5, 1.5, 1.5, 1]))
        volume = Volume(data, grid, hashlib.sha256(b"synth%d" % number).hexdigest())
        kind = None if number % 5 == 0 else KINDS[(number - number // 5 - 1) % len(KINDS)]
        if kind is not None:
            volume.data = corrupt_volume(
                kind, data, (3, 5, 4)[number // 10], spacing_mm=(1.5,) * 3, modality="mr", seed_key=[volume.case_id]
            )
        yield kind, volume, truth.numpy()


def fit(segmenter: Segmenter, data_root: Path) -> dict[str, Any]:
    """What a card says of confidence; a structure is poor where its Dice is below `POOR`."""
    cells = []
    for kind, volume, truth in drawn_cells(data_root):
        result = segmenter.segment(volume)
        rows = compare(result.labels, truth, (1.5,) * 3, segmenter.contract.classes)
        cells.append((kind, {row["name"]: (result.confidence[row["id"]], row["dice"] or 0.0) for row in rows}))
    knots, least = {}, {}
    for entry in segmenter.contract.classes:
        if entry["id"] not in SCORED:
            continue
        pairs = [(kind, *said[entry["name"]]) for kind, said in cells]
        seen = [(confidence, dice) for _, confidence, dice in pairs if confidence is not None]
        knots[entry["name"]] = fit_knots([confidence for confidence, _ in seen], [dice for _, dice in seen])
        least[entry["name"]] = fit_threshold([c or 0.0 for _, c, _ in pairs], [d < POOR for *_, d in pairs])
    return {"min_confidence": least, "expected_dice": {"cases": len(cells), "of": OF, "knots": knots}}


def test_fit_of_thresholds_and_curves(data_root: Path):
    print("\n" + json.dumps(fit(Segmenter(device="cpu"), data_root), indent=1))
