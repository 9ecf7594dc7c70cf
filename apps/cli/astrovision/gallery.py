"""The gallery of `astrovision classify`: pictures of the most doubtful images, and of random ones."""

import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image
from torch import Tensor

from apps.cli.astrovision.sources import Source
from apps.cli.shared.outputs import SIDECAR, Outputs
from astrovision.classification import GalaxyClassifier
from astrovision.pictures import annotated
from pipelines.report.gallery import KEYS, Cutout, gallery_page, pages_of
from pipelines.report.sections import data_uri
from shared_backbones.classification.classifier import Prediction
from shared_backbones.classification.grad_cam import cam_layer
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_SIDE, _BAND_SIDE, _CAM_SIDE = 256, 128, 64  # pixels of a picture, of its bands, and of Grad-CAM over it
_QUALITY = 70  # of WebP


@dataclass
class Gallery:
    """The images that are shown, as far as they were classified.

    Attributes:
        classifier: The model.
        table: Table of the results, after which the pages are named.
        count: How many of the most doubtful images are shown.
        random: How many more are drawn at random from all.
        overwrite: Whether pages that are not ours are moved out of the way.
        labels: Number of the class that an image is thought to have, by its id.
    """

    classifier: GalaxyClassifier
    table: Path
    count: int
    random: int
    overwrite: bool
    labels: Mapping[str, int] = field(default_factory=dict)
    _doubtful: Sequence[Cutout] = ()
    _random: Sequence[Cutout] = ()
    _drawn: set[int] | None = None
    _bands: Sequence[str] = ()
    _has_maps: bool = True

    def check(self) -> None:
        """Refuse more classes than there are keys, and pages that would replace what is not ours.

        Raises:
            InputError: one of these.
        """
        count = len(self.classifier.names)
        if count > len(KEYS):
            raise InputError(f"--gallery: the model has {count} classes; there are {len(KEYS)} keys")
        self._outputs(1).check()

    def add(self, source: Source, rows: np.ndarray, images: Tensor, prediction: Prediction) -> None:
        """Keep those of some classified images that are shown as things stand.

        Raises:
            InputError: labels were given, and none of them is of an image of the source.
        """
        if self._drawn is None:
            order = np.random.default_rng(0).permutation(len(source))
            self._drawn = set(order[: self.random].tolist())
            if self.labels and not self.labels.keys() & {printable(str(key)) for key in source.ids}:
                raise InputError(f"--labels: none of its {len(self.labels)} ids is an image of the input; give others")
        ordered = np.sort(prediction.probabilities, 1)
        margins = ordered[:, -1] - ordered[:, -2] if ordered.shape[1] > 1 else ordered[:, -1]
        cutouts = [
            self._cutout(source, row, prediction, number, margin)
            for number, (row, margin) in enumerate(zip(rows.tolist(), margins.tolist(), strict=True))
        ]
        self._random = [*self._random, *(each for each in cutouts if each.drawn == "random")]
        others = [*self._doubtful, *(each for each in cutouts if each.drawn != "random")]
        self._doubtful = heapq.nsmallest(self.count, others, key=lambda each: (each.doubt, each.row))
        fresh = {each.row for each in (*self._random, *self._doubtful) if not each.picture}
        places = [number for number, each in enumerate(cutouts) if each.row in fresh]
        drawn = dict(self._drawings(source, rows, images, prediction, places))
        self._random, self._doubtful = (
            [replace(each, **drawn[each.row]) if each.row in drawn else each for each in kept]
            for kept in (self._random, self._doubtful)
        )

    def write(self) -> list[Path]:
        """Write the pages and their side-car; returns the pages."""
        parts = pages_of([*self._random, *self._doubtful])
        outputs = self._outputs(len(parts))
        model, names = printable(str(self.classifier.card.get("name") or "model")), self.classifier.names
        with outputs.placing() as staged:
            for number, part in enumerate(parts, 1):
                page = gallery_page(part, list(map(printable, names)), model, number, self._bands)
                staged[f"page {number}"].write_text(page, encoding="utf-8")
            counts = {"doubtful": len(self._doubtful), "random": len(self._random)}
            counts["labelled"] = sum(bool(each.label) for part in parts for each in part)
            outputs.finish(staged, {"schema_version": 1, "count": counts})
        return [path for kind, path in outputs.files.items() if kind != SIDECAR]

    def _outputs(self, pages: int) -> Outputs:
        stem = f"{self.table.stem}_gallery"
        names = {f"page {n}": f"{stem}{'' if n == 1 else f'_{n}'}.html" for n in range(1, pages + 1)}
        files = {kind: self.table.with_name(name) for kind, name in names.items()}
        return Outputs({SIDECAR: self.table.with_name(f"{stem}.json"), **files}, self.overwrite)

    def _cutout(self, source: Source, row: int, prediction: Prediction, number: int, margin: float) -> Cutout:
        """A source as it is shown, still without pictures; `number` is its place in the batch."""
        probabilities, names = prediction.probabilities[number], self.classifier.names
        places = [source.places[name][row] for name in ("ra", "dec") if name in source.places]
        known = len(places) == 2 and bool(np.isfinite(places).all())
        order = np.argsort(-probabilities, kind="stable")[:3]
        key = printable(str(source.ids[row]))
        label = self.labels.get(key)
        return Cutout(
            id=key,
            row=int(source.numbers[row]),
            position=f"{places[0]:.6f} {places[1]:+.6f}" if known else "",
            picture="",
            margin=margin,
            set_size=None if prediction.sets is None else int(prediction.sets[number].sum()),
            outlier=None if prediction.outlier_score is None else float(prediction.outlier_score[number]),
            drawn="random" if self._drawn and row in self._drawn else "doubtful",
            answer=[(printable(names[int(place)]), float(probabilities[place])) for place in order],
            label="" if label is None else printable(names[label]),
            believed=None if label is None else float(probabilities[label]),
        )

    def _drawings(
        self, source: Source, rows: np.ndarray, images: Tensor, prediction: Prediction, places: Sequence[int]
    ) -> Iterator[tuple[int, "_Drawings"]]:
        """Pictures of the images at some places of a batch, by their rows."""
        cams = self._maps(images[list(places)], prediction.labels[list(places)])
        for number, place in enumerate(places):
            row, image = int(rows[place]), images[place].numpy()
            view = source.view(row)
            bands = view.shown(image) if len(image) > 1 else ()
            self._bands = (view.bands if view.of_fits else self.classifier.contract.bands) if len(bands) else ()
            picture = Image.fromarray(annotated(image, view, _SIDE))
            yield (
                int(source.numbers[row]),
                {
                    "picture": _webp(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)),
                    "layers": [_webp(_small(np.clip(255 * band + 0.5, 0, 255), _BAND_SIDE)) for band in bands],
                    "cam": "" if cams is None else _webp(_small(cam_layer(view.shown(cams[number])), _CAM_SIDE)),
                },
            )

    def _maps(self, images: Tensor, labels: np.ndarray) -> np.ndarray | None:
        """Grad-CAM of the answers, `(N, H, W)`; None where the network's features are no maps."""
        if self._has_maps and len(images):
            try:
                return self.classifier.grad_cam(images, labels)
            except InputError:
                self._has_maps = False
        return None


class _Drawings(TypedDict):
    picture: str
    layers: list[str]
    cam: str


def _small(values: np.ndarray, side: int) -> Image.Image:
    """A picture of values `(H, W)` or `(H, W, C)` from 0 to 255, no larger than a side."""
    picture = Image.fromarray(values.astype(np.uint8))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _webp(picture: Image.Image) -> str:
    """A picture as a data URI."""
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=_QUALITY, method=4)
    return data_uri(stream.getvalue(), "image/webp")
