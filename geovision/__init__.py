"""Specialised vision models for Earth observation: from the scene to embeddings, maps, classes and figures."""

from typing import TYPE_CHECKING

from shared_backbones.lazy import lazy

if TYPE_CHECKING:
    from geovision.classification import SatelliteClassifier
    from geovision.embedding import Embedder
    from geovision.mapping import Mapper
    from geovision.scenes import open_scene
    from shared_backbones.official import load_official

__all__ = ["Embedder", "Mapper", "SatelliteClassifier", "load_official", "open_scene"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Embedder": "geovision.embedding",
        "Mapper": "geovision.mapping",
        "SatelliteClassifier": "geovision.classification",
        "load_official": "shared_backbones.official",
        "open_scene": "geovision.scenes",
    },
)
