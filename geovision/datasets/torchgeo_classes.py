"""The data sets of torchgeo by the names of their classes: which of them hold labelled images, told from their sources.

There is no list of names here: a class that a later torchgeo adds is judged by what it does.
"""

import ast
import contextlib
import difflib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache, lru_cache
from types import FunctionType, ModuleType
from typing import Any, Literal, NoReturn, TypeAlias

from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

TorchGeo: TypeAlias = Any
"""A class of torchgeo, or an object of one: what it has is told from it."""
Target = Literal["label", "mask", "image"]
"""What is asked of each sample beside its image: a label of the whole, a label of each pixel, or nothing."""
EXTRA = "torchgeo"
_GIVEN = {"self", "root", "split", "transforms", "download", "checksum"}  # arguments that are not the user's to give
_UNPICKLING = {"pickle.load", "pickle.loads", "torch.load", "pd.read_pickle", "pandas.read_pickle", "joblib.load"}
_BOXES = {"bbox", "bbox_xyxy", "boxes"}
_WANTED = {"label": "a label of the whole image", "mask": "a mask", "image": "an image"}


def find_class(name: str) -> TorchGeo:
    """The class of a data set in `torchgeo.datasets`.

    Raises:
        InputError: torchgeo is not installed, or has no public class of that name.
    """
    module = require("torchgeo.datasets", EXTRA)
    if name not in module.__all__ or not inspect.isclass(getattr(module, name)):
        lower = {known.lower(): known for known in module.__all__}
        near = [lower[known] for known in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; see the classes of torchgeo.datasets"
        raise InputError(f"data.layout torchgeo:{printable(name)} is unknown to torchgeo{hint}")
    return getattr(module, name)


def reason_against(dataset: TorchGeo, target: Target) -> str | None:
    """Why a class cannot be read here; None where it can.

    Whether its images are single ones, `(C, H, W)`, and its labels classes shows in its first sample alone.

    Args:
        dataset: A public class of `torchgeo.datasets`.
        target: What is asked of each sample.
    """
    base = require("torchgeo.datasets", EXTRA)
    if issubclass(dataset, base.GeoDataset):
        return "is sampled by coordinates, not image by image; give its scenes as files to the kind scene_mapping"
    if not issubclass(dataset, base.NonGeoDataset) or dataset is base.NonGeoDataset:
        return "is no data set of images that have numbers"
    if inspect.isabstract(dataset):
        return "is a base of other classes; name one of those"
    if _unpickles(dataset):
        return "reads pickles, which can run anything; store its data in another form, as folders for example"
    keys = _keys(dataset)
    if "image" not in keys:
        return "has samples without 'image'; expected one image each"
    if target == "image" or (target in keys and not keys & _BOXES):
        return None
    if keys & _BOXES:
        return f"labels boxes; expected {_WANTED[target]}"
    return f"has samples without '{target}'; expected {_WANTED[target]}"


@lru_cache(maxsize=16)
def options_of(dataset: TorchGeo) -> tuple[str, ...]:
    """Names of the constructor's arguments that a recipe may give: not the folder and the split, and no functions."""
    parameters = inspect.signature(dataset.__init__).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(
        parameter.name
        for parameter in parameters
        if parameter.kind in named and parameter.name not in _GIVEN and "Callable" not in str(parameter.annotation)
    )


def has_splits(dataset: TorchGeo) -> bool:
    """Whether the constructor takes a split."""
    return "split" in inspect.signature(dataset.__init__).parameters


def fetches(dataset: TorchGeo) -> bool:
    """Whether torchgeo can fetch the data set."""
    return "download" in inspect.signature(dataset.__init__).parameters


@contextlib.contextmanager
def reading_alone(dataset: TorchGeo) -> Iterator[None]:
    """While a data set is opened, its modules can neither fetch nor unpack.

    torchgeo unpacks archives that it comes upon without asking, tar archives with paths that may lead anywhere.
    """

    def refuse(*_: object, **__: object) -> NoReturn:
        raise InputError("its archives are not unpacked; unpack them where they lie, as torchgeo's own reader does")

    kept: list[tuple[dict[str, object], str, object]] = []
    for module in {sys.modules[cls.__module__] for cls in _own(dataset)}:
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and name.startswith(("download", "extract")):
                kept.append((vars(module), name, value))
                setattr(module, name, refuse)
    try:
        yield
    finally:
        for space, name, value in kept:
            space[name] = value


def _own(dataset: TorchGeo) -> list[TorchGeo]:
    """The class and those of its bases that are torchgeo's."""
    return [cls for cls in dataset.__mro__ if cls.__module__.startswith("torchgeo.")]


def _keys(dataset: TorchGeo) -> set[str]:
    """Names that the methods of a class give to entries of dictionaries, those of the samples among them."""
    return {key for cls in _own(dataset) for key in _keys_of(cls)}


@cache
def _keys_of(cls: TorchGeo) -> frozenset[str]:
    methods = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    nodes = [
        key
        for method in ast.iter_child_nodes(methods)
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("plot")
        for node in ast.walk(method)
        for key in _key_nodes(node)
    ]
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def _key_nodes(node: ast.AST) -> list[ast.expr | None]:
    """Keys of a dictionary that is made, or the one that is stored under."""
    if isinstance(node, ast.Dict):
        return list(node.keys)
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        return [node.slice]
    return []


def _unpickles(dataset: TorchGeo) -> bool:
    """Whether a class reads pickles, by the calls in the modules that it is made of."""
    return any(_module_unpickles(sys.modules[cls.__module__]) for cls in _own(dataset))


@cache
def _module_unpickles(module: ModuleType) -> bool:
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
    return any(
        ast.unparse(call.func) in _UNPICKLING
        or any(word.arg == "allow_pickle" and ast.unparse(word.value) == "True" for word in call.keywords)
        for call in calls
    )
