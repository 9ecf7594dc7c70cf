"""The gallery of `astrovision classify`: pictures of the images of smallest margin, and of random ones."""

import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from apps.cli.astrovision.sources import Source
from apps.cli.shared.outputs import SIDECAR, Outputs
from astrovision.classification import GalaxyClassifier
from astrovision.pictures import annotated
from pipelines.report.gallery import KEYS, MOST, Cutout, gallery_page
from pipelines.report.sections import data_uri
from shared_backbones.classification.classifier import Prediction
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_SIDE = 256
_QUALITY = 70  # of WebP


@dataclass
class Gallery:
    """The images that are shown, as far as they were classified.

    Attributes:
        table: Table of the results, after which the pages are named.
        count: How many of the most doubtful images are shown.
        random: How many more are drawn at random from all.
        overwrite: Whether pages that are not ours are moved out of the way.
    """

    table: Path
    count: int
    random: int
    overwrite: bool
    _doubtful: list[tuple[float, int, Cutout]] = field(default_factory=list)
    _random: list[Cutout] = field(default_factory=list)
    _drawn: set[int] | None = None

    def check(self, classifier: GalaxyClassifier) -> None:
        """Refuse more classes than there are keys, and pages that would replace what is not ours.

        Raises:
            InputError: one of these.
        """
        if len(classifier.names) > len(KEYS):
            raise InputError(f"--gallery: the model has {len(classifier.names)} classes; there are {len(KEYS)} keys")
        self._outputs(1).check()

    def add(
        self, source: Source, rows: np.ndarray, images: Tensor, prediction: Prediction, names: Sequence[str]
    ) -> None:
        """Keep those of some classified images that are shown as things stand."""
        if self._drawn is None:
            order = np.random.default_rng(0).permutation(len(source))
            self._drawn = set(order[: self.random].tolist())
        ordered = np.sort(prediction.probabilities, 1)
        margins = ordered[:, -1] - ordered[:, -2] if ordered.shape[1] > 1 else ordered[:, -1]
        for number, (row, margin) in enumerate(zip(rows.tolist(), margins.tolist(), strict=True)):
            if row in self._drawn:
                self._random.append(_cutout(source, row, images, prediction, number, margin, names, "random"))
            elif self.count and (len(self._doubtful) < self.count or -margin > self._doubtful[0][0]):
                shown = _cutout(source, row, images, prediction, number, margin, names, "doubtful")
                (heapq.heappush if len(self._doubtful) < self.count else heapq.heapreplace)(
                    self._doubtful, (-margin, row, shown)
                )

    def write(self, classifier: GalaxyClassifier) -> list[Path]:
        """Write the pages, each of at most `MOST` images, and their side-car; returns the pages."""
        cutouts = [*self._random, *(shown for *_, shown in self._doubtful)]
        cutouts.sort(key=lambda each: (each.margin, each.row))
        parts = [cutouts[start : start + MOST] for start in range(0, len(cutouts), MOST)]
        outputs = self._outputs(len(parts))
        model = printable(str(classifier.card.get("name") or "model"))
        with outputs.placing() as staged:
            for number, part in enumerate(parts, 1):
                page = gallery_page(part, list(map(printable, classifier.names)), model, number)
                staged[f"page {number}"].write_text(page, encoding="utf-8")
            counts = {"doubtful": len(self._doubtful), "random": len(self._random)}
            outputs.finish(staged, {"schema_version": 1, "count": counts})
        return [path for kind, path in outputs.files.items() if kind != SIDECAR]

    def _outputs(self, pages: int) -> Outputs:
        stem = f"{self.table.stem}_gallery"
        names = {f"page {n}": f"{stem}{'' if n == 1 else f'_{n}'}.html" for n in range(1, pages + 1)}
        files = {kind: self.table.with_name(name) for kind, name in names.items()}
        return Outputs({SIDECAR: self.table.with_name(f"{stem}.json"), **files}, self.overwrite)


def _cutout(
    source: Source,
    row: int,
    images: Tensor,
    prediction: Prediction,
    number: int,
    margin: float,
    names: Sequence[str],
    drawn: str,
) -> Cutout:
    """A source as it is shown; `number` is its place in the batch."""
    probabilities = prediction.probabilities[number]
    places = [source.places[name][row] for name in ("ra", "dec") if name in source.places]
    known = len(places) == 2 and bool(np.isfinite(places).all())
    order = np.argsort(-probabilities, kind="stable")[:3]
    return Cutout(
        id=printable(str(source.ids[row])),
        row=int(source.numbers[row]),
        position=f"{places[0]:.6f} {places[1]:+.6f}" if known else "",
        picture=_picture(images[number].numpy(), source, row),
        margin=margin,
        set_size=None if prediction.sets is None else int(prediction.sets[number].sum()),
        outlier=None if prediction.outlier_score is None else float(prediction.outlier_score[number]),
        drawn=drawn,
        answer=[(printable(names[int(place)]), float(probabilities[place])) for place in order],
    )


def _picture(image: np.ndarray, source: Source, row: int) -> str:
    """What the network sees of a source, as a data URI."""
    from PIL import Image

    stream = io.BytesIO()
    picture = Image.fromarray(annotated(image, source.view(row), _SIDE))
    picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(stream, "WEBP", quality=_QUALITY, method=4)
    return data_uri(stream.getvalue(), "image/webp")
