"""Our networks under their variants' names in timm, without importing timm before someone else does."""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from shared_backbones.architectures import find, installed
from shared_backbones.errors import require

if TYPE_CHECKING:  # importing a domain's models imports no torch
    from torch import nn

    from shared_backbones.networks.classifier import Classifier

Settings: TypeAlias = Mapping[str, str | float | tuple[float, ...]]
"""What timm keeps beside a model: the size, interpolation and cropping of its images."""
default_cfgs: dict[str, Settings] = {}  # timm looks for a variant's data settings under this name


_NETWORKS = ("cct", "crossformer", "cvt", "dhvt", "fcaformer", "hornet", "resformer", "smt", "spectformer")
_NETWORKS += ("spectformer_plain", "sret", "vit_resnas")
SHARED = [f"shared_backbones.networks.{name}" for name in _NETWORKS]
"""Modules of the networks that every domain can name."""


def register(modules: Sequence[str]) -> None:
    """Make `timm.create_model(name)` know the variants of our modules, now or as soon as timm is imported.

    The networks that every domain can name are registered with them.

    A module has `VARIANTS`, a dict of names and the partial calls of a class that build them, and `TIMM_CONFIGS`,
    for each name the data settings that timm keeps beside a model. The class has `feature_indices`, the pyramid's
    levels, and timm's methods: `forward_features`, `forward_head`, `forward_intermediates`, `get_classifier`,
    `reset_classifier`, `set_grad_checkpointing`.

    Args:
        modules: dotted names; they are imported only together with timm.
    """
    modules = [*modules, *SHARED]
    if "timm.models" in sys.modules:
        for module in modules:
            _register_variants(importlib.import_module(module))
    else:
        sys.meta_path.insert(0, _AfterTimm(modules))


def register_all() -> None:
    """Make timm know every installed architecture, whichever package's it is.

    Of a class that is a `Classifier`, the module's `VARIANTS` are registered, as in `register`; without these the class
    itself is, under the name of its architecture.

    Raises:
        InputError: timm is not installed, or an installed architecture cannot be imported.
    """
    require("timm", "train")
    from shared_backbones.networks.classifier import Classifier

    for name, point in installed().items():
        network = find(name)
        module = sys.modules[point.module]
        if not issubclass(network, Classifier):
            continue
        if hasattr(module, "VARIANTS"):
            _register_variants(module)
        else:
            _register_one(name, functools.partial(network), {})


def any_size(name: str) -> dict[str, bool]:
    """Arguments with which timm's model takes images of other sizes than that of its weights.

    Swin and its relatives (timm 1.0) would refuse them, though their windows fit any map.

    Args:
        name: timm's name of the model, or smp's, which begins with `tu-`.
    """
    return {"strict_img_size": False} if name.removeprefix("tu-").startswith("swin") else {}


def entry_point(name: str, factory: "functools.partial[Classifier]", config: Settings) -> "Callable[..., nn.Module]":
    """What timm calls to build the variant `name`."""
    network = factory.func
    levels = network.feature_indices if isinstance(network, type) else ()

    def create(pretrained: bool = False, **arguments: Any) -> "nn.Module":
        from timm.models import build_model_with_cfg

        feature_cfg = {"feature_cls": "getter", "out_indices": levels}
        return build_model_with_cfg(factory, name, pretrained, feature_cfg=feature_cfg, **arguments)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Build {name}."
    default_cfgs[name] = config
    return create


def _register_variants(module: ModuleType) -> None:
    for name, factory in module.VARIANTS.items():
        _register_one(name, factory, getattr(module, "TIMM_CONFIGS", {}).get(name, {}))


def _register_one(name: str, factory: "functools.partial[Classifier]", config: Settings) -> None:
    from timm.models import is_model, register_model

    if not is_model(name):
        register_model(entry_point(name, factory, config))


class _AfterTimm(MetaPathFinder):
    """Registers once, right after `timm` has been imported by whoever needs it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The ordinary spec of timm, whose loader registers when it is done; nothing for other modules."""
        if fullname != "timm":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("timm")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                for name in self.modules:
                    _register_variants(importlib.import_module(name))

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
