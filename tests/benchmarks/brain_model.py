"""A trained network for the brain as a model folder, with what its card says of confidence and precision.

python -m tests.benchmarks.brain_model WEIGHTS OUTPUT --drawn DRAWN --data DATA --training '{}'

All of it is measured on heads that are drawn from label maps which nothing was trained on.
"""

import argparse
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from medvision.datasets.brain_labels import LEFT_TO_RIGHT, PARTS
from medvision.models.catalogue import find_model
from medvision.segmentation import Segmenter
from medvision.volumes.files import Volume
from medvision.volumes.geometry import Grid
from shared_backbones import weights
from shared_backbones.card import Card, read_card
from shared_backbones.json_values import Document
from tests.benchmarks.brain_judging import judge, summary
from tests.benchmarks.brain_networks import NETWORKS
from tests.benchmarks.brain_volumes import even_volumes_
from tests.benchmarks.drawn_heads import NORMALISATION, TRAINING, read
from tests.benchmarks.test_quality_flags import fit

# names, and colours as FreeSurfer's viewers show them
_LOOKS = {
    2: ("cerebral_white_matter", (245, 245, 245)),
    3: ("cerebral_cortex", (205, 62, 78)),
    4: ("lateral_ventricle", (120, 18, 134)),
    5: ("inferior_lateral_ventricle", (196, 58, 250)),
    7: ("cerebellar_white_matter", (220, 248, 164)),
    8: ("cerebellar_cortex", (230, 148, 34)),
    10: ("thalamus", (0, 118, 14)),
    11: ("caudate", (122, 186, 220)),
    12: ("putamen", (236, 13, 176)),
    13: ("pallidum", (12, 48, 255)),
    14: ("third_ventricle", (204, 182, 142)),
    15: ("fourth_ventricle", (42, 204, 164)),
    16: ("brainstem", (119, 159, 176)),
    17: ("hippocampus", (220, 216, 20)),
    18: ("amygdala", (103, 255, 255)),
    24: ("csf", (60, 60, 60)),
    26: ("accumbens", (255, 165, 0)),
    28: ("ventral_diencephalon", (165, 42, 42)),
}
PATCH = (192, 192, 192)
"""A head in one piece; a larger volume is cut into windows."""
AGREEING_HEADS = 8
SOURCE = "Images synthesised from 18 whole-head label maps of the SynthSeg repository (Apache-2.0); no real image."

_DRAWN = (
    "forty heads drawn from two label maps that nothing was trained on, half of them stripped, half of them of any "
    "contrast; the volumes of the parts were fitted on them"
)


def card_of(training: Document) -> Card:
    """The card as far as nothing is measured."""
    former = read_card(find_model("brain-structures-1"))
    kept = {key: former["input"][key] for key in ("modality", "brightest_first", "positions", "volume_range_ml")}
    parts = []
    for number, structure in PARTS.items():
        name, color = _LOOKS[number]
        side = {"right": LEFT_TO_RIGHT[number]} if number in LEFT_TO_RIGHT else {}
        parts.append({"id": number, **side, "name": name, "structure": structure, "color": list(color)})
    return {
        "schema_version": 1,
        "architecture": "",
        "arguments": {},
        "weights_sha256": "",
        "name": "brain-structures",
        "version": "2.1.0",
        "description": former["description"],
        "license": former["license"],
        "classes": former["classes"],
        "parts": parts,
        "input": {
            **kept,
            "attached": [6],
            "attached_mm": former["input"]["attached_mm"],
            "normalisation": NORMALISATION,
            "spacing_mm": TRAINING.spacing_mm,
            "patch": list(PATCH),
            "any_size": True,
            "overlap": 0.25,
            "intracranial": True,
        },
        "training": {"data": SOURCE, "synthesis": asdict(TRAINING), **training},
        "limits": [
            "Research use only, not for diagnosis.",
            "Trained on synthetic images of adult heads: no children, lesions, tumours or surgical changes.",
            "Other CSF (6) is defined differently in every reference and is not judged.",
        ],
    }


def agreement(folder: Path, drawn: Path) -> float:
    """Least share of voxels, over some drawn heads, that keep their label in bfloat16."""
    full, half = (Segmenter(folder, device="cpu", precision=name) for name in ("float32", "bfloat16"))
    shares = []
    for head in itertools.islice(read(drawn), AGREEING_HEADS):
        data = np.asfortranarray(head.image.numpy())
        grid = Grid.from_affine(data.shape, np.diag([1.5, 1.5, 1.5, 1.0]))
        volume = Volume(data, grid, "0" * 64)
        shares.append(float((full.segment(volume).labels == half.segment(volume).labels).mean()))
    return min(shares)


def main() -> None:
    """Write the folder, then what is measured on drawn heads into its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("output", type=Path, help="the model folder")
    parser.add_argument("--drawn", type=Path, help="folder of `drawn_heads`")
    parser.add_argument("--data", type=Path, help="folder with medical/brain_labelmaps_synthseg_validation")
    parser.add_argument("--training", type=json.loads, default={}, help="steps and the like, as JSON")
    given = parser.parse_args()
    network = NETWORKS["unet_3d"]()
    network.load_state_dict({name: value.float() for name, value in load_file(given.weights).items()})
    card = card_of(given.training)
    if given.drawn:
        shift = even_volumes_(network, read(given.drawn))
        print("added to the logits:", [round(value, 3) for value in shift.tolist()], flush=True)
        figures = summary(judge(network, read(given.drawn), torch.device("cpu")))
        card["metrics"] = {"drawn_heads": {"of": _DRAWN, **figures}}
    weights.save(given.output, network, card)
    if given.drawn:
        card["bfloat16_agreement"] = round(agreement(given.output, given.drawn), 4)
    if given.data:
        found = fit(Segmenter(given.output, device="cpu", precision="float32"), given.data)
        card["input"] = {**card["input"], **found}
    weights.save(given.output, network, card)


if __name__ == "__main__":
    main()
