"""Trained models become MONAI bundles."""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from medvision.bundles.importing import CHECKPOINT, CONFIGS, METADATA
from medvision.contract import InputContract
from shared_backbones.card import Card
from shared_backbones.errors import InputError
from shared_backbones.files import check_new_folder, new_folder
from shared_backbones.json_values import Document, Json


def export_bundle(model: str | Path, output: Path, approximate: bool = False) -> list[str]:
    """Write a trained model as a bundle that `python -m monai.bundle run` runs.

    Args:
        model: bundled name or folder of a trained model, a network of MONAI.
        output: new or empty folder.
        approximate: whether labels may differ from the model's own where a bundle cannot say what the model does.

    Returns:
        What the bundle does in another way than the model.

    Raises:
        InputError: the model is no 3-D network of MONAI, its scaling of intensities is unknown to MONAI, it does what a
            bundle cannot say and `approximate` is false, or the folder is not empty or cannot be written.
    """
    import torch

    from medvision.models.catalogue import find_model
    from shared_backbones import weights

    check_new_folder(output)
    trained = weights.load(find_model(model))
    contract = InputContract.from_card(trained.card, str(model))
    if trained.card["architecture"] != "monai" or contract.patch is None:
        raise InputError(
            f"model {model}: its architecture is {trained.card['architecture']}; expected a 3-D network of "
            "MONAI, which MONAI can build: train one with model.architecture=monai"
        )
    if contract.channels:
        raise InputError(
            f"model {model}: takes {contract.channel_count} channels, which our bundles do not describe yet; export a "
            "model of one channel"
        )
    if contract.parts:
        raise InputError(f"model {model}: tells parts and sides apart, which no bundle can say; export another model")
    config = _config(trained.card, contract, str(model))
    differences = list(_differences(contract))
    if differences and not approximate:
        raise InputError(
            f"model {model}: {'; '.join(differences)}; the bundle's labels would differ from the model's own: "
            "give --approximate to accept that"
        )
    state = {name.removeprefix("network."): tensor for name, tensor in trained.module.state_dict().items()}
    with new_folder(output) as made:
        for part in (CHECKPOINT, METADATA):
            (made / part).parent.mkdir()
        with (made / CHECKPOINT).open("wb") as file:
            torch.save(state, file)
        for part, content in ((METADATA, _metadata(trained.card, contract, differences)), (CONFIGS[0], config)):
            (made / part).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    return differences


def _differences(contract: InputContract) -> Iterator[str]:
    """What MONAI's transforms and inferer do not do."""
    resampled = any(contract.spacing_mm)
    if resampled and contract.resampling != "monai":
        yield "it resamples with antialiasing about the centre, which Spacingd does not"
    if contract.crops:
        yield "its network sees the box of the scan's content, a bundle's the whole scan"
    if contract.mirror_axes:
        yield "it averages over mirrored windows, which SlidingWindowInferer does not"
    if contract.smallest_piece and (resampled or not _keeps_largest(contract)):
        yield f"it removes pieces below {contract.smallest_piece:g} of the largest, which no transform of MONAI does"


def _keeps_largest(contract: InputContract) -> bool:
    return contract.smallest_piece == 1 and not contract.attached


def _config(card: Card, contract: InputContract, model: str) -> dict[str, Json]:
    """`inference.json`."""
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/labels'",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii*'))",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": _network(card["arguments"]),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": list(_before(contract, model))},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(contract.patch or ()),
            "sw_batch_size": 1,
            "overlap": contract.overlap,
            "mode": contract.window_weights,
        },
        "postprocessing": {"_target_": "Compose", "transforms": list(_after(contract))},
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": f"$@bundle_root + '/{CHECKPOINT}'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            },
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "run": ["$@evaluator.run()"],
    }


def _network(arguments: Document) -> dict[str, Json]:
    options = {name: value for name, value in arguments.items() if name not in ("network", "num_classes", "in_chans")}
    return {
        "_target_": arguments["network"],
        "spatial_dims": 3,
        "in_channels": arguments.get("in_chans", 1),
        "out_channels": arguments["num_classes"],
        **options,
    }


def _before(contract: InputContract, model: str) -> Iterator[dict[str, Json]]:
    yield {"_target_": "LoadImaged", "keys": "image"}
    yield {"_target_": "EnsureChannelFirstd", "keys": "image"}
    yield {
        "_target_": "Orientationd",
        "keys": "image",
        "axcodes": "RAS",
        "labels": [["L", "R"], ["P", "A"], ["I", "S"]],
    }
    if any(contract.spacing_mm):
        yield {"_target_": "Spacingd", "keys": "image", "pixdim": [step or -1 for step in contract.spacing_mm]}
    yield from _scaling(contract, model)
    yield {"_target_": "EnsureTyped", "keys": "image"}


def _scaling(contract: InputContract, model: str) -> Iterator[dict[str, Json]]:
    (how,) = contract.normalisations
    settings: Mapping[str, str | float] = {} if isinstance(how, str) else how
    name = how if isinstance(how, str) else how["name"]
    out = float(settings.get("out_low", 0)), float(settings.get("out_high", 1))
    if name == "rescale_intensity":
        raise InputError(
            f"model {model}: it scales intensities by rescale_intensity, for which MONAI has no transform; expected "
            "zscore, window, minmax or none: train with one of them"
        )
    if name == "zscore":
        yield {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": bool(settings.get("nonzero"))}
    elif name == "minmax":
        yield {"_target_": "ScaleIntensityd", "keys": "image", "minv": out[0], "maxv": out[1]}
    elif name == "window":
        yield {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            "a_min": float(settings["low"]),
            "a_max": float(settings["high"]),
            "b_min": out[0],
            "b_max": out[1],
            "clip": bool(settings.get("clip", True)),
        }


def _after(contract: InputContract) -> Iterator[dict[str, Json]]:
    yield {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    yield {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": False,
    }
    yield {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    if _keeps_largest(contract) and not any(contract.spacing_mm):
        yield {
            "_target_": "KeepLargestConnectedComponentd",
            "keys": "pred",
            "independent": False,
            "connectivity": 1,
        }
    yield {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "labels",
        "output_dtype": "$np.uint8",
        "separate_folder": False,
    }


def _metadata(card: Card, contract: InputContract, differences: list[str]) -> dict[str, Json]:
    side = " x ".join(map(str, contract.patch or ()))
    modality = card["input"].get("modality", "unknown")
    size = list(contract.patch or ())
    image = {"type": "image", "format": "magnitude", "modality": modality, "num_channels": 1, "spatial_shape": size}
    names = {str(entry["id"]): entry["name"] for entry in contract.classes}
    return {
        "version": card.get("version", "1.0.0"),
        "changelog": {card.get("version", "1.0.0"): "written by medvision export"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"nibabel": version("nibabel"), "pytorch-ignite": "0.5.2"},
        "name": card.get("name", ""),
        "task": f"segmentation of volumes in windows of {side}",
        "description": card.get("description", ""),
        "authors": "unknown",
        "copyright": card.get("license", "unknown"),
        "differences": differences,
        "network_data_format": {
            "inputs": {"image": {**image, "dtype": "float32", "value_range": [], "is_patch_data": True}},
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(names),
                    "spatial_shape": size,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": names,
                }
            },
        },
    }
