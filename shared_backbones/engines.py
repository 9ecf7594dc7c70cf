"""Networks that OpenVINO runs on the CPU in place of torch.

An engine is trusted once it gave torch's answers: the first inputs of a model on a machine are computed by both. For
them torch's float32 result is the one that counts, and what was measured is kept with the converted network.
"""

import contextlib
import json
import math
import re
import sys
import warnings as python_warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from shared_backbones.card import Card
from shared_backbones.converted import Converted, digest_of
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.packing import packed_layers

if TYPE_CHECKING:
    from openvino import CompiledModel, Model

Outputs: TypeAlias = tuple[Tensor, ...]
Same: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Maps the first outputs of torch and of an engine to a mask of what is alike."""

TORCH = "torch"
"""Engine that runs the network as it is."""
AGREEMENT = 0.999
"""Share of answers that an engine must leave as they are."""
_ANSWERS, _INPUTS = 1_000_000, 64  # that are compared: as many answers, or as many inputs, whatever is reached first
_SMALLEST = 64  # side at which a network of many sizes is tried
_MOST_AT_ONCE, _PIXELS_AT_ONCE = 16, 2**16
_SHAPES = 8  # compiled networks that a process keeps
_TOLERANCE = 1e-3  # of values, as a share of their range
_REASON = 200  # characters of what an engine says
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.@~+-]+){2,}")


class Described(TypedDict, total=False):
    """What a side-car says of how a network ran.

    Attributes:
        engine: Engine other than torch that ran the network, and its version.
        engine_agreement: Share of the answers that were compared which were torch's; None where there were none yet.
        packed_layers: Layers that torch ran from packed weights, where there were some; see
            `shared_backbones.packing`.
    """

    engine: str
    engine_agreement: float | None
    packed_layers: int


def check_engine(name: str, device: torch.device) -> None:
    """Find out whether an engine can be used here.

    Raises:
        InputError: the engine is unknown, is not installed, or does not run on the device.
    """
    if name not in {TORCH, "openvino"}:
        raise InputError(f"engine {name!r}: expected torch or openvino")
    if name == TORCH:
        return
    _openvino()
    if device.type != "cpu":
        raise InputError(f"engine {name}: runs on the CPU, the device is {device}; add --device cpu, or use torch")


def same_labels(expected: Tensor, actual: Tensor) -> Tensor:
    """Where the likeliest class `(1, ...)` of logits `(1, K, ...)` is the same."""
    return expected.argmax(1) == actual.argmax(1)


def same_decisions(expected: Tensor, actual: Tensor) -> Tensor:
    """Where logits `(1, K)` are of one sign, as of classes that an image has or has not."""
    return (expected > 0) == (actual > 0)


def same_values(expected: Tensor, actual: Tensor) -> Tensor:
    """Where values differ by at most a thousandth of their range."""
    return (expected - actual).abs() <= _TOLERANCE * (expected.max() - expected.min())


@dataclass
class _Tally:
    """Answers that were compared, those that were alike, and inputs."""

    answers: int = 0
    alike: int = 0
    inputs: int = 0

    @property
    def is_enough(self) -> bool:
        return self.answers >= _ANSWERS or self.inputs >= _INPUTS

    @property
    def agreement(self) -> float | None:
        return self.alike / self.answers if self.answers else None


class Accelerated:
    """A network that OpenVINO runs, compiled for each size of inputs when it first comes.

    Large inputs run one at a time, small ones in groups, and what is left of these one at a time.

    Where the network cannot be converted, or its answers are not torch's, torch runs it, and a warning says so.

    Args:
        module: network in its inference form, on the CPU; it gives a tensor or a tuple of tensors.
        identity: what tells its weights and what is computed with them from others.
        precision: `float32` or `bfloat16`.
        warnings: list that gets what a user should know.
        is_asked_for: whether bfloat16 is kept though answers change.
        multiple_of: where it takes images whose sides are multiples of a number, that number: one conversion may do for
            all of them. 0 where it takes one size.
        same: tells which answers are alike.

    Attributes:
        precision: number format that is used.
    """

    def __init__(
        self,
        module: nn.Module,
        identity: str,
        *,
        precision: str,
        warnings: list[str],
        is_asked_for: bool = False,
        multiple_of: int = 0,
        same: Same = same_labels,
    ) -> None:
        self._module, self._same, self._multiple = module, same, multiple_of
        self._core = _openvino().Core()
        processor = str(self._core.get_property("CPU", "FULL_DEVICE_NAME"))
        self._store = Converted(digest_of(module, identity, openvino_version(), processor), warnings)
        self._warnings = warnings
        self._is_asked_for, self._by_torch = is_asked_for, False
        self._use(precision)

    @property
    def name(self) -> str:
        """Engine that is used, and its version."""
        return f"torch {torch.__version__}" if self._by_torch else f"openvino {openvino_version()}"

    def described(self) -> Described:
        """What a side-car says."""
        return {"engine": self.name, "engine_agreement": self._tally.agreement}

    def __call__(self, images: Tensor) -> Outputs:
        """What the module gives for `(B, C, ...)`, float32, each output with the batch first."""
        before = self._tally.inputs
        group = _group(images.shape[2:])
        whole = len(images) // group * group  # what is left would be a size of its own
        rows = [self._run(part) for part in (*images[:whole].split(group), *images[whole:].split(1)) if len(part)]
        if self._tally.inputs != before:
            self._store.keep_tally(self.precision, vars(self._tally))
        return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))

    def _use(self, precision: str) -> None:
        self.precision = precision
        self._compiled: dict[tuple[int, ...], CompiledModel] = {}
        self._tally = _Tally(**self._store.tally(precision))
        self._judge()

    def _judge(self) -> None:
        """Do without what was measured to change answers."""
        fraction = self._tally.agreement
        if fraction is None or not self._tally.is_enough or fraction >= AGREEMENT:
            return
        why = f"openvino in {self.precision} gives {math.floor(fraction * 1e4) / 100:.2f} % of torch's answers"
        if self.precision == "bfloat16" and self._is_asked_for:
            self._warnings.append(f"{why}; --precision float32 gives them all")
        elif self.precision == "bfloat16":
            self._warnings.append(f"{why}; float32 was used")
            self._use("float32")
        else:
            self._give_up(f"{why}; torch was used")

    def _give_up(self, warning: str) -> None:
        self._warnings.append(warning)
        self._by_torch, self.precision = True, "float32"
        self._compiled.clear()

    def _run(self, images: Tensor) -> Outputs:
        if self._by_torch:
            return _torch(self._module, images)
        try:
            run = self._compiled_for(tuple(images.shape))
            made = run(images.contiguous().numpy())
        except Exception as error:  # OpenVINO raises what it likes, and so does torch where a network is traced
            self._give_up(f"openvino does not run this network ({_reason(error)}); torch was used")
            return _torch(self._module, images)
        outputs = tuple(torch.from_numpy(made[number]) for number in range(len(made)))
        if self._tally.is_enough:
            return outputs
        expected = _torch(self._module, images)
        alike = self._same(expected[0], outputs[0])
        self._tally.answers += alike.numel()
        self._tally.alike += int(alike.sum())
        self._tally.inputs += len(images)
        if self._tally.is_enough:
            self._store.keep_tally(self.precision, vars(self._tally))
            self._judge()
        return expected

    def _compiled_for(self, shape: tuple[int, ...]) -> "CompiledModel":
        if shape not in self._compiled:
            while len(self._compiled) >= _SHAPES:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[shape] = self._compile(self._convert(shape))
        return self._compiled[shape]

    def _compile(self, model: "Model") -> "CompiledModel":
        hint = {"float32": "f32", "bfloat16": "bf16"}[self.precision]
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
        }
        return self._core.compile_model(model, "CPU", settings)

    def _convert(self, shape: tuple[int, ...]) -> "Model":
        """The network in OpenVINO's form for a shape of inputs."""
        if self._multiple and all(side % self._multiple == 0 for side in shape[2:]):
            model = self._store.read(self._core, f"{shape[0]}xany") or self._convert_for_any_size(shape)
            if model is not None:
                model.reshape(list(shape))
                return model
        name = "x".join(map(str, shape))
        return self._store.read(self._core, name) or self._store.keep(_traced(self._module, shape), name)

    def _convert_for_any_size(self, shape: tuple[int, ...]) -> "Model | None":
        """The network for all sizes; None where it is not the same computation for each."""
        batch, channels, *sides = shape
        name = f"{batch}xany"
        if self._store.knows_no(name):
            return None
        small = (batch, channels, *(_SMALLEST for _ in sides))
        other = (batch, channels, *(_SMALLEST + self._multiple * (1 + axis) for axis in range(len(sides))))
        try:
            model = _traced(self._module, small, fixed=False)
            model.reshape(list(other))
            image = torch.linspace(-1, 1, math.prod(other)).sin_().view(other)
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            (made, *_) = self._core.compile_model(model, "CPU", settings)(image.numpy()).values()
            (expected, *_) = _torch(self._module, image)
            is_right = made.shape == tuple(expected.shape) and bool(same_values(expected, torch.from_numpy(made)).all())
        except Exception:  # as above: this network takes no other size
            is_right = False
        if not is_right:
            self._store.keep_no(name)
            return None
        return self._store.keep(model, name)


