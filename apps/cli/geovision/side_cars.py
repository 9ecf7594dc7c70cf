"""JSON side-cars of maps and embeddings."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version

from geovision.dates import acquisition_date
from geovision.grids import crs_text
from geovision.networks import LoadedNetwork
from geovision.scenes import Scene
from shared_backbones.json_values import Entries


def describe_input(scene: Scene, sha256: str) -> Entries:
    """What a side-car says of a scene; `sha256` is the scene's."""
    day = acquisition_date(scene)
    return {
        "sha256": sha256,
        "sensor": scene.sensor.name,
        "bands": scene.bands,
        "shape": list(scene.shape),
        "crs": crs_text(scene.grid.crs),
        "transform": list(scene.grid.transform)[:6],
        "gsd_m": scene.grid.gsd_m,
        "acquired": None if day is None else {"date": day[0].isoformat(), "by": day[1]},
        "clouds": "not masked" if scene.clouds is None else f"masked by {scene.clouds}",
        "cloud_fraction": scene.cloud_fraction(),
    }


def describe_run(network: LoadedNetwork, scene: Scene, sha256: str) -> Entries:
    """What a side-car says of a scene, and of the network that ran on it."""
    return {
        "schema_version": 1,
        "case": f"case-{sha256[:8]}",
        "created": now(),
        "model": network.provenance(),
        "input": describe_input(scene, sha256),
        **network.described(),
        "warnings": [*network.warnings, *scene.warnings],
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    names = ("domain-vision", "torch", "numpy", "rasterio")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def software() -> str:
    """This program, as files name the software that wrote them."""
    return f"domain-vision {version('domain-vision')}"


def now() -> str:
    """The time, UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
