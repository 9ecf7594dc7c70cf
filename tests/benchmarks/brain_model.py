"""A trained network for the brain as a model folder: python -m tests.benchmarks.brain_model WEIGHTS OUTPUT"""

import argparse
from pathlib import Path

from safetensors.torch import load_file

from medvision.datasets.brain_labels import LEFT_TO_RIGHT, PARTS
from medvision.models.catalogue import find_model
from shared_backbones import weights
from shared_backbones.card import Card, read_card
from tests.benchmarks.brain_networks import NETWORKS
from tests.benchmarks.drawn_heads import NORMALISATION, TRAINING

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


def write(weights_file: Path, folder: Path, **changes: object) -> None:
    """Write the model folder; `changes` go over the card's `input`."""
    network = NETWORKS["unet_3d"]()
    network.load_state_dict({name: value.float() for name, value in load_file(weights_file).items()})
    former = read_card(find_model("brain-structures"))
    kept = {key: former["input"][key] for key in ("modality", "brightest_first", "positions", "volume_range_ml")}
    parts = []
    for number, structure in PARTS.items():
        name, color = _LOOKS[number]
        side = {"right": LEFT_TO_RIGHT[number]} if number in LEFT_TO_RIGHT else {}
        parts.append({"id": number, **side, "name": name, "structure": structure, "color": list(color)})
    card: Card = {
        "schema_version": 1,
        "architecture": "",
        "arguments": {},
        "weights_sha256": "",
        "name": "brain-structures",
        "version": "2.0.0",
        "description": former["description"],
        "license": former["license"],
        "classes": former["classes"],
        "parts": parts,
        "input": {
            **kept,
            "attached": [6],
            "normalisation": NORMALISATION,
            "spacing_mm": TRAINING.spacing_mm,
            "patch": list(PATCH),
            "any_size": True,
            "overlap": 0.25,
            "intracranial": True,
            **changes,
        },
    }
    weights.save(folder, network, card)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    write(given.weights, given.output)
