"""A classifier whose map of middle depth is seen, too, by which images of something else are recognised."""

from typing import TypedDict

from torch import Tensor, nn


class _Level(TypedDict):
    """A map that a network gives: channels, how many pixels of the image one of its own is, and where it comes from."""

    num_chs: int
    reduction: int
    module: str


class Watching(nn.Module):
    """A classifier that gives, with its logits, the means of its map of middle depth.

    Args:
        network: classifier that says where its maps come from, in `feature_info`, as timm's and ours do.

    Raises:
        AttributeError: it does not.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        stage, self._channels = _watched(network)
        self._seen: list[Tensor] = []
        stage.register_forward_hook(self._see)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, K)` and features `(B, D)`, float32, of `(B, C, H, W)`."""
        self._seen.clear()
        logits = self.network(images)
        seen = self._seen.pop().float()
        self._seen.clear()
        # tokens, and the maps of Swin and its relatives
        channels_last = seen.ndim == 3 or seen.shape[1] != self._channels
        return logits.float(), seen.flatten(1, -2).mean(1) if channels_last else seen.flatten(2).mean(2)

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen.append(output)


def _watched(network: nn.Module) -> tuple[nn.Module, int]:
    """The stage of a network whose map has an eighth of the image's resolution or the next finer one; its channels.

    Where there is none so fine, as in a plain transformer, it is the finest; of several that are equal the middle one.

    Raises:
        AttributeError: the network does not say where its maps come from, as timm's and ours do.
    """
    levels: list[_Level] = list(getattr(network, "feature_info"))  # noqa: B009 - no module of PyTorch's has it
    fine = [level for level in levels if level["reduction"] <= 8]
    wanted = max((level["reduction"] for level in fine), default=min(level["reduction"] for level in levels))
    equal = [level for level in levels if level["reduction"] == wanted]
    level = equal[len(equal) // 2]
    stage = network.get_submodule(level["module"])
    # some networks run a stage's blocks themselves
    return stage[-1] if isinstance(stage, nn.Sequential | nn.ModuleList) else stage, int(level["num_chs"])
