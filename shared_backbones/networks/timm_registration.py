"""Our networks under their variants' names in timm, without importing timm before someone else does."""

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from shared_backbones.weights import ENTRY_POINT_GROUP

default_cfgs: dict[str, dict[str, Any]] = {}  # timm looks for a variant's data settings under this name


def register(modules: Sequence[str]) -> None:
    """Make `timm.create_model(name)` know the variants of our modules, now or as soon as timm is imported.

    A module has `VARIANTS`, a dict of names and the partial calls of a class that build them, and `TIMM_CONFIGS`,
    for each name the data settings that timm keeps beside a model. The class has `feature_indices`, the pyramid's
    levels, and timm's methods: `forward_features`, `forward_head`, `forward_intermediates`, `get_classifier`,
    `reset_classifier`, `set_grad_checkpointing`.

    Args:
        modules: dotted names; they are imported only together with timm.
    """
    if "timm.models" in sys.modules:
        _register_now(modules)
    else:
        sys.meta_path.insert(0, _AfterTimm(modules))


def register_all() -> None:
    """Make timm know the variants of every installed architecture, whichever domain's it is."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        importlib.import_module(point.module.rpartition(".")[0])  # the package, which registers its modules


def entry_point(name: str, factory: functools.partial, config: dict[str, Any]) -> Callable[..., Any]:
    """What timm calls to build the variant `name`."""

    def create(pretrained: bool = False, **arguments: Any) -> Any:
        from timm.models import build_model_with_cfg

        feature_cfg = {"feature_cls": "getter", "out_indices": factory.func.feature_indices}  # type: ignore[attr-defined]
        return build_model_with_cfg(factory, name, pretrained, feature_cfg=feature_cfg, **arguments)  # type: ignore[arg-type]

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Build {name}."
    default_cfgs[name] = config
    return create


def _register_now(modules: Sequence[str]) -> None:
    from timm.models import is_model, register_model

    for module in map(importlib.import_module, modules):
        for name, factory in module.VARIANTS.items():
            if not is_model(name):
                register_model(entry_point(name, factory, module.TIMM_CONFIGS[name]))


class _AfterTimm(MetaPathFinder):
    """Registers once, right after `timm` has been imported by whoever needs it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = modules

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The ordinary spec of timm, whose loader registers when it is done; nothing for other modules."""
        if fullname != "timm":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("timm")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _register_now(self.modules)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
