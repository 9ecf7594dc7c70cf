"""ParaTransCNN: a ResNet and a pyramid of plain transformers side by side, joined in a decoder (arXiv 2401.15307)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvision.models.paratranscnn_names import official_name
from shared_backbones import official
from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.convolution import ConvNormAct, SqueezeExcitation
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import TransformerBlock
from shared_backbones.networks.resnet import ResNet

STRIDE = 16  # of the deepest map; inputs are padded to a multiple of it
PATCH_SIZE = 2
GATE_REDUCTION = 16  # channels of a joined map per hidden channel of its gate
COMPACT: Arguments = {"dim": 16, "heads": 2, "depth": (1, 1, 1), "resnet_depth": 18, "resnet_width": 16}


class ParaTransCNN(nn.Module):
    """Segmentation network of Sun, Xu, Duan, *ParaTransCNN* (2024), as its released code computes it.

    The input may have any height and width: it is padded at the bottom and right by repeating its edge, to a multiple
    of 16, and the output is cropped. At sizes the released code accepts, outputs equal it. As released, the
    transformers have no position table, class token or final norm, and the ResNet has no pooling after its first
    convolution, so that its maps have twice the usual size.

    Args:
        num_classes: output channels.
        in_chans: input channels; the released code takes 3 only.
        heads: attention heads of every level; divides `dim`.
        dim: width D of the first transformer level; the others have 2D and 4D.
        depth: transformer blocks of the three levels.
        patch_size: 2, the only value the published network works with.
        resnet_depth: 34 as published; 18 is a smaller one of ours.
        resnet_width: channels of the ResNet's first stage, 64 as published.

    Attributes:
        arguments: the constructor's arguments, in JSON types: `ParaTransCNN(**arguments)` builds an equal network.

    Raises:
        ValueError: an argument does not suit.
    """

    role: ClassVar[Role] = "segmenter"
    renamed_arguments: ClassVar[dict[str, str]] = {"n_channels": "in_chans"}

    def __init__(
        self,
        num_classes: int = 9,
        in_chans: int = 3,
        heads: int = 8,
        dim: int = 320,
        depth: Sequence[int] = (3, 3, 3),
        patch_size: int = PATCH_SIZE,
        resnet_depth: int = 34,
        resnet_width: int = 64,
    ) -> None:
        super().__init__()
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "heads": heads,
            "dim": dim,
            "depth": list(depth),
            "patch_size": patch_size,
            "resnet_depth": resnet_depth,
            "resnet_width": resnet_width,
        }
        _check(self.arguments)
        self.grad_checkpointing = False
        self.cnn = ResNet(resnet_depth, in_chans, max_pool=False, width=resnet_width)
        widths = dim, 2 * dim, 4 * dim
        kernels = 2 * patch_size, patch_size, patch_size
        self.levels = nn.ModuleList(
            TransformerLevel(source, width, kernel, count, heads)
            for source, width, kernel, count in zip((in_chans, *widths), widths, kernels, depth, strict=False)
        )
        joined = [w + c for w, c in zip(widths, self.cnn.channels[1:], strict=True)]  # at strides 4, 8 and 16
        self.gates = nn.ModuleList(
            SqueezeExcitation(channels, channels // GATE_REDUCTION, bias=False) for channels in joined
        )
        self.decoder3 = double_convolution(joined[2])
        self.up3 = nn.ConvTranspose2d(joined[2], joined[2] // 2, 2, stride=2)
        self.decoder2 = double_convolution(joined[1] + joined[2] // 2)
        self.up2 = nn.ConvTranspose2d(joined[1] + joined[2] // 2, joined[1], 2, stride=2)
        self.decoder1 = double_convolution(joined[0] + joined[1])
        self.tail = Tail(joined[0] + joined[1], dim, num_classes)

    @classmethod
    def compact(cls, *, num_classes: int, in_chans: int, **arguments: Any) -> "ParaTransCNN":
        """A small relative of ours, practical on two CPU cores; `arguments` go over those of `COMPACT`."""
        return cls(num_classes=num_classes, in_chans=in_chans, **{**COMPACT, **arguments})

    @classmethod
    def from_official(cls, path_or_state_dict: official.Source, **arguments: Any) -> "ParaTransCNN":
        """Build a ParaTransCNN with weights of the released code (HongkunSun/ParaTransCNN, July 2024).

        Args:
            path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
            arguments: arguments of `ParaTransCNN`: `in_chans`, `num_classes`, `heads`, `dim`, `depth`, `patch_size`.

        Raises:
            ValueError: an argument does not suit.
            InputError: the entries are not those of the released code, or do not fit `arguments`.
        """
        model = cls(**arguments)
        official.load_foreign(model, path_or_state_dict, {name: official_name(name) for name in model.state_dict()})
        return model.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes, H, W)` of images `(B, in_chans, H, W)`.

        Raises:
            ValueError: the images have another number of channels, or no pixels.
        """
        channels = self.arguments["in_chans"]
        if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: expected (B, {channels}, H, W), H and W of 1 pixel or more"
            )
        height, width = x.shape[2:]
        below, right = -height % STRIDE, -width % STRIDE
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        maps = self.cnn(x)[1:]  # the first stage feeds only the second
        joined = []
        for level, gate, feature in zip(self.levels, self.gates, maps, strict=True):
            x = level(x, self.grad_checkpointing and self.training)
            joined.append(gate(torch.cat([x, feature], 1)))
        x = self.up3(self._decode(self.decoder3, joined[2]))
        x = self.up2(self._decode(self.decoder2, torch.cat([joined[1], x], 1)))
        x = self._decode(self.decoder1, torch.cat([joined[0], x], 1))
        return self.tail(x)[:, :, :height, :width]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of blocks and decoder steps instead of keeping them."""
        self.grad_checkpointing = enable

    def load_imagenet(self, path_or_state_dict: official.Source) -> None:
        """Start the ResNet from torchvision's ImageNet weights, as published; their classifier is left out.

        Raises:
            InputError: the entries are not those of torchvision's ResNet of that depth.
        """
        names = {name: name for name in self.cnn.state_dict()}
        official.load_foreign(self.cnn, path_or_state_dict, names, [r"fc\."])

    def _decode(self, step: nn.Module, x: Tensor) -> Tensor:
        return recomputed(step, x) if self.grad_checkpointing and self.training else step(x)


def _check(arguments: Arguments) -> None:
    """Find out whether arguments suit one another.

    Raises:
        ValueError: they do not.
    """
    patch_size, depth, resnet_depth = (arguments[name] for name in ("patch_size", "depth", "resnet_depth"))
    heads, dim, resnet_width = (arguments[name] for name in ("heads", "dim", "resnet_width"))
    if patch_size != PATCH_SIZE:
        raise ValueError(f"patch_size is {patch_size}, expected {PATCH_SIZE}: the levels of both branches must meet")
    for name in ("num_classes", "in_chans", "heads", "dim", "resnet_width"):
        if arguments[name] < 1:
            raise ValueError(f"{name} is {arguments[name]}, expected 1 or more")
    if dim % heads:
        raise ValueError(f"dim is {dim}, expected a multiple of heads ({heads})")
    if dim + 2 * resnet_width < GATE_REDUCTION:
        raise ValueError(
            f"dim {dim}, resnet_width {resnet_width}: expected dim + 2 x resnet_width of {GATE_REDUCTION} or more"
        )
    if len(depth) != 3 or min(depth) < 1:
        raise ValueError(f"depth is {depth}, expected three numbers of blocks, each 1 or more")
    if resnet_depth not in {18, 34}:
        raise ValueError(f"resnet_depth is {resnet_depth}, expected 18 or 34")


class TransformerLevel(nn.Module):
    """Strided patches of a map, then pre-norm blocks with global attention: `(B, C, H, W)` to `(B, D, H / k, W / k)`.

    Attention results are dropped twice at 0.1 in the released code, which is once at 1 - 0.9 ** 2 in distribution.
    """

    def __init__(self, in_channels: int, dim: int, kernel: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(in_channels, dim, kernel, stride=kernel)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim,
                heads,
                2.0,
                eps=1e-5,
                qkv_bias=False,
                attention_dropout=0.1,
                projection_dropout=1 - 0.9**2,
                mlp_dropout=0.1,
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """Embed and attend; with `recompute` the blocks' activations are not kept."""
        x = self.patch_embedding(x)
        size = x.shape[2:]
        x = x.permute(0, 2, 3, 1).flatten(1, 2)
        for block in self.blocks:
            x = recomputed(block, x) if recompute else block(x)
        return x.unflatten(1, size).permute(0, 3, 1, 2)


