"""Names of the released ParaTransCNN weights, by our own."""

from shared_backbones.official import renamed

_OFFICIAL_NAMES = (
    (r"^cnn\.conv1", "firstconv"),
    (r"^cnn\.bn1", "firstbn"),
    (r"^cnn\.layer", "encoder"),
    (r"^levels\.(\d)\.patch_embedding", lambda match: f"patch_embed_{int(match[1]) + 1}"),
    (r"^levels\.(\d)\.blocks\.(\d+)\.norm1", lambda match: f"vit_{int(match[1]) + 1}.net.{2 * int(match[2])}.fn.norm"),
    (
        r"^levels\.(\d)\.blocks\.(\d+)\.attention\.",
        lambda match: f"vit_{int(match[1]) + 1}.net.{2 * int(match[2])}.fn.fn.",
    ),
    (
        r"^levels\.(\d)\.blocks\.(\d+)\.norm2",
        lambda match: f"vit_{int(match[1]) + 1}.net.{2 * int(match[2]) + 1}.fn.norm",
    ),
    (
        r"^levels\.(\d)\.blocks\.(\d+)\.mlp\.fc(\d)",
        lambda match: f"vit_{int(match[1]) + 1}.net.{2 * int(match[2]) + 1}.fn.fn.net.{3 * int(match[3]) - 3}",
    ),
    (r"\.projection\.", ".proj."),
    # gates and decoders are counted from the deepest level, and the first gate of ours is the shallowest
    (r"^gates\.(\d)\.squeeze", lambda match: f"SE_{3 - int(match[1])}.fc.0"),
    (r"^gates\.(\d)\.expand", lambda match: f"SE_{3 - int(match[1])}.fc.2"),
    (r"^decoder(\d)\.(\d)\.convolution", lambda match: f"decoder{4 - int(match[1])}.conv{2 * int(match[2]) + 1}"),
    (r"^decoder(\d)\.(\d)\.norm", lambda match: f"decoder{4 - int(match[1])}.norm{2 * int(match[2]) + 1}"),
    (r"^up(\d)\.", r"up\1_1."),
    (r"^tail\.upsample", "up1_1"),
    (r"^tail\.classifier", "out"),
)


def official_name(name: str) -> str:
    """The released code's name of one of our entries."""
    return renamed(name, _OFFICIAL_NAMES)
