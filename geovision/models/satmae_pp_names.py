"""Names of the released SatMAE++ weights, by our own."""

import re

from shared_backbones import official

DECODER_ENTRIES = (r"decoder_", r"mask_token$", r"norm\.", r"proj_up_", r"up_block", r"(fc_norm|head)\.")
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
    name = official.renamed(name, _OFFICIAL_NAMES)
    number = r"\1" if grouped else ""
    name = re.sub(r"^patch_embeddings(\.\d+)", rf"patch_embed{number}.proj", name)
    name = re.sub(r"^predictions(\.\d+)", f"decoder_pred{number}", name)
    if pooled:
        name = re.sub(r"^norm\.", "fc_norm.", name)
    match = re.match(r"multiscale\.blocks\.(\d+)", name)
    if match:  # the plain model has one block, and its name no number
        name = f"up_block{int(match[1]) + 1 if grouped else ''}{name[match.end() :]}"
    return name
