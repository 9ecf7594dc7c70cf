"""A small MONAI bundle with random weights, and what monai.bundle itself makes of a scan with it."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

NETWORK: dict[str, Any] = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 4, "channels": [4, 8, 8],
    "strides": [2, 2], "norm": ["batch", {"affine": True}], "act": "@activation",
}  # fmt: skip
SPACING = {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [1.3, 1.3, 1.6], "mode": "bilinear"}
SCALE: dict[str, Any] = {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True}
INVERT: dict[str, Any] = {
    "_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False,
    "to_tensor": True, "meta_keys": "pred_meta_dict",
}  # fmt: skip
METADATA = {
    "version": "0.3.1",
    "description": "Bands of a small head",
    "network_data_format": {
        "inputs": {"image": {"modality": "MR", "num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "outer", "2": "middle", "3": "inner"}}},
    },
}
# what monai.bundle evaluates for one scan; SupervisedEvaluator does the same, and needs pytorch-ignite
RUN = (
    "$[@postprocessing({'image': x['image'], 'pred': @inferer(x['image'][None], @network)[0]})"
    " for x in [@preprocessing({'image': @scan})]]"
)


def make_config() -> dict[str, Any]:
    """A configuration for inference in the form of the published ones."""
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "image_key": "image",
        "activation": ["LEAKYRELU", {"negative_slope": 0.1}],
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*.nii.gz')))",
        "device": "$torch.device('cpu')",
        "network_def": dict(NETWORK),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                dict(SPACING),
                dict(SCALE),
                {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [16, 16, 16],
            "sw_batch_size": 2,
            "overlap": 0.5,
        },
        "postprocessing": {
            "_target_": "monai.transforms.Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                dict(INVERT),
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "separate_folder": False},
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            },
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": True,
        },
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
        "run": ["$@evaluator.run()"],
    }


Change = Callable[[dict[str, Any]], object]


def make_network(**changes: Any) -> torch.nn.Module:
    """MONAI's network with random weights whose classes all occur, and differ clearly."""
    from monai.networks.nets.unet import UNet

    torch.manual_seed(0)
    arguments = {name: value for name, value in NETWORK.items() if name != "_target_"}
    network = UNet(**{**arguments, "act": ("LEAKYRELU", {"negative_slope": 0.1}), **changes})
    with torch.no_grad():
        x = torch.rand(1, 1, 32, 32, 32) * 4 - 2
        for _ in range(20):
            network.train()(x)
        network.eval()
        logits = network(x)
        last = [module for module in network.modules() if isinstance(module, torch.nn.ConvTranspose3d)][-1]
        weight, bias = last.weight, last.bias
        assert bias is not None
        scale = 20 / logits.std((0, 2, 3, 4))
        weight.mul_(scale[None, :, None, None, None])
        bias.sub_(logits.mean((0, 2, 3, 4))).mul_(scale)
    return network.eval()


def write_bundle(folder: Path, change: Change | None = None, *, suffix: str = "json", **network: Any) -> Path:
    """Write a bundle; `change` alters its configuration in place."""
    import yaml

    config = make_config()
    if change:
        change(config)
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    text = json.dumps(config) if suffix == "json" else yaml.safe_dump(config)
    (folder / "configs" / f"inference.{suffix}").write_text(text)
    torch.save({"model": make_network(**network).state_dict()}, folder / "models" / "model.pt")
    return folder


def monai_labels(folder: Path, scan: Path, output: Path) -> np.ndarray:
    """Labels that monai.bundle's own run writes for a scan."""
    from monai.bundle.scripts import run

    (config,) = folder.glob("configs/inference.*")
    # what CheckpointLoader does, which needs pytorch-ignite
    load = "$@network_def.load_state_dict((lambda s: s.get('model', s))(torch.load(@weights, weights_only=True)))"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # MONAI warns of what it executes
        run(
            config_file=str(config),
            bundle_root=str(folder),
            output_dir=str(output),
            scan=str(scan),
            weights=str(folder / "models" / "model.pt"),
            initialize=[load, "$@network_def.eval()"],
            run=[RUN],
        )
    (written,) = output.rglob("*.nii.gz")
    return np.asarray(nibabel.load(written).dataobj).round().astype(np.uint8)  # pyright: ignore
