"""Names and sizes of the released SatMAE++ networks, by our own."""

import re
from collections.abc import Mapping

from shared_backbones.official import renamed

DECODER_ENTRIES = (r"decoder_", r"mask_token$", r"norm\.", r"proj_up_", r"up_block", r"(fc_norm|head)\.")
BASE: Mapping[str, int] = {"embed_dim": 768, "depth": 12, "num_heads": 12}
LARGE: Mapping[str, int] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_FACTORIES = {
    "mae_vit_base_patch16": BASE,
    "mae_vit_large_patch16": LARGE,
    "vit_base_patch16": BASE,
    "vit_large_patch16": LARGE,
}
"""What the released factories fix; the patch size is an argument in spite of their names."""
_OFFICIAL_NAMES = (
    (r"^trunk\.class_token", "cls_token"),
    (r"^trunk\.positions", "pos_embed"),
    (r"^trunk\.channels", "channel_embed"),
    (r"^class_code", "channel_cls_embed"),
    (r"^decoder_positions", "decoder_pos_embed"),
    (r"^decoder_channels", "decoder_channel_embed"),
    (r"^decoder_embedding", "decoder_embed"),
    (r"^trunk\.", ""),
    (r"\.attention\.projection", ".attn.proj"),
    (r"\.attention\.", ".attn."),
    (r"^multiscale\.projection", "proj_up_conv"),
    (r"^multiscale\.norm", "proj_up_norm"),
    (r"^(multiscale\.blocks\.\d+)\.up\.", r"\1.up_conv."),
    (r"^(multiscale\.blocks\.\d+)\.norm", r"\1.res_norm"),
    (r"^(multiscale\.blocks\.\d+)\.conv", r"\1.res_block.conv"),
    (r"^(multiscale\.blocks\.\d+)\.output", r"\1.proj_out"),
)


def official_name(name: str, grouped: bool, pooled: bool = False) -> str:
    """The released name of an entry.

    Args:
        name: ours.
        grouped: whether the network has groups of bands.
        pooled: whether it is a transformer whose head sees the mean of the tokens.
    """
    name = renamed(name, _OFFICIAL_NAMES)
    number = r"\1" if grouped else ""
    name = re.sub(r"^patch_embeddings(\.\d+)", rf"patch_embed{number}.proj", name)
    name = re.sub(r"^predictions(\.\d+)", f"decoder_pred{number}", name)
    if pooled:
        name = re.sub(r"^norm\.", "fc_norm.", name)
    match = re.match(r"multiscale\.blocks\.(\d+)", name)
    if match:  # the plain model has one block, and its name no number
        name = f"up_block{int(match[1]) + 1 if grouped else ''}{name[match.end() :]}"
    return name


def factory_arguments(prefix: str, variant: str | None, qkv_bias: bool) -> Mapping[str, int]:
    """Arguments that a released factory fixes.

    Args:
        prefix: Beginning of the names of the factories that suit, `mae_` or `vit_`.
        variant: Name of the factory; None fixes nothing.
        qkv_bias: Whether queries, keys and values have biases, as in all released models.

    Raises:
        ValueError: the factory is unknown, or the biases are not wanted.
    """
    known = [name for name in _FACTORIES if name.startswith(prefix)]
    if variant is not None and variant not in known:
        raise ValueError(f"variant {variant!r} is unknown; known: {', '.join(known)}")
    if not qkv_bias:
        raise ValueError("qkv_bias is False, expected True: all released models have these biases")
    return {} if variant is None else _FACTORIES[variant]
