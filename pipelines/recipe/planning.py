"""A recipe for a 3-D network from a data set's fingerprint, by the published rules of nnU-Net (arXiv 1904.08128).

Every number stands in the recipe with the rule and the measured value that it came from.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import yaml
from numpy.typing import ArrayLike

from medvision.datasets.fingerprint import Fingerprint

ANISOTROPY = 3.0
"""An axis whose spacing is more than this times the others', with as many times fewer voxels, is anisotropic."""
SMALLEST_MAP = 4
"""Voxels along an axis below which it is not halved."""
SMALLEST_SIDE, LARGEST_SIDE = 16, 512
"""Voxels of a patch along an axis: `DynUNet` needs three stages, and a card takes no larger patch."""
MOST_FEATURES = 320
DATA_SHARE = 0.05
"""A batch covers at most this fraction of all voxels of the data set."""
MOST_BATCH = 32
STEPS = 25_000
_HEAD = "Planned from the data by `medvision plan`; every number may be changed."
AUGMENTATION = {
    "rotation_degrees": 30.0,
    "scaling": 0.3,
    "shift": 0.0,
    "intensity": 0.25,
    "gamma": 0.35,
    "noise": 0.1,
    "blur": 1.0,
}
Scaling: TypeAlias = str | dict[str, object]
NAMED_SCALINGS: dict[str, Scaling] = {"nonorm": "none", "rescale_to_0_1": "minmax"}
"""What nnU-Net's channel names ask for that are no modality."""
_RESERVED = 1.4  # gigabytes of the process before any network
_TENSORS = 3.5  # of a convolution's output's size that a step keeps: measured, see tests/benchmarks/planned_memory.py
_COLORS = ((220, 50, 47), (38, 139, 210), (133, 153, 0), (181, 137, 0), (211, 54, 130), (42, 161, 152), (108, 113, 196))


@dataclass(frozen=True)
class Topology:
    """How a U-Net halves its maps.

    Attributes:
        patch: Voxels of its input along the axes.
        strides: Strides of every stage, the first at full resolution.
        kernels: Sides of the kernels of every stage.
    """

    patch: tuple[int, ...]
    strides: list[list[int]]
    kernels: list[list[int]]

    def features(self, width: int) -> list[int]:
        """Channels of every stage."""
        return [min(width * 2**stage, MOST_FEATURES) for stage in range(len(self.strides))]


@dataclass
class Plan:
    """A recipe, and why each number is what it is.

    Attributes:
        recipe: The recipe's content.
        reasons: Lines of reason, by dotted key of the recipe.
        gigabytes: What a training step should take.
    """

    recipe: dict[str, object]
    reasons: dict[str, str] = field(default_factory=dict)
    gigabytes: float = 0.0

    def text(self, command: str) -> str:
        """The recipe as YAML with its reasons as comments.

        Args:
            command: How it is run.
        """
        lines = [
            f"# {line}" for line in ("Planned from the data by `medvision plan`; every number may be changed.", command)
        ]
        for key, value in self.recipe.items():
            lines += self._lines(key, value, ())
        return "\n".join(lines) + "\n"

    def _lines(self, key: str, value: object, above: tuple[str, ...]) -> list[str]:
        path, indent = (*above, key), "  " * len(above)
        reason = self.reasons.get(".".join(path))
        lines = [f"{indent}# {reason}"] if reason else []
        if isinstance(value, dict) and len(above) < 2 and key != "options":
            return [*lines, f"{indent}{key}:", *(line for k, v in value.items() for line in self._lines(k, v, path))]
        if key == "classes" and isinstance(value, list):
            return [*lines, f"{indent}{key}:", *(f"{indent}  - {_flow(entry)}" for entry in value)]
        return [*lines, f"{indent}{key}: {_flow(value)}"]


def _flow(value: object) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def target_spacing(fingerprint: Fingerprint) -> tuple[list[float], str]:
    """Spacing that all cases are brought to, along the RAS axes, and why."""
    spacings = fingerprint.spacings
    target = np.median(spacings, 0)
    shape = np.median(fingerprint.shapes_at(target), 0)
    worst = int(target.argmax())
    others = [axis for axis in range(3) if axis != worst]
    reason = "the median spacing of all cases along each axis"
    anisotropic = target[worst] > ANISOTROPY * target[others].max()
    if anisotropic and shape[worst] * ANISOTROPY < shape[others].min():
        finer = max(float(np.percentile(spacings[:, worst], 10)), float(target[others].max()))
        reason += (
            f"; axis {'RAS'[worst]} is anisotropic (median {target[worst]:.3g} mm, {shape[worst]:.0f} voxels): "
            "the 10th percentile there"
        )
        target[worst] = finer
    return [round(float(step), 4) for step in target], reason


