"""A bundle's configuration for inference, understood: the network, and what a card's `input` says.

What is read begins at `evaluator`, as the bundle's own run does: its network, its inferer, the transforms before and
after. Whatever would make labels differ from ours is refused by its name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from medvision.bundles.configs import Component, Config, shown
from medvision.bundles.transforms import postprocessing, preprocessing
from medvision.models.monai_network import NETWORKS
from shared_backbones.json_values import Json

_METHODS = re.compile(r"\$\s*(@\w+(?:(?:::|#)\w+)*)\.to\((?:device=)?@\w+(?:, *non_blocking=\w+)?\)\s*$")
_WEIGHTS = re.compile(r"""\$@(bundle_root|ckpt_dir)\s*\+\s*['"]/(models/)?model\.pt['"]\s*$""")
_HARMLESS = [
    re.compile(pattern)
    for pattern in (
        r"\$import [\w.]+( as \w+)?",
        r"\$setattr\(torch\.backends\.cudnn, '\w+', (True|False)\)",
        r"\$monai\.utils\.set_determinism\(\d+\)",
        r"\$@evaluator\.run\(\)",
    )
]


@dataclass(frozen=True)
class Understood:
    """What a configuration says.

    Attributes:
        network: class in `monai.networks.nets`.
        arguments: its arguments.
        classes: its output channels.
        input: what a card's `input` says.
    """

    network: str
    arguments: dict[str, Json]
    classes: int
    input: dict[str, Json]


def understand(config: Config) -> Understood:
    """Read a configuration for inference.

    Raises:
        InputError: a part of it is unknown, or says what a card cannot say.
    """
    for name in config.root:
        if not isinstance(name, str) or not re.fullmatch(r"\w+", name):  # others alter what plain ones say
            config.refuse(shown(name), "is no plain name of a section")
    for name in ("initialize", "run"):
        _check_expressions(config, name)
    evaluator = config.component("@evaluator", "evaluator")
    evaluator.expect("SupervisedEvaluator")
    ignored = ("device", "amp", "non_blocking", "epoch_length", "key_val_metric", "additional_metrics")
    evaluator.known(*ignored, "val_data_loader", "network", "inferer", "postprocessing", "val_handlers")
    parts = evaluator.arguments
    _check_handlers(config, parts.get("val_handlers"))
    network, arguments, classes = _network(config, parts.get("network"))
    windows = _windows(config.component(parts.get("inferer"), "evaluator::inferer"))
    transform = _transform_of(config, parts.get("val_data_loader"))
    before, key = preprocessing(_composed(config, transform, "preprocessing"))
    steps = _composed(config, parts.get("postprocessing"), "postprocessing")
    after = postprocessing(steps, key, transform, before["resampling"] == "monai", binary=classes == 2)
    return Understood(network, arguments, classes, {**before, **windows, **after, "crop": False})


def _check_expressions(config: Config, name: str) -> None:
    lines = config.root.get(name)
    for line in lines if isinstance(lines, list) else [] if lines is None else [lines]:
        known = isinstance(line, str) and any(pattern.fullmatch(line.strip()) for pattern in _HARMLESS)
        if not known and not (name == "run" and line == "$@checkpointloader(@evaluator)"):
            config.refuse(name, f"has the expression {shown(line)}, which we do not know")
        if line == "$@checkpointloader(@evaluator)":
            _check_loader(config.component("@checkpointloader", name))


def _check_handlers(config: Config, handlers: Json) -> None:
    if handlers is None:
        return
    for handler in config.components(handlers, "evaluator::val_handlers"):
        handler.expect("StatsHandler", "CheckpointLoader")
        if handler.name == "CheckpointLoader":
            _check_loader(handler)


def _check_loader(loader: Component) -> None:
    """Raise an InputError unless the weights are those of models/model.pt, under the network's own names."""
    loader.known("load_path", "load_dict", "map_location", "strict", "name")
    path, where = loader.config.follow(loader.arguments.get("load_path"), f"{loader.where}::load_path")
    if not isinstance(path, str) or not _WEIGHTS.match(path):
        loader.config.refuse(where, f"is {shown(path)}, expected $@bundle_root + '/models/model.pt'")


def _network(config: Config, value: Json) -> tuple[str, dict[str, Json], int]:
    where = "evaluator::network"
    for _ in range(8):
        value, where = config.follow(value, where)
        match = _METHODS.match(value) if isinstance(value, str) else None
        if match is None:
            break
        value = match[1]
    network = config.component(value, where)
    network.expect(*NETWORKS)
    arguments = {name: config.value(given, f"{network.where}::{name}") for name, given in network.arguments.items()}
    for name, given in arguments.items():
        if _holds_component(given):
            config.refuse(f"{network.where}::{name}", "holds a component, expected numbers and names")
    network.need({"spatial_dims": 3, "in_channels": 1, **arguments}, spatial_dims=3, in_channels=1)
    classes = arguments.get("out_channels")
    if not isinstance(classes, int) or isinstance(classes, bool) or not 2 <= classes <= 256:
        config.refuse(f"{network.where}::out_channels", f"is {shown(classes)}, expected 2 to 256 classes")
    return network.name, arguments, classes


def _holds_component(value: Json) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_holds_component, value.values()))
    return isinstance(value, list) and any(map(_holds_component, value))


def _windows(inferer: Component) -> dict[str, Json]:
    """What the card says of windows."""
    inferer.expect("SlidingWindowInferer", "SlidingWindowInfererAdapt")
    values = inferer.read(
        {
            "roi_size": None, "overlap": 0.25, "mode": "constant", "sigma_scale": 0.125, "padding_mode": "constant",
            "cval": 0, "with_coord": False,
        },
        ("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh", "buffer_steps",
         "buffer_dim"),
    )  # fmt: skip
    inferer.need(values, mode=("constant", "gaussian"), padding_mode="constant", with_coord=False)
    inferer.need(values, sigma_scale=0.125, cval=0)
    size = values["roi_size"]
    sides = [size] * 3 if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 3 or not all(isinstance(n, int) and 8 <= n <= 512 for n in sides):
        inferer.config.refuse(f"{inferer.where}::roi_size", f"is {shown(size)}, expected three sides from 8 to 512")
    overlap = inferer.number(values, "overlap")
    if not 0 <= overlap <= 0.9:
        inferer.config.refuse(f"{inferer.where}::overlap", f"is {overlap:g}, expected 0 to 0.9")
    return {"patch": sides, "overlap": overlap, "window_weights": values["mode"]}


def _transform_of(config: Config, loader: Json) -> Json:
    """The transform of the evaluator's data."""
    loading = config.component(loader, "evaluator::val_data_loader")
    loading.expect("DataLoader", "ThreadDataLoader")
    loading.known("dataset", "batch_size", "shuffle", "num_workers", "pin_memory", "data")
    given = loading.arguments.get("dataset")
    dataset = config.component(given, f"{loading.where}::dataset")
    dataset.expect("Dataset", "CacheDataset", "PersistentDataset")
    dataset.known("data", "transform", "cache_rate", "cache_num", "num_workers", "progress", "cache_dir", "copy_cache")
    return dataset.arguments.get("transform")


def _composed(config: Config, value: Json, where: str) -> list[Component]:
    compose = config.component(value, where)
    compose.expect("Compose")
    compose.known("transforms", "map_items", "unpack_items", "log_stats", "lazy")
    compose.need({"lazy": compose.arguments.get("lazy", False)}, lazy=(False, None))
    steps = config.components(compose.arguments.get("transforms"), f"{compose.where}::transforms")
    if not steps:
        config.refuse(compose.where, "has no transforms, expected some")
    return steps
