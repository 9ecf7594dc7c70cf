"""Transforms of a bundle, before and after the network, as a card's `input` says them.

Whatever would make labels differ from ours is refused by its name.
"""

from collections.abc import Callable, Sequence

from medvision.bundles.configs import Component, shown
from shared_backbones.json_values import Json

_KEYS: dict[str, Json] = {"keys": None}
_ORDER = ("LoadImaged", "EnsureChannelFirstd", "Orientationd", "Spacingd", "intensities")
_INTENSITIES = ("NormalizeIntensityd", "ScaleIntensityRanged", "ScaleIntensityd")


def preprocessing(steps: Sequence[Component]) -> tuple[dict[str, Json], str]:
    """What the card says of scans, and the key of the image."""
    card: dict[str, Json] = {"spacing_mm": [None] * 3, "normalisation": "none", "resampling": "antialiased"}
    reached, keys, turned = -1, [], False
    for step in steps:
        step.expect("EnsureTyped", *_ORDER[:-1], *_INTENSITIES)
        keys.append(key_of(step))
        if step.name == "EnsureTyped":
            _check_type(step)
            continue
        place = _ORDER.index("intensities" if step.name in _INTENSITIES else step.name)
        if place <= reached:
            step.config.refuse(step.where, f"{step.name} comes too late or twice, expected {', '.join(_ORDER)} in turn")
        reached = place
        turned |= step.name == "Orientationd"
        card |= _PREPROCESSING[step.name](step)
    if not turned or steps[0].name != "LoadImaged" or len(set(keys)) != 1:
        steps[0].config.refuse(
            steps[0].where, "begins transforms that do not load one image and turn it to RAS by Orientationd"
        )
    return card, keys[0]


def key_of(step: Component) -> str:
    """The one key that a transform is for."""
    key = step.config.value(step.arguments.get("keys"), f"{step.where}::keys")
    key = key[0] if isinstance(key, list) and len(key) == 1 else key
    if not isinstance(key, str):
        step.config.refuse(f"{step.where}::keys", f"is {shown(key)}, expected the key of one image")
    return key


def _check_type(step: Component) -> None:
    values = step.read({**_KEYS, "dtype": None, "data_type": "tensor"}, ("device", "track_meta", "allow_missing_keys"))
    step.need(values, dtype=(None, "float32"), data_type="tensor")


def _load(step: Component) -> dict[str, Json]:
    known = {**_KEYS, "reader": None, "dtype": "float32"}
    values = step.read(known, ("image_only", "ensure_channel_first", "allow_missing_keys", "simple_keys"))
    step.need(values, reader=(None, "NibabelReader", "ITKReader"), dtype="float32")
    return {}


def _channel(step: Component) -> dict[str, Json]:
    values = step.read({**_KEYS, "channel_dim": None}, ("strict_check", "allow_missing_keys"))
    step.need(values, channel_dim=(None, "no_channel"))
    return {}


def _orientation(step: Component) -> dict[str, Json]:
    known = {**_KEYS, "axcodes": None, "as_closest_canonical": False, "labels": None, "lazy": False}
    values = step.read(known, ("allow_missing_keys",))
    step.need(values, lazy=False, labels=(None, [["L", "R"], ["P", "A"], ["I", "S"]]))
    if values["as_closest_canonical"] is not True:
        step.need(values, axcodes="RAS", as_closest_canonical=False)
    return {}


