"""Names of the released MedViTV2 weights, by our own."""

import re
from collections.abc import Mapping

from shared_backbones.official import renamed

_OFFICIAL_NAMES = (
    (r"\.convolution\.", ".conv."),
    (r"\.patch_embedding\.project\.", ".patch_embed."),
    (r"\.expand\.conv\.", ".conv.conv.0."),
    (r"\.expand\.norm\.", ".conv.conv.1."),
    (r"\.depthwise\.conv\.", ".conv.conv.3."),
    (r"\.depthwise\.norm\.", ".conv.conv.4."),
    (r"\.se\.squeeze\.", ".conv.conv.6.fc.0."),
    (r"\.se\.expand\.", ".conv.conv.6.fc.2."),
    (r"(features\.\d+)\.project\.conv\.", r"\1.conv.conv.7."),
    (r"(features\.\d+)\.project\.norm\.", r"\1.conv.conv.8."),
    (r"\.reduce\.", ".projection."),
    (r"\.grouped\.0\.conv\.", ".mhca.group_conv3x3."),
    (r"\.grouped\.0\.norm\.", ".mhca.norm."),
    (r"\.grouped\.1\.", ".mhca.projection."),
    (r"\.kan\.(\d)\.norm\.", r".kan.layers.\1.layernorm."),
    (r"\.kan\.(\d)\.grid", r".kan.layers.\1.rbf.grid"),
    (r"\.kan\.(\d)\.linear\.", r".kan.layers.\1.spline_linear."),
    (r"\.attention\.bias_table", ".attn.rpb"),
    (r"\.(attention|e_mhsa)\.projection\.", r".\1.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.e_mhsa\.query\.", ".e_mhsa.q."),
    (r"\.e_mhsa\.key\.", ".e_mhsa.k."),
    (r"\.e_mhsa\.value\.", ".e_mhsa.v."),
    (r"^head\.", "proj_head.0."),
)


def official_name(name: str, homes: Mapping[str, tuple[int, bool]]) -> str:
    """The released code's name of one of our entries.

    Args:
        name: Our name.
        homes: For each block's name, its number from the first of all stages, and whether it is a global one.
    """
    match = re.match(r"stages\.\d\.\d+", name)
    if match:
        number, is_global = homes[match[0]]
        rest = name[match.end() :]
        name = f"features.{number}" + (rest.replace(".attention.", ".e_mhsa.") if is_global else rest)
    return renamed(name, _OFFICIAL_NAMES)
