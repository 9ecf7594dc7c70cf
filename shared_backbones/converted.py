"""Networks in an engine's form, and what was measured of them, in the user's cache."""

import contextlib
import hashlib
import json
import os
import sys
import weakref
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from shared_backbones.documents import parse_json, read_bounded
from shared_backbones.errors import InputError
from shared_backbones.files import replacing
from shared_backbones.json_values import Entries
from shared_backbones.user_cache import ENGINES, cache_folder, drop, kept
from shared_backbones.work_folders import work_folder

if TYPE_CHECKING:
    from openvino import Core, Model

_MOST_BYTES = 4 * 2**30  # that all converted networks take
_MEASURED = "measured.json"
_TALLY = ("answers", "alike", "inputs")


class Converted:
    """The folder of one network in the cache: a model for each shape of inputs, and what was measured.

    Where the cache cannot be written to, the network is converted anew by each process, and a warning says so.

    Args:
        digest: what tells the network, its weights, the machine and all versions from others.
        warnings: list that gets what a user should know.
    """

    def __init__(self, digest: str, warnings: list[str]) -> None:
        self._is_temporary = False
        try:
            self.folder = cache_folder() / ENGINES / digest
            self.folder.mkdir(parents=True, exist_ok=True)
            os.utime(self.folder)
            with work_folder(self.folder.parent):
                pass
        except (InputError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            stack = contextlib.ExitStack()
            self._is_temporary, self.folder = True, stack.enter_context(work_folder())
            weakref.finalize(self, stack.close)
            warnings.append(
                f"the cache cannot be written to ({reason}), so that each run converts the network; "
                "name a folder in XDG_CACHE_HOME"
            )

    def read(self, core: "Core", name: str) -> "Model | None":
        """The model for a shape; None where there is none, or none that can be read."""
        path = self.folder / name / "model.xml"
        try:
            return core.read_model(str(path)) if path.is_file() else None
        except RuntimeError:
            return None

    def keep(self, model: "Model", name: str) -> "Model":
        """Keep a model, whole or not at all, and give it back as it is."""
        import openvino

        with work_folder(self.folder) as folder:
            openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
            target = self.folder / name
            if not target.exists():  # another process may have been faster
                (folder / "model.xml").chmod(0o600)
                target.mkdir(exist_ok=True)
                for part in ("model.bin", "model.xml"):  # the one that is looked for comes last
                    os.replace(folder / part, target / part)
        self._make_room()
        return model

    def knows_no(self, name: str) -> bool:
        """Whether there can be no model of that name, as was tried before."""
        return name in self._measured().get("none", [])

    def keep_no(self, name: str) -> None:
        """Note that there can be no model of that name."""
        measured = self._measured()
        self._keep({**measured, "none": [*measured.get("none", []), name]})

    def tally(self, precision: str) -> dict[str, int]:
        """What was compared in a number format."""
        known = self._measured().get(precision, {})
        return {name: known[name] for name in _TALLY} if _is_tally(known) else {}

    def keep_tally(self, precision: str, tally: Mapping[str, int]) -> None:
        """Keep what was compared in a number format."""
        self._keep({**self._measured(), precision: dict(tally)})

    def _measured(self) -> Entries:
        try:
            known = parse_json(read_bounded(self.folder / _MEASURED))
        except (InputError, OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _keep(self, measured: Mapping[str, object]) -> None:
        with replacing(self.folder / _MEASURED) as path:
            path.write_text(json.dumps(measured))

    def _make_room(self) -> None:
        """Remove what was not used for longest, until the rest is small enough; never this network."""
        if self._is_temporary:
            return
        total = 0
        for entry in kept():
            total += entry.size if entry.kind == "engine" else 0
            if total > _MOST_BYTES and entry.kind == "engine" and entry.path != self.folder:
                with contextlib.suppress(OSError):  # of another user, or in use
                    drop(entry)


def digest_of(module: nn.Module, identity: str, *more: str) -> str:
    """Digest of a network's code and identity, of versions, and of `more`."""
    folders, versions = {Path(__file__).parent}, {"torch": str(torch.__version__)}
    for name in {type(part).__module__ for part in module.modules()}:
        home, file = name.partition(".")[0], getattr(sys.modules.get(name), "__file__", None)
        if home == "torch":
            continue
        try:
            versions[home] = version(home)
        except PackageNotFoundError:  # ours, or of a script: its sources count
            folders |= {Path(file).parent} if file else set()
    sources = {path for folder in folders for path in folder.rglob("*.py")}
    digest = hashlib.sha256(json.dumps([identity, *more, *sorted(versions.items())]).encode())
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _is_tally(known: object) -> bool:
    """Whether counts are such as can have been kept."""
    if not isinstance(known, dict) or any(not isinstance(known.get(name), int) for name in _TALLY):
        return False
    return 0 <= known["alike"] <= known["answers"] and known["inputs"] >= 0