def _spacing(step: Component) -> dict[str, Json]:
    values = step.read(
        {
            **_KEYS, "pixdim": None, "diagonal": False, "mode": "bilinear", "padding_mode": "border", "lazy": False,
            "dtype": "float64", "scale_extent": False, "recompute_affine": False, "min_pixdim": None,
            "max_pixdim": None,
        },
        ("align_corners", "allow_missing_keys", "ensure_same_shape"),
    )  # fmt: skip
    step.need(values, mode="bilinear", padding_mode="border", diagonal=False, scale_extent=False)
    step.need(values, recompute_affine=False, min_pixdim=None, max_pixdim=None, lazy=False)
    step.need(values, dtype=("float64", "float32", None))
    given = values["pixdim"]
    steps = given if isinstance(given, list) else [given]
    if not 1 <= len(steps) <= 3:
        step.config.refuse(f"{step.where}::pixdim", f"is {shown(given)}, expected one to three spacings")
    sizes = [step.number({"pixdim": size}, "pixdim") for size in steps]
    if any(size > 0 and not 0.1 <= size <= 20 for size in sizes):
        step.config.refuse(f"{step.where}::pixdim", f"is {sizes}, expected spacings from 0.1 to 20 mm")
    sizes += [sizes[-1]] * (3 - len(sizes))
    return {"spacing_mm": [size if size > 0 else None for size in sizes], "resampling": "monai"}


def _mean_and_deviation(step: Component) -> dict[str, Json]:
    known = {**_KEYS, "subtrahend": None, "divisor": None, "nonzero": False, "dtype": "float32"}
    values = step.read(known, ("channel_wise", "allow_missing_keys"))
    step.need(values, dtype="float32", nonzero=(False, True))
    if values["subtrahend"] is None and values["divisor"] is None:
        how: Json = {"name": "zscore", "nonzero": True} if values["nonzero"] else "zscore"
        return {"normalisation": how}
    step.need(values, nonzero=False)
    low, width = (step.number(values, name) for name in ("subtrahend", "divisor"))
    if not width > 0:
        step.config.refuse(f"{step.where}::divisor", f"is {width:g}, expected more than 0")
    return {"normalisation": {"name": "window", "low": low, "high": low + width, "clip": False}}


def _window(step: Component) -> dict[str, Json]:
    known = {**_KEYS, "a_min": None, "a_max": None, "b_min": None, "b_max": None, "clip": False, "dtype": "float32"}
    values = step.read(known, ("allow_missing_keys",))
    step.need(values, clip=(False, True), dtype="float32")
    low, high, out_low, out_high = (step.number(values, name) for name in ("a_min", "a_max", "b_min", "b_max"))
    if not (low < high and out_low < out_high):
        step.config.refuse(step.where, "ScaleIntensityRanged has a range without width, expected min below max")
    how = {"name": "window", "low": low, "high": high, "out_low": out_low, "out_high": out_high, "clip": values["clip"]}
    return {"normalisation": how}


def _extremes(step: Component) -> dict[str, Json]:
    known = {**_KEYS, "minv": 0.0, "maxv": 1.0, "factor": None, "dtype": "float32"}
    values = step.read(known, ("channel_wise", "allow_missing_keys"))
    step.need(values, factor=None, dtype="float32")
    low, high = (step.number(values, name) for name in ("minv", "maxv"))
    return {"normalisation": {"name": "minmax", "out_low": low, "out_high": high}}


_PREPROCESSING: dict[str, Callable[[Component], dict[str, Json]]] = {
    "LoadImaged": _load,
    "EnsureChannelFirstd": _channel,
    "Orientationd": _orientation,
    "Spacingd": _spacing,
    "NormalizeIntensityd": _mean_and_deviation,
    "ScaleIntensityRanged": _window,
    "ScaleIntensityd": _extremes,
}


def postprocessing(
    steps: Sequence[Component], image: str, before: Json, resampled: bool, *, binary: bool
) -> dict[str, Json]:
    """What the card says of labels.

    Args:
        steps: the transforms.
        image: key of the image.
        before: the transforms that `Invertd` must invert.
        resampled: whether those change the spacing.
        binary: whether there is one structure.

    Raises:
        InputError: the labels would not be ours.
    """
    card: dict[str, Json] = {"smallest_piece": 0}
    names: list[str] = []
    for step in steps:
        step.expect("EnsureTyped", *_POSTPROCESSING, "SaveImaged")
        if step.name in names and step.name != "EnsureTyped":
            step.config.refuse(step.where, f"{step.name} comes twice, expected once")
        names.append(step.name)
        if step.name == "EnsureTyped":
            _check_type(step)
        elif step.name == "Invertd":
            _check_inverse(step, image, before, resampled)
        elif step.name == "KeepLargestConnectedComponentd":
            card |= _largest_component(step, resampled, binary)
        elif step.name == "AsDiscreted":
            known = {**_KEYS, "argmax": False, "to_onehot": None, "threshold": None, "rounding": None, "dim": 0}
            values = step.read(known, ("allow_missing_keys", "keepdim", "dtype"))
            step.need(values, argmax=True, to_onehot=None, threshold=None, rounding=None, dim=0)
        elif step.name == "Activationsd":
            values = step.read({**_KEYS, "sigmoid": False, "softmax": False, "dim": 0}, ("allow_missing_keys",))
            step.need(values, sigmoid=False, softmax=True, dim=0)
        elif step.name == "SaveImaged":
            _check_saving(step)
    _check_turn(steps, names, resampled)
    return card


