"""Names of the released HBFormer weights, by our own."""

import re

from shared_backbones.official import renamed

# Entries of the released code that never take part in its output, or that are computed, not learned.
UNUSED = (
    r"proj_enc4\.",
    r"MWAencoder\.backbone\.norm\.",
    r".*\.(attn_mask|relative_position_index)$",
)
_OFFICIAL_NAMES = (
    (r"^input_projection", "input_proj"),
    (r"^encoder\.patch_embedding\.projection", "MWAencoder.backbone.patch_embed.proj"),
    (r"^encoder\.patch_embedding\.norm", "MWAencoder.backbone.patch_embed.norm"),
    (r"^encoder\.stages", "MWAencoder.backbone.layers"),
    (r"\.merging\.", ".downsample."),
    (r"\.attention\.bias_table", ".attn.relative_position_bias_table"),
    (r"\.attention\.projection", ".attn.proj"),
    (r"\.attention\.", ".attn."),
    (r"^skip_projections\.(\d)", lambda match: f"proj_enc{int(match[1]) + 1}"),
    (r"^decoders\.(\d)", lambda match: f"MFF_decoder{4 - int(match[1])}"),
    (r"^(MFF_decoder\d)\.norm", r"\1.BN"),
    (r"\.upsample", ".transp_conv"),
    (r"\.residual\.norm", ".LRD_block.bn"),
    (r"\.residual\.shortcut", ".LRD_block.conv_skip"),
    (r"\.residual", ".LRD_block"),
    (r"\.dilated", ".Med_DSPP"),
    (r"\.(branch|expert)_gate\.squeeze", r".\1_attention.1"),
    (r"\.(branch|expert)_gate\.expand", r".\1_attention.3"),
    (r"\.norms\.", ".bns."),
    (r"\.channel_attention\.convolution", ".eca.conv"),
    (r"\.fuse_norm", ".fuse_bn"),
    (r"^head\.transp_conv", "out.0"),
    (r"^head\.classifier", "out.1"),
)


def official_name(name: str, rates: int, experts: int) -> str | list[list[str]]:
    """The released code's name of one of our entries; for mixed kernels, its names by rate and expert.

    Args:
        name: Our name.
        rates: Number of dilation rates of each dynamic convolution.
        experts: Number of experts of each.
    """
    name = renamed(name, _OFFICIAL_NAMES)
    match = re.fullmatch(r"(.+)\.(depth|point)wise", name)
    if match is None:
        return name
    stem = f"{match[1]}.{match[2][0]}w_experts"
    return [[f"{stem}.{rate}.{expert}.weight" for expert in range(experts)] for rate in range(rates)]
