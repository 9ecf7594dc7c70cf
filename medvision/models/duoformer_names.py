"""Names of the released DuoFormer weights, by our own."""

from shared_backbones.official import renamed

_INDEXED_BACKBONE = (
    (r"^backbone\.conv1", "resnet_projector.0"),
    (r"^backbone\.bn1", "resnet_projector.1"),
    (r"^backbone\.layer(\d)", lambda match: f"resnet_projector.{int(match[1]) + 3}"),
)
_OFFICIAL_NAMES = (
    (r"^backbone", "resnet_projector"),
    (r"^projections\.(\d)", lambda match: f"projection.proj_heads{3 - int(match[1])}"),
    (r"^token$", "channel_token"),
    (r"^channel_token\.first\.(\d)", lambda match: f"chann_proj1.conv{int(match[1]) + 1}"),
    (r"^channel_token\.second", "chann_proj2.conv1"),
    (r"^channel_token\.fusion\.(\d)\.convolution", r"chann_proj_all.nConvs.\1.conv"),
    (r"^channel_token\.fusion\.(\d)\.norm", r"chann_proj_all.nConvs.\1.norm"),
    (r"^scale_positions", "vision_transformer.pos_embed_for_scale"),
    (r"^positions", "vision_transformer.pos_embed"),
    (r"^class_token", "vision_transformer.cls_token"),
    (r"^scale_blocks\.(\d+)\.attention", r"vision_transformer.scaleBlocks.\1.attn"),
    (r"^scale_blocks", "vision_transformer.scaleBlocks"),
    (r"^patch_blocks\.(\d+)\.", r"vision_transformer.blocks.\1.attn."),
    (r"^pool\.", "vision_transformer.fc."),
    (r"^head\.", "vision_transformer.head."),
    (r"\.attn\.projection", ".attn.proj"),
)


def official_name(name: str, indexed: bool) -> str:
    """The released code's name of one of our entries.

    Args:
        name: Our name.
        indexed: Whether the backbone's parts have numbers in place of names.
    """
    return renamed(name, (*(_INDEXED_BACKBONE if indexed else ()), *_OFFICIAL_NAMES))