def _check_turn(steps: Sequence[Component], names: Sequence[str], resampled: bool) -> None:
    """Raise an InputError unless the transforms stand in an order that gives our labels."""
    config, where = steps[0].config, steps[0].where
    chain = ["Activationsd", "Invertd", "AsDiscreted"] if resampled else ["Invertd", "AsDiscreted"]
    missing = [name for name in chain if name not in names]
    if missing:
        config.refuse(where, f"begins transforms without {missing[0]}, expected {', '.join(chain)}")
    order = [name for name in names if name in _POSTPROCESSING]
    late = [name for name in order if name != "Invertd"] if not resampled else order
    if late != sorted(late, key=_POSTPROCESSING.index):
        config.refuse(
            where, f"begins transforms in the order {', '.join(order)}, expected {', '.join(_POSTPROCESSING)}"
        )
    if "SaveImaged" in names and names.index("SaveImaged") < max(names.index(name) for name in order):
        config.refuse(where, "begins transforms that go on after SaveImaged, expected it last")
    if len({key_of(step) for step in steps}) != 1:
        config.refuse(where, "begins transforms of several keys, expected those of the prediction")


def _check_inverse(step: Component, image: str, before: Json, resampled: bool) -> None:
    known = {**_KEYS, "orig_keys": None, "nearest_interp": True, "post_func": None}
    ignored = ("meta_keys", "orig_meta_keys", "meta_key_postfix", "to_tensor", "device", "allow_missing_keys")
    values = step.read(known, (*ignored, "transform"))
    step.need(values, orig_keys=image, post_func=None)
    if resampled:
        step.need(values, nearest_interp=False)
    given, _ = step.config.follow(step.arguments.get("transform"), step.where)
    if given != step.config.follow(before, step.where)[0]:
        step.config.refuse(f"{step.where}::transform", "is not the evaluator's preprocessing")


def _largest_component(step: Component, resampled: bool, binary: bool) -> dict[str, Json]:
    """Ours is taken at the network's spacing, of all structures together, and joins voxels by their faces."""
    if resampled:
        step.config.refuse(
            step.where, "KeepLargestConnectedComponentd counts voxels after Spacingd was inverted, ours before"
        )
    known = {
        **_KEYS, "applied_labels": None, "is_onehot": None, "independent": True, "connectivity": None,
        "num_components": 1,
    }  # fmt: skip
    values = step.read(known, ("allow_missing_keys",))
    step.need(values, connectivity=1, num_components=1, is_onehot=(None, False))
    step.need(values, applied_labels=(None, 1) if binary else None, independent=(True, False) if binary else False)
    return {"smallest_piece": 1}


def _check_saving(step: Component) -> None:
    ignored = (
        "meta_keys", "meta_key_postfix", "output_dir", "output_postfix", "output_ext", "resample", "mode",
        "padding_mode", "output_dtype", "dtype", "allow_missing_keys", "squeeze_end_dims", "data_root_dir",
        "separate_folder", "print_log", "savepath_in_metadict", "output_name_formatter", "writer", "align_corners",
    )  # fmt: skip
    step.need(step.read({**_KEYS, "scale": None}, ignored), scale=None)


_POSTPROCESSING = ("Activationsd", "Invertd", "AsDiscreted", "KeepLargestConnectedComponentd")
