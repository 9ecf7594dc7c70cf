"""Small trainings in every layout and of every kind, by the recipes as they were first written."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.golden import miniatures

MODELS = Path(__file__).with_name("models")
_TRAIN = {
    "steps": 20, "batch_size": 4, "optimizer": "sgd", "learning_rate": 0.05, "warmup_steps": 3, "ema_decay": 0.8,
    "validate_every": 20, "threads": 1,
}  # fmt: skip
_ADAMW = {"optimizer": "adamw", "learning_rate": 1e-3}
_SHORT = {"steps": 1, "batch_size": 2, "threads": 1}
_HBFORMER = {"feature_size": 4, "depths": [1, 1, 1, 1], "head_dim": 4, "window_size": 4, "img_size": [32, 32]}
_GROUPS = {
    "img_size": 16, "patch_size": 4, "in_chans": 3, "channel_groups": [[0, 1], [2]], "embed_dim": 16,
    "channel_embed": 4, "depth": 2, "num_heads": 2,
}  # fmt: skip
_VIT = {"img_size": 16, "patch_size": 4, "in_chans": 3, "embed_dim": 16, "depth": 2, "num_heads": 2}
_DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
_ASTROFORMER = {
    "img_size": 32, "embed_dim": [32, 32, 32, 32], "depths": [1, 1, 1, 1], "stem_width": 8, "head_hidden_size": 16,
}  # fmt: skip
_MEDVIT = {
    "depths": [1, 1, 3, 1], "dims": [32, 64, 64, 64], "stem_chs": [8, 8, 16], "mix_block_ratio": 0.5, "kernel_size": 3,
    "tokens": "spatial",
}  # fmt: skip
_HEAD = {
    "modality": "MRI",
    "orientation": "RAS",
    "normalisation": "rescale_intensity",
    "smallest_slice": 32,
    "views": ["axial", "coronal", "sagittal"],
}
_STRETCH = {"kind": "asinh", "parameters": {"low": 0.0, "high": 10.0, "softening": 0.1}}


@dataclass(frozen=True)
class Training:
    """A recipe on a miniature.

    Attributes:
        make: writes the data set into a folder.
        data: section of the recipe, as are `model` and `train`.
        classes: of the card; names, or whole entries.
        program: that runs it.
        command: of the program.
        root: the data's place below the folder.
        scored: whether there is something to evaluate.
        model_name: folder below `MODELS` that the trained model is kept in; empty for none.
    """

    make: Callable[[Path], None]
    data: dict[str, Any]
    model: dict[str, Any]
    classes: list[Any]
    program: str
    command: str = "run"
    train: dict[str, Any] = field(default_factory=dict)
    root: str = "."
    scored: bool = True
    model_name: str = ""

    def recipe(self, name: str, root: Path, output: Path) -> dict[str, Any]:
        """The whole recipe."""
        classes = [{"name": entry} if isinstance(entry, str) else entry for entry in self.classes]
        volumes = self.data["kind"] in {"volumes", "synthetic"}
        return {
            "name": name, "domain": self.program, "seed": 1, "output": str(output),
            "data": {"root": str(root / self.root), **self.data}, "model": self.model, "train": _TRAIN | self.train,
            "evaluate": {"resamples": 50}, "tracking": {"system_metrics": False},
            "card": {
                "name": name, "version": "1.0.0", "license": "Apache-2.0",
                "classes": [
                    {"id": number, **({"color": [20 * number, 200, 90]} if volumes else {}), **entry}
                    for number, entry in enumerate(classes)
                ],
                **({"input": _HEAD} if volumes else {}),
            },
        }  # fmt: skip


def _volumes(make: Callable[[Path], None], classes: int, model: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Volumes in a layout; by default only their store matters, so that a single step is learnt."""
    train, name = changes.pop("train", None), changes.pop("model_name", "")
    network = {"architecture": "hbformer", "arguments": _HBFORMER | {"in_channels": 3, "stem_channels": 3}}
    network = model or network
    network["arguments"] = network["arguments"] | {"num_classes": classes}
    data = {"kind": "volumes", "layout": make.__name__, "size": 32, "spacing_mm": [1.5, 1.5, None], **changes}
    return Training(
        make, data, network, [f"organ {n}" if n else "background" for n in range(classes)], "medvision",
        train=_SHORT if train is None else train, scored=train is not None, model_name=name,
    )  # fmt: skip


