"""Any classifier of timm as an architecture of a trained model: the baselines that ours are measured against."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from shared_backbones.architectures import Role
from shared_backbones.arguments import Hint
from shared_backbones.errors import require
from shared_backbones.json_values import Document
from shared_backbones.networks.timm_registration import any_size, register_all

_SIZES = int | Sequence[int]
OPTIONS: dict[str, Hint] = {
    **dict.fromkeys(("img_size", "patch_size", "embed_dim", "depth", "depths", "dims", "num_heads", "layers"), _SIZES),
    **dict.fromkeys(("stem_width", "base_width", "cardinality", "head_hidden_size", "output_stride"), _SIZES),
    **dict.fromkeys(("window_size", "embed_dims", "growth_rate", "block_config"), _SIZES),
    **dict.fromkeys(("drop_rate", "drop_path_rate", "drop_block_rate", "pos_drop_rate", "patch_drop_rate"), float),
    **dict.fromkeys(("proj_drop_rate", "attn_drop_rate", "head_init_scale", "ls_init_value", "mlp_ratio"), float),
    **dict.fromkeys(("init_values",), float | None),
    **dict.fromkeys(("qkv_bias", "class_token", "no_embed_class", "avg_down", "strict_img_size"), bool),
    **dict.fromkeys(("dynamic_img_size", "always_partition", "conv_mlp"), bool),
    "global_pool": str | bool,
}
"""Arguments that are handed on to timm, which takes others that name files and addresses."""


class TimmClassifier(nn.Module):
    """`timm.create_model` from random weights, with the methods that our classifiers have.

    Args:
        name: timm's name of the model, such as `resnet18`.
        num_classes: logits.
        in_chans: input channels.
        options: more of timm's arguments, such as `drop_path_rate`; by architecture those in `OPTIONS`.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
        feature_info: channels, reduction and module of each level of maps, as timm gives them.
        classifier: name of the module that is the head.

    Raises:
        ValueError: timm has no such model, or the arguments do not suit it.
    """

    role: ClassVar[Role] = "classifier"

    def __init__(self, name: str, num_classes: int = 1000, in_chans: int = 3, **options: Any) -> None:
        super().__init__()
        register_all()
        timm = require("timm", "train")
        if not timm.is_model(name):
            raise ValueError(f"timm has no model {name!r}")
        self.arguments = {"name": name, "num_classes": num_classes, "in_chans": in_chans, **options}
        self.network: Any = timm.create_model(
            name, num_classes=num_classes, in_chans=in_chans, **{**any_size(name), **options}
        )
        head = self.network.default_cfg.get("classifier")
        self.classifier = f"network.{head if isinstance(head, str) else 'head'}"
        levels = getattr(self.network.feature_info, "info", self.network.feature_info)
        self.feature_info = [{**level, "module": f"network.{level['module']}"} for level in levels]

    @classmethod
    def further_arguments(cls, arguments: Document) -> dict[str, Hint]:
        """Types of the options that a recipe or a card may give."""
        return OPTIONS

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes)` of images `(B, in_chans, H, W)`."""
        return self.network(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map of features."""
        return self.network.forward_features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of features; with `pre_logits` what the classifier sees."""
        return self.network.forward_head(x, pre_logits=pre_logits)