def describe(network: nn.Module, accelerated: Accelerated | None) -> Described:
    """What a side-car says of how a network ran: by an engine, if there is one, or by torch."""
    if accelerated is not None:
        return accelerated.described()
    packed = packed_layers(network)
    return Described(packed_layers=packed) if packed else Described()


def identity_of(card: Card, sha256: str, *more: str) -> str:
    """What tells a trained model, and what is computed with it, from others."""
    return json.dumps([card["architecture"], card["arguments"], sha256, *more], sort_keys=True)


def _group(sides: Sequence[int]) -> int:
    """How many inputs run together: more is faster where they are small, and takes memory alone where they are not."""
    return max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // math.prod(sides)))


def openvino_version() -> str:
    """Version of the installed OpenVINO."""
    return str(_openvino().__version__).partition("-")[0]


def _openvino() -> ModuleType:
    """OpenVINO's package, which reports nothing to its makers.

    Importing it (2026.4) sends an event of usage and makes a folder in the user's home, unless its telemetry cannot be
    imported.

    Raises:
        InputError: it is not installed.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - "not to be had"
    return require("openvino", "openvino")


def _traced(module: nn.Module, shape: Sequence[int], *, fixed: bool = True) -> "Model":
    """A module in OpenVINO's form, by what torch computes for zeros of a shape; `fixed` takes that shape alone."""
    image = torch.zeros(*shape)
    with _quiet(), torch.enable_grad():  # without gradients some networks run in pieces, which an engine has no use for
        traced = torch.jit.trace(module, image, check_trace=False)
        model = _openvino().convert_model(traced, example_input=image)
    if fixed:
        model.reshape(list(shape))
    return model


def _reason(error: Exception) -> str:
    """What went wrong, in one line without paths: OpenVINO lists what it does not know after dashes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = next((line.removeprefix("-- ") for line in lines if line.startswith("-- ")), lines[0])
    return printable(_PATH.sub("...", said))[:_REASON]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what tracing says of sizes that it takes for constants: they are checked, or are constants."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        yield


@torch.inference_mode()
def _torch(module: nn.Module, image: Tensor) -> Outputs:
    """What torch gives in float32."""
    outputs = module(image)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return tuple(output.float() for output in outputs)