def _scenes(kind: str, make: Callable[[Path], None], architecture: str, arguments: Any, **changes: Any) -> Any:
    data = {"kind": kind, "sensor": "sentinel2_l1c", "bands": ["B2", "B3", "B8A"], "patch": 16}
    model = {"architecture": architecture, "arguments": arguments, **changes.pop("model", {})}
    fields = {
        name: changes.pop(name) for name in ("classes", "command", "train", "root", "model_name") if name in changes
    }
    return Training(make, data | changes, model, fields.pop("classes", []), "geovision", **fields)


def _galaxies(make: Callable[[Path], None], layout: str, classes: Any, **changes: Any) -> Any:
    arguments = _ASTROFORMER | {"num_classes": len(classes)} | changes.pop("arguments", {})
    fields = {name: changes.pop(name) for name in ("train", "model_name") if name in changes}
    data = {"kind": "galaxies", "layout": layout, "stored": 40, "size": 32, "split": {"test": 0.2, "validation": 0.2}}
    return Training(
        make, data | changes, {"architecture": "astroformer", "arguments": arguments}, list(classes), "astrovision",
        **fields,
    )  # fmt: skip


def _medical(make: Callable[[Path], None], layout: str, classes: Any, channels: int, **changes: Any) -> Any:
    arguments = _MEDVIT | {"num_classes": len(classes), "in_chans": channels} | changes.pop("arguments", {})
    fields = {name: changes.pop(name) for name in ("train", "root", "model_name") if name in changes}
    data = {"kind": "medical_images", "layout": layout, "stored": 28, "size": 28}
    return Training(
        make, data | changes, {"architecture": "medvitv2", "arguments": arguments}, list(classes), "medvision", **fields
    )


_HANDED = [
    "elliptical", "edge_on",
    {"name": "spiral_acw", "mirror": "spiral_cw"}, {"name": "spiral_cw", "mirror": "spiral_acw"},
]  # fmt: skip
_CHEST = (
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
    "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
)  # fmt: skip
_LAND = [
    {"name": "field", "color": [200, 180, 20]}, {"name": "water", "color": [20, 60, 200]},
    {"name": "forest", "color": [20, 160, 60]},
]  # fmt: skip
_MERGED = {"Continuous urban fabric": "Urban fabric", "Rice fields": "Arable land", "Sea and ocean": "Marine waters"}