def topology_of(spacing_mm: ArrayLike, patch: ArrayLike) -> Topology:
    """Halve the axes of a patch as long as they are long enough and about as finely sampled as the finest one.

    Args:
        spacing_mm: Spacing of the input.
        patch: Voxels asked for along the axes; each is raised to what its halvings divide.
    """
    spacing, wanted = np.array(spacing_mm, float), np.array(patch, float)
    size = wanted
    strides, kernels, halvings = [[1, 1, 1]], [], np.zeros(3, int)
    while True:
        kernels.append([3 if step / spacing.min() < 2 else 1 for step in spacing])
        long_enough = size >= 2 * SMALLEST_MAP
        if not long_enough.any():
            break
        chosen = long_enough & (spacing / spacing[long_enough].min() < 2)
        if chosen.sum() == 1 and size[chosen][0] < 3 * SMALLEST_MAP and len(strides) > 2:
            break
        strides.append([2 if halved else 1 for halved in chosen])
        size = np.where(chosen, np.ceil(size / 2), size)
        spacing, halvings = np.where(chosen, spacing * 2, spacing), halvings + chosen
    whole = np.ceil(wanted / 2**halvings) * 2**halvings
    return Topology(tuple(int(n) for n in whole), strides, kernels)


def gigabytes_of(topology: Topology, width: int, classes: int, batch_size: int, channels: int = 1) -> float:
    """Memory of a training step of `DynUNet` with deep supervision, in float32.

    The maps that two convolutions a stage write in the encoder, and as many and the enlarged one in the decoder, are
    kept for the way back, and so is each further channel of the input; logits at full resolution are kept by the loss;
    weights are there four times.
    """
    size, kept, weights, below = np.array(topology.patch, float), 0.0, 0.0, channels
    for stage, (stride, kernel, features) in enumerate(
        zip(topology.strides, topology.kernels, topology.features(width), strict=True)
    ):
        size = size / stride
        convolutions = 2 if stage == len(topology.strides) - 1 else 5
        kept += features * size.prod() * convolutions * _TENSORS
        weights += np.prod(kernel) * features * (below + 4 * features)
        below = features
    ends = (10 * classes + 4 * (channels - 1)) * math.prod(topology.patch)
    return 4 * (batch_size * (kept + ends) + 4 * weights) / 1e9 + _RESERVED


def plan(
    fingerprint: Fingerprint,
    *,
    name: str,
    data: dict[str, object],
    memory_gb: float,
    width: int,
    steps: int = STEPS,
    steps_reason: str = "",
) -> Plan:
    """A recipe for the data set.

    Args:
        fingerprint: What the data set is like.
        name: Name of the recipe and of its model.
        data: Root, layout and options of the recipe's `data`.
        memory_gb: What a training step may take, in gigabytes.
        width: Channels at full resolution.
        steps: Length of the training.
        steps_reason: Why it is that long.
    """
    spacing, spacing_reason = target_spacing(fingerprint)
    shape = np.median(fingerprint.shapes_at(spacing), 0)
    classes, channels = len(fingerprint.names), len(fingerprint.channels)

    def gigabytes(topology: Topology, batch_size: int) -> float:
        return gigabytes_of(topology, width, classes, batch_size, channels)

    topology, shrunk = _fitting(spacing, shape, memory_gb, gigabytes)
    batch, batch_reason = _batch(fingerprint, spacing, topology, memory_gb, gigabytes)
    normalisation, normalisation_reason = _normalisations(fingerprint)
    sided = any(side in each.lower() for each in fingerprint.names for side in ("left", "right"))
    taken = gigabytes(topology, batch)
    recipe: dict[str, object] = {
        "name": name,
        "seed": 1,
        "data": {
            "kind": "volume_patches",
            **data,
            **({"channels": list(fingerprint.channels)} if channels > 1 else {}),
            "spacing_mm": spacing,
            "normalisation": normalisation,
            "patch": list(topology.patch),
            "mirror_axes": [1, 2] if sided else [0, 1, 2],
            "augmentation": AUGMENTATION,
        },
        "model": {"architecture": "monai", "arguments": network_arguments(topology, width, classes, channels)},
        "train": _training(steps, batch),
        "card": {
            "name": name,
            "version": "1.0.0",
            "license": "unknown",
            "classes": [
                {"id": number, "name": each, "color": _color(number)} for number, each in enumerate(fingerprint.names)
            ],
            "input": {"modality": ", ".join(fingerprint.channels) or "unknown"},
        },
    }
    sizes = " x ".join(f"{n:.0f}" for n in shape)
    reasons = {
        **({"data.channels": "in the order of the files, as the data set names them"} if channels > 1 else {}),
        "data.spacing_mm": spacing_reason,
        "data.normalisation": normalisation_reason,
        "data.patch": f"the shape of the patch follows the median volume ({sizes} voxels at this spacing); {shrunk}",
        "data.mirror_axes": "all axes; the first is left out where classes are called left and right",
        "model.arguments": f"axes are halved while they have {2 * SMALLEST_MAP} voxels and a spacing below twice the "
        f"finest one's; {width} channels at full resolution, doubled to {MOST_FEATURES} at most",
        "train.steps": steps_reason or "a tenth of nnU-Net's 250,000",
        "train.batch_size": batch_reason,
        "train.learning_rate": "AdamW's, for a training that is short beside nnU-Net's",
    }
    return Plan(recipe, reasons, taken)


