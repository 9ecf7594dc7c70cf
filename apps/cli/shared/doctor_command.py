"""The verb `doctor`: what is installed, what is missing, and how to get it."""

import json
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import typer

from apps.cli.shared.options import JsonOption, add_verb
from shared_backbones.catalogue import Catalogue
from shared_backbones.files import printable
from shared_backbones.json_values import Entries

_PACKAGE = "domain-vision"
_CORE = ("torch", "numpy", "scipy", "nibabel", "safetensors")
_OF_OTHERS = ("all", "test")  # extras that only gather others
_UNWRITABLE = ": cannot be written; set XDG_CACHE_HOME to a folder that can"


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What a user asks `doctor` for."""

    as_json: JsonOption = False


def add_doctor(app: typer.Typer, domain: str) -> None:
    """Give a program the verb `doctor`."""

    def doctor(options: DoctorOptions) -> None:
        """Say what is installed: versions, extras, devices, models, cache and tracking store, and what is missing."""
        known = examine(domain)
        print(json.dumps(known, indent=2) if options.as_json else "\n".join(_lines(known)))

    add_verb(app, doctor)


def examine(domain: str) -> Entries:
    """What a domain finds on this machine, in JSON types."""
    from importlib.metadata import version

    return {
        "version": version(_PACKAGE),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _CORE},
        "extras": {name: {"missing": missing} for name, missing in _extras().items()},
        "devices": _devices(),
        "models": list(Catalogue(domain).bundled_models()),
        "cache": _cache(),
        "tracking": _tracking(),
    }


def commit() -> str | None:
    """The commit of a checkout that is installed in place; None elsewhere."""
    git = Path(__file__).parents[3] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head[:12]
        name = head.removeprefix("ref: ")
        loose = git / name
        if loose.is_file():
            return loose.read_text(encoding="ascii").strip()[:12]
        packed = (git / "packed-refs").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    at = re.search(rf"^([0-9a-f]{{40}}) {re.escape(name)}$", packed, re.MULTILINE)
    return at[1][:12] if at else None


def _extras() -> dict[str, list[str]]:
    """Packages that each extra lacks."""
    from importlib.metadata import PackageNotFoundError, requires, version

    lacking: dict[str, list[str]] = {}
    for requirement in requires(_PACKAGE) or ():
        name, _, marker = requirement.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        package = re.match(r"[\w.-]+", name)
        if extra is None or package is None or extra[1] in _OF_OTHERS or package[0] == _PACKAGE:
            continue
        missing = lacking.setdefault(extra[1], [])
        try:
            version(package[0])
        except PackageNotFoundError:
            missing.append(package[0])
    return lacking


def _devices() -> Entries:
    import torch

    from shared_backbones.control_groups import usable_cpus
    from shared_backbones.devices import choose_device, choose_precision, choose_threads

    device, warnings = choose_device("auto")
    choose_threads(None)
    return {
        "auto": str(device),
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
        "cpus": usable_cpus(),
        "fast_bfloat16": choose_precision("auto", device, 1.0) == "bfloat16",
        "warnings": warnings,
    }


def _cache() -> Entries:
    from shared_backbones.user_cache import cache_folder

    folder = cache_folder()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return {"folder": str(folder), "writable": os.access(place, os.W_OK)}


def _tracking() -> str:
    """Where runs are noted, without user and password."""
    try:
        from pipelines.tracking.stores import shown_uri, tracking_uri
    except ImportError:
        return "none: the extra train is missing"
    return shown_uri(tracking_uri())


def _lines(known: Entries) -> list[str]:
    at = f", commit {known['commit']}" if known["commit"] else ""
    packages = ", ".join(f"{name} {number}" for name, number in known["packages"].items())
    device, cache = known["devices"], known["cache"]
    lines = [
        f"domain-vision {known['version']}{at}, Python {known['python']}",
        f"packages   {packages}",
        f"device     {device['auto']} ({device['name']}), {device['threads']} threads of {device['cpus']} CPUs"
        + (", fast bfloat16" if device["fast_bfloat16"] else ""),
        f"models     {', '.join(known['models'])}",
        f"cache      {printable(cache['folder'])}{'' if cache['writable'] else _UNWRITABLE}",
        f"tracking   {printable(known['tracking'])}",
    ]
    for name, extra in sorted(known["extras"].items()):
        missing = extra["missing"]
        way = f'lacks {", ".join(missing)}: pip install "domain-vision[{name}]"' if missing else "complete"
        lines.append(f"extra      {name}: {way}")
    return [*lines, *(f"warning: {warning}" for warning in device["warnings"])]
