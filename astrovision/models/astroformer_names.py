"""What the released Astroformer weights and configurations are called, and how they are laid out, by our own."""

import math
import re
from collections.abc import Collection

from torch import Tensor

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention import resample_bias_table
from shared_backbones.json_values import Document
from shared_backbones.official import renamed

HEAD_DIM = 32
_OFFICIAL_NAMES = (
    (r"^stem\.0\.convolution", "stem.conv1"),
    (r"^stem\.0\.norm", "stem.norm1"),
    (r"^stem\.1", "stem.conv2"),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.expand\.convolution", ".conv1_1x1"),
    (r"\.expand\.norm", ".norm1"),
    (r"\.depthwise\.convolution", ".conv2_kxk"),
    (r"\.depthwise\.norm", ".norm2"),
    (r"\.se\.squeeze", ".se.fc1"),
    (r"\.se\.expand", ".se.fc2"),
    (r"\.project\.", ".conv3_1x1."),
    (r"\.attention\.bias_table", ".attn.rel_pos.relative_position_bias_table"),
    (r"\.attention\.projection", ".attn.proj"),
    (r"\.attention\.", ".attn."),
    (r"^head\.hidden", "head.pre_logits.fc"),
    (r"^head\.classifier", "head.fc"),
)


def official_name(name: str, halving: Collection[str]) -> str:
    """The released code's name of one of our entries.

    Args:
        name: Our name.
        halving: Names of the blocks that halve their map.
    """
    match = re.fullmatch(r"(stages\.\d+\.\d+)\.norm1\.(.+)", name)
    if match and match[1] in halving:
        name = f"{match[1]}.norm1.norm.{match[2]}"  # the released code joins norm and pooling there
    return renamed(name, _OFFICIAL_NAMES)


def reorder_qkv(tensor: Tensor, heads: int) -> Tensor:
    """From head-first outputs (heads, 3, 32) of a 1x1 convolution to (3, heads, 32) of a linear layer."""
    tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor
    return tensor.unflatten(0, (heads, 3, HEAD_DIM)).transpose(0, 1).flatten(0, 2)


def fit_table(table: Tensor, size: tuple[int, int]) -> Tensor:
    """The table as it is where it fits, else resampled from a square map."""
    if len(table) == (2 * size[0] - 1) * (2 * size[1] - 1):
        return table
    side = math.isqrt(len(table))
    if side * side != len(table) or side % 2 == 0:
        return table  # refused for its shape
    return resample_bias_table(table.float(), ((side + 1) // 2, (side + 1) // 2), size)


# What the released configuration may say beside the sizes that `Astroformer` takes.
_FIXED_CONV = {
    "block_type": "mbconv", "expand_output": True, "kernel_size": 3, "group_size": 1, "pre_norm_act": False,
    "output_bias": True, "stride_mode": "dw", "pool_type": "avg2", "downsample_pool_type": "avg2", "padding": "",
    "attn_early": False, "attn_layer": "se", "attn_act_layer": "silu", "attn_ratio": 0.25, "act_layer": "gelu",
    "norm_layer": "batchnorm2d", "norm_eps": 1e-5,
}  # fmt: skip
_FIXED_TRANSFORMER = {
    "dim_head": 32, "head_first": True, "expand_first": True, "shortcut_bias": True, "attn_bias": True,
    "attn_drop": 0.0, "proj_drop": 0.0, "pool_type": "avg2", "rel_pos_type": "bias", "window_size": None,
    "grid_size": None, "no_block_attn": False, "init_values": None, "act_layer": "gelu", "norm_layer": "layernorm2d",
    "norm_eps": 1e-6,
}  # fmt: skip


def read_config(cfg: Document) -> Arguments:
    """Arguments of `Astroformer` from the released code's configuration."""
    sizes = ("embed_dim", "depths", "block_type", "stem_width", "head_hidden_size")
    arguments = {name: cfg[name] for name in sizes if name in cfg}
    ratios = set()
    for section, fixed in (("conv_cfg", _FIXED_CONV), ("transformer_cfg", _FIXED_TRANSFORMER)):
        given = cfg.get(section, {})
        for name, expected in fixed.items():
            if name in given and given[name] != expected:
                raise ValueError(f"cfg.{section}.{name} is {given[name]!r}: the published models have {expected!r}")
        if "expand_ratio" in given:
            ratios.add(float(given["expand_ratio"]))
    if len(ratios) > 1:
        raise ValueError(
            "cfg: expand_ratio of convolution and transformer blocks differ; the published models have one"
        )
    if cfg.get("stem_bias"):
        raise ValueError("cfg.stem_bias is True: the published models have no bias in the stem")
    return {**arguments, **({"expand_ratio": ratios.pop()} if ratios else {})}