TRAININGS: dict[str, Training] = {
    "volumes_msd": _volumes(
        miniatures.msd, 3, train={"batch_size": 2, "learning_rate": 1e-3},
        options={"test_ids_above": 220}, validation=0.25, spacing_mm=1.2,
        views=["axial", "coronal", "sagittal"], foreground=0.75, augmentation={"elastic": 2, "blur": 0.5},
        model_name="volumes",
    ),
    "volumes_pairs": _volumes(
        miniatures.pairs, 3,
        {"architecture": "paratranscnn", "arguments": {
            "n_channels": 3, "heads": 2, "dim": 8, "depth": [1, 1, 1], "resnet_depth": 18, "resnet_width": 4,
        }},
        train={
            "schedule": "poly", "learning_rate": 0.02, "accumulate": 2, "batch_size": 2,
            "loss": "dice_focal", "gradient_clip": None, "ema_decay": 0, "steps": 10, "validate_every": 10,
        },
        options={"images": "scans", "labels": "regions", "test_share": 0.3}, validation=0.3, normalisation="zscore",
        augmentation={"flip": True},
    ),
    "volumes_synapse": _volumes(miniatures.synapse, 9, validation=0.4),
    "volumes_synapse_arrays": _volumes(miniatures.synapse_arrays, 9, validation=0, spacing_mm=[1.0, 1.0, None]),
    "volumes_acdc": _volumes(miniatures.acdc, 4, validation=0.3),
    "volumes_lits": _volumes(miniatures.lits, 3, options={"test": ["1", "3"]}, validation=0.3),
    "volumes_avt": _volumes(miniatures.avt, 2, validation=0, spacing_mm=[1.0, 1.0, None]),
    "synthetic": Training(
        miniatures.heads,
        {"kind": "synthetic", "slices": [-1, 0, 1], "size": 32, "slices_per_volume": 8, "buffer": 16, "workers": 0,
         "synthesis": {"spacing_mm": 2.0, "rotation_degrees": 10.0}},
        {"architecture": "hbformer",
         "arguments": _HBFORMER | {"in_channels": 3, "stem_channels": 3, "num_classes": 10}},
        ["background", *(f"structure {number}" for number in range(1, 10))],
        "medvision", train={"learning_rate": 1e-3}, scored=False, model_name="synthetic",
    ),
    "scenes": _scenes(
        "scenes", miniatures.scenes, "satmae_pp_mae_group",
        _GROUPS | _DECODER | {"decoder_channel_embed": 4, "scales": 2, "proj_ratio": 1},
        command="pretrain", root="images", normalisation="satmae", statistics="published", stride=8,
        split={"by": "last", "test": 0.3, "validation": 0.3}, crop=[0.8, 1.0], model_name="scenes",
        train={"learning_rate": 3e-4, "ema_decay": 0},
    ),
    "scenes_fmow_rgb": _scenes(
        "scenes", miniatures.fmow_rgb, "satmae_pp_mae_rgb", _VIT | _DECODER | {"scales": 1}, layout="fmow_rgb",
        sensor="rgb", bands=["red", "green", "blue"], statistics="published", classes=["airport", "barn"],
    ),
    "labelled_scenes": _scenes(
        "labelled_scenes", miniatures.scenes, "satmae_pp_fpn", _GROUPS | {"num_classes": 2, "width": 64},
        model={"init": str(MODELS / "scenes")}, label_values=[2, 4], split={"by": "halves", "validation": 0.25},
        stride=8, normalisation="satmae", classes=_LAND[:2], model_name="labelled_scenes", train={"loss": "ce"},
    ),
    "labelled_scenes_float": _scenes(
        "labelled_scenes", miniatures.float_scenes, "smp_unet",
        {"num_classes": 3, "in_channels": 4, "encoder": "mobilenet_v2", "decoder_channels": [16, 8, 8, 8, 8]},
        bands=["B4", "B3", "B8", "B12"], file_bands=["B2", "B3", "B4", "B8", "B11", "B12"], scale=2.0, offset=-0.05,
        split={"by": "blocks", "block": 16, "test": 0.3, "validation": 0.2}, classes=_LAND, flip=False,
        train={"learning_rate": 5e-4, "ema_decay": 0.5},
    ),
    "images_folders": _scenes(
        "labelled_images", miniatures.rgb_folders, "satmae_pp_vit_rgb", _VIT | {"num_classes": 3}, layout="folders",
        sensor="rgb", bands=["red", "green", "blue"], patch=24, cutmix=0, command="finetune",
        classes=["beach", "forest", "harbor"],
    ),
    "images_eurosat": _scenes(
        "labelled_images", miniatures.eurosat, "satmae_pp_vit_group",
        _GROUPS | {"num_classes": 3, "drop_path_rate": 0.2},
        layout="eurosat", model={"init": str(MODELS / "scenes")}, normalisation="satmae", statistics="published",
        split={"test": 0.2, "validation": 0.2}, classes=["AnnualCrop", "Forest", "River"],
        train=_ADAMW | {"layer_decay": 0.75, "final_rate": 0.001, "gradient_clip": None, "ema_decay": 0},
        model_name="labelled_images",
    ),
    "images_bigearthnet": _scenes(
        "labelled_images", miniatures.bigearthnet, "satmae_pp_vit_group",
        _GROUPS | {"num_classes": 4, "in_chans": 10, "channel_groups": [[0, 1, 2, 6], [3, 4, 5, 7], [8, 9]],
                   "img_size": 12, "channel_embed": 4},
        layout="bigearthnet", sensor="sentinel2_l2a", patch=12,
        bands=["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"],
        options={"merge": _MERGED, "drop": ["Airports"]}, normalisation="satmae",
        classes=["Urban fabric", "Arable land", "Pastures", "Marine waters"],
    ),
    "images_fmow_sentinel": _scenes(
        "labelled_images", miniatures.fmow_sentinel, "satmae_pp_vit_group", _GROUPS | {"num_classes": 2},
        layout="fmow_sentinel", model={"init": str(MODELS / "scenes")}, command="probe", neighbours=3,
        classes=["airport", "barn"],
    ),
    "images_fmow_rgb": _scenes(
        "labelled_images", miniatures.fmow_rgb, "satmae_pp_vit_rgb", _VIT | {"num_classes": 2}, layout="fmow_rgb",
        sensor="rgb", bands=["red", "green", "blue"], mixup=0, statistics="published", classes=["airport", "barn"],
        train={"accumulate": 2, "steps": 10, "validate_every": 10},
    ),
    "galaxies_galaxy10": _galaxies(
        miniatures.galaxy10, "galaxy10", miniatures.GALAXIES, mixup=0.2, smoothing=0.05, balance=0.3,
        augmentation={"resized_crop": [0.4, 1.0]}, model_name="galaxies",
    ),
    "galaxies_table": _galaxies(
        miniatures.cutouts, "table", _HANDED, crop=0.9, symmetries=False, corrupted=2, balance=0.5,
        options={"key": "objid", "label": "class_name", "merge": {"edge_on_bulge": "edge_on"}, "drop": ["star"],
                 "test_rule": {"hash": "md5", "modulo": 5, "equals": [1]}},
        merged={"spiral": ["spiral_acw", "spiral_cw"]},
    ),
    "galaxies_folders": _galaxies(miniatures.galaxy_folders, "folders", _HANDED, train=_SHORT),
    "galaxies_mosaic": _galaxies(
        miniatures.mosaic, "mosaic", ("elliptical", "disk"), stretch=_STRETCH, arguments={"in_chans": 3},
        options={"images": ["g.fits", "r.fits", "z.fits"], "bands": ["g", "r", "z"], "catalogue": "sources.fits",
                 "blocks_arcmin": 0.4},
    ),
    "galaxies_mosaic_five_bands": _galaxies(
        miniatures.mosaic, "mosaic", ("elliptical", "disk"), stretch=_STRETCH, arguments={"in_chans": 5},
        pixel_scale_arcsec=0.5, train=_SHORT,
        options={"images": [f"{band}.fits" for band in "grizy"], "bands": list("grizy"), "catalogue": "sources.fits",
                 "x": "col", "y": "row", "id": "objid", "split": "part"},
    ),
    "galaxies_phantoms": _galaxies(
        miniatures.nothing, "phantoms", _HANDED, options={"count": 40}, augmentation={"color": 0.1}, train=_SHORT,
    ),
    "medical_medmnist": _medical(
        miniatures.pneumoniamnist, "medmnist", ("normal", "pneumonia"), 1, smoothing=0.05, corrupted=2,
        corruption_share=0.5, arguments={"path_dropout": 0.1}, model_name="medical_images",
        augmentation={"rotation_degrees": 15, "blur": 0.8, "mirrored": False},
        train={"norm_images": 64, "learning_rate": 1e-4},
    ),
    "medical_medmnist_several": _medical(
        miniatures.chestmnist, "medmnist", _CHEST, 1, root="chestmnist.npz",
        train={"norm_images": 64, "learning_rate": 1e-4},
    ),
    "medical_folders": _medical(
        miniatures.tiles, "folders", ("stroma", "tumour", "mucus"), 3, split={"test": 0.2, "validation": 0.2},
        train=_SHORT, symmetries=True,
    ),
    "medical_table": _medical(
        miniatures.radiographs, "table", ("normal", "pneumonia"), 1, train=_SHORT,
        options={"table": "findings.csv", "images": "pictures", "key": "file", "label": "finding", "split": "part",
                 "merge": {"bacterial": "pneumonia", "viral": "pneumonia"}, "drop": ["unsure"]},
    ),
}  # fmt: skip
"""By name; the first word is the kind of the data."""