def double_convolution(channels: int) -> nn.Sequential:
    """Twice a 3x3 convolution with bias, batch norm and ReLU, all of one width."""
    return nn.Sequential(*(ConvNormAct(channels, channels, bias=True) for _ in range(2)))


class Tail(nn.Module):
    """Enlarge the last map four times and classify its pixels.

    Nothing lies between the two linear maps, so they are applied as one transposed convolution to the classes: its
    kernel is composed at every forward, which costs little beside the pixels saved, and gradients reach both.
    """

    def __init__(self, channels: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, hidden, 4, stride=4)
        self.classifier: nn.Module = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to logits `(B, num_classes, 4 H, 4 W)`."""
        if not isinstance(self.classifier, nn.Conv2d):
            return self.upsample(x)
        return F.conv_transpose2d(x, *self._compose(self.classifier), stride=4)

    def fold_(self) -> None:
        """Compose the kernel once and for all."""
        if isinstance(self.classifier, nn.Conv2d):
            weight, bias = self._compose(self.classifier)
            self.upsample.weight = nn.Parameter(weight, requires_grad=False)
            self.upsample.bias = nn.Parameter(bias, requires_grad=False)
            self.upsample.out_channels = len(bias)
            self.classifier = nn.Identity()

    def _compose(self, classifier: nn.Conv2d) -> tuple[Tensor, Tensor]:
        matrix = classifier.weight.flatten(1)
        weight = torch.einsum("iokl,co->ickl", self.upsample.weight, matrix)
        bias = torch.zeros_like(matrix[:, 0]) if self.upsample.bias is None else matrix @ self.upsample.bias
        return weight, bias if classifier.bias is None else bias + classifier.bias