def network_arguments(topology: Topology, width: int, classes: int, channels: int = 1) -> dict[str, object]:
    """Arguments of `DynUNet`; its outputs at the coarsest two stages are not supervised."""
    supervised = min(len(topology.strides) - 2, 4)
    return {
        "network": "DynUNet",
        "num_classes": classes,
        "in_chans": channels,
        "kernel_size": topology.kernels,
        "strides": topology.strides,
        "upsample_kernel_size": topology.strides[1:],
        "filters": topology.features(width),
        **({"deep_supervision": True, "deep_supr_num": supervised} if supervised > 0 else {}),
    }


def _training(steps: int, batch_size: int) -> dict[str, object]:
    return {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": 1e-3,
        "warmup_steps": min(200, steps // 10),
        "weight_decay": 0.01,
        "gradient_clip": 12.0,
        "loss": "dice_ce",
        "validate_every": max(1, steps // 20),
        "checkpoint_every": max(1, min(250, steps // 20)),
    }


def _color(number: int) -> list[int]:
    return list(_COLORS[(number - 1) % len(_COLORS)]) if number else [0, 0, 0]


def _fitting(
    spacing: Sequence[float], shape: np.ndarray, memory_gb: float, gigabytes: Callable[[Topology, int], float]
) -> tuple[Topology, str]:
    """The largest patch, of the median volume's shape, of which two fit into the memory."""
    step = np.array(spacing)
    wanted = (1 / step) * (256**3 / np.prod(1 / step)) ** (1 / 3)
    size = np.minimum(np.round(wanted), np.round(shape)).clip(SMALLEST_SIDE, LARGEST_SIDE)
    topology = topology_of(spacing, size)
    first = topology.patch
    while gigabytes(topology, 2) > memory_gb and max(size) > SMALLEST_SIDE:
        long = np.where(size > SMALLEST_SIDE, size / shape, -1)
        axis = int(long.argmax())
        halvings = 2 ** sum(stride[axis] == 2 for stride in topology.strides)
        size[axis] = max(topology.patch[axis] - halvings, SMALLEST_SIDE)
        topology = topology_of(spacing, size)
    whole = " x ".join(map(str, first))
    if topology.patch == first:
        return topology, f"two of {whole} fit into {memory_gb:g} GB"
    return topology, f"cut down from {whole} until two fit into {memory_gb:g} GB"


def _batch(
    fingerprint: Fingerprint,
    spacing: Sequence[float],
    topology: Topology,
    memory_gb: float,
    gigabytes: Callable[[Topology, int], float],
) -> tuple[int, str]:
    single = gigabytes(topology, 2) - gigabytes(topology, 1)
    fitting = 1 + int(max(0.0, memory_gb - gigabytes(topology, 1)) / single)
    voxels = float(np.prod(fingerprint.shapes_at(spacing), 1).sum())
    covering = int(DATA_SHARE * voxels / math.prod(topology.patch))
    batch = max(2, min(fitting, covering, MOST_BATCH))
    return batch, (
        f"{fitting} patches fit into {memory_gb:g} GB (about {single:.2g} GB each), {covering} are {DATA_SHARE:.0%} of "
        f"the data's {voxels / 1e6:.3g} million voxels; the smaller, from 2 to {MOST_BATCH}"
    )


def _normalisations(fingerprint: Fingerprint) -> tuple[Scaling | list[Scaling], str]:
    """Scaling of the intensities, of several channels one for each, and why."""
    planned = [_normalisation(fingerprint, channel) for channel in range(len(fingerprint.channels))]
    if len(planned) == 1:
        return planned[0]
    reasons: dict[str, list[str]] = {}
    for name, (_, reason) in zip(fingerprint.channels, planned, strict=True):
        reasons.setdefault(reason, []).append(name)
    return [how for how, _ in planned], "; ".join(f"{', '.join(names)}: {text}" for text, names in reasons.items())


def _normalisation(fingerprint: Fingerprint, channel: int) -> tuple[Scaling, str]:
    """Scaling of a channel's intensities, and why."""
    modality, own = fingerprint.channels[channel], "each volume by its own mean and deviation"
    if modality.lower() in NAMED_SCALINGS:
        return NAMED_SCALINGS[modality.lower()], f"the data set asks for {modality}"
    if modality.upper() != "CT":
        if len(fingerprint.channels) > 1:
            return "zscore", own
        images = f"the images are {modality}" if modality else "nothing says that they are CT"
        return "zscore", f"{own}: {images}"
    values = fingerprint.intensities(channel)
    low, high = (round(float(value), 1) for value in np.percentile(values, [0.5, 99.5]))
    if not low < high:
        return "zscore", f"{own}: all labelled voxels hold {low:g}"
    return (
        {"name": "window", "low": low, "high": high},
        f"CT: from the 0.5th to the 99.5th percentile of {len(values)} labelled voxels",
    )
