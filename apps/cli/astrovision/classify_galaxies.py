"""The work of `astrovision classify`: images of galaxies in; a table of their classes and a side-car out."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from apps.cli.astrovision.catalogue_columns import labels_by_id
from apps.cli.astrovision.classify import ClassifyOptions
from apps.cli.astrovision.sources import Source, open_source
from apps.cli.shared.classification import check_parents, model_warnings, side_car
from apps.cli.shared.journal import Journal
from apps.cli.shared.outputs import Outputs
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED, find_model
from apps.cli.shared.sharding import part_facts
from astrovision.classification import GalaxyClassifier
from astrovision.cutouts import FLAGS, OFF_IMAGE, flag_names
from astrovision.pictures import draw
from astrovision.table_writing import Column, write_catalogue
from astrovision.tables import format_of
from pipelines.runtime.progress import Meter
from shared_backbones.card import CARD
from shared_backbones.classification.classifier import Prediction
from shared_backbones.errors import InputError
from shared_backbones.files import new_folder, printable
from shared_backbones.json_values import Document, Entries
from shared_backbones.terminal import say
from shared_backbones.weights import WEIGHTS

if TYPE_CHECKING:  # pages are written for few
    from apps.cli.astrovision.gallery import Gallery


@dataclass(frozen=True)
class _Results:
    """What the classifier says of the sources that were read.

    Attributes:
        rows: numbers of the sources that were read, from 0, `(N,)`.
        probabilities: `(N, K)` float32, NaN where there is nothing to be seen.
        flags: bits of `astrovision.cutouts.FLAGS` of their cut-outs, `(N,)` uint8.
        valid_share: share of the pixels that the network sees which have a value, `(N,)`.
        sets: `(N, K)` bool; None where the model has no prediction sets.
        outlier_score: `(N,)`, NaN where there is nothing to be seen; None where the model has no such score.
        is_outlier: whether the score is above the model's threshold, `(N,)` bool; None where there is no score.
    """

    rows: np.ndarray
    probabilities: np.ndarray
    flags: np.ndarray
    valid_share: np.ndarray
    sets: np.ndarray | None
    outlier_score: np.ndarray | None
    is_outlier: np.ndarray | None

    @property
    def off_image(self) -> np.ndarray:
        """Whether a source lies off the image, `(N,)` bool."""
        return self.flags & OFF_IMAGE > 0

    @property
    def unseen(self) -> np.ndarray:
        """Whether no pixel of a source has a value, so that it has no class, `(N,)` bool."""
        return self.valid_share == 0


def classify_galaxies(options: ClassifyOptions, journal: Journal) -> tuple[Entries, int]:
    """Classify an input's images and write the table, its side-car and maps; returns the side-car and the exit code.

    Raises:
        InputError: input, model, options and output do not go together, or nothing could be classified.
    """
    table = options.table
    format_of(table)
    check_parents(table, options.cam_folder)
    outputs = Outputs.table(table, options.overwrite)
    outputs.check()
    classifier = _load(options)
    gallery = _gallery(options, classifier)
    with contextlib.ExitStack() as stack:
        source, files = open_source(options, classifier, stack, journal)
        outputs.check([*files, classifier.folder / CARD, classifier.folder / WEIGHTS])
        # placed last, as by `write_classes`
        pictures = stack.enter_context(new_folder(options.cam_folder)) if options.cam_folder is not None else None
        staged = stack.enter_context(outputs.placing())
        results = _classify(source, classifier, pictures, gallery, quiet=options.quiet or options.as_json)
        if not len(results.rows) and options.shard is None:
            raise InputError(f"{printable(options.input)}: none of {len(source)} images can be used; give others")
        content = _side_car(source, results, classifier, options)
        content |= part_facts(options.shard, source.inputs, source.facts())
        write_catalogue(staged["table"], _columns(source, results, classifier), meta=table_meta(content))
        content = outputs.finish(staged, content)
    if gallery is not None:
        pages = gallery.write()
        for page in pages if not (options.quiet or options.as_json) else ():
            say(printable(page))
    return content, PARTLY_FAILED if source.failed else COMPLETE


def _load(options: ClassifyOptions) -> GalaxyClassifier:
    classifier = GalaxyClassifier(
        find_model(options.model, "astrovision"),
        symmetries=not options.no_symmetries,
        batch_size=options.batch_size,
        **options.network.keywords(),
    )
    coverage = options.coverage
    if coverage is not None and (classifier.coverage is None or abs(classifier.coverage - coverage) > 1e-6):
        stored = "none" if classifier.coverage is None else f"those of {classifier.coverage:g}"
        raise InputError(
            f"--coverage {coverage:g}: of prediction sets the model has {stored}; leave it out, or "
            "calibrate the model anew"
        )
    return classifier


def _gallery(options: ClassifyOptions, classifier: GalaxyClassifier) -> "Gallery | None":
    """What collects the images of the gallery, if one is asked for."""
    if not options.gallery and not options.gallery_random:
        return None
    from apps.cli.astrovision.gallery import Gallery

    names = list(map(printable, classifier.names))
    labels = {} if options.labels is None else labels_by_id(options.labels, options.label_column, names)
    gallery = Gallery(classifier, options.table, options.gallery, options.gallery_random, options.overwrite, labels)
    gallery.check()
    return gallery


def _classify(
    source: Source,
    classifier: GalaxyClassifier,
    pictures: Path | None,
    gallery: "Gallery | None",
    *,
    quiet: bool,
) -> _Results:
    count, names = len(source), classifier.names
    flags, read, valid_share = np.zeros(count, np.uint8), np.zeros(count, bool), np.zeros(count)
    probabilities = np.full((count, len(names)), np.nan, np.float32)
    sets = None if classifier.quantile is None else np.zeros((count, len(names)), bool)
    outlier_score = None if classifier.outliers is None else np.full(count, np.nan)
    is_outlier = None if classifier.outliers is None else np.zeros(count, bool)
    with contextlib.closing(Meter("classify", lines=not quiet)) as meter:
        for rows, images, cutout_flags, valid_shares in source.batches():
            flags[rows], read[rows], valid_share[rows] = cutout_flags, True, valid_shares
            seen = valid_shares > 0
            rows, images = rows[seen], images[torch.from_numpy(seen)]
            if len(rows):
                prediction = classifier.predict(images)
                probabilities[rows] = prediction.probabilities
                if sets is not None:
                    sets[rows] = prediction.sets
                if outlier_score is not None and is_outlier is not None:
                    outlier_score[rows], is_outlier[rows] = prediction.outlier_score, prediction.is_outlier
                if gallery is not None:
                    gallery.add(source, rows, images, prediction)
                if pictures is not None:
                    _draw_maps(pictures, source, rows, images, prediction, classifier)
            if not quiet:
                meter(int(read.sum()) + source.failed, count)
    optional = [None if values is None else values[read] for values in (sets, outlier_score, is_outlier)]
    return _Results(np.flatnonzero(read), probabilities[read], flags[read], valid_share[read], *optional)


def _draw_maps(
    folder: Path,
    source: Source,
    rows: np.ndarray,
    images: Tensor,
    prediction: Prediction,
    classifier: GalaxyClassifier,
) -> None:
    """Pictures of what speaks for classes, named by row and id, which stand below with the position and the class."""
    maps = classifier.grad_cam(images, prediction.labels)
    places = [source.places.get(name) for name in ("ra", "dec")]
    for number, (row, image, cam) in enumerate(zip(rows, images.numpy(), maps, strict=True)):
        label = prediction.labels[number]
        caption = [
            printable(str(source.ids[row]))[:60],
            f"{printable(classifier.names[label])}  {prediction.probabilities[number, label]:.2f}",
        ]
        if all(values is not None and np.isfinite(values[row]) for values in places):
            caption.insert(1, "  ".join(f"{values[row]:.5f}" for values in places if values is not None) + "  (ICRS)")
        name = re.sub(r"[^\w.-]+", "_", str(source.ids[row])).strip(".")[:100]
        picture = draw(image, cam, source.view(int(row)), caption)
        picture.save(folder / f"{source.numbers[row]:06d}-{name}.png", format="PNG")


def _side_car(source: Source, results: _Results, classifier: GalaxyClassifier, options: ClassifyOptions) -> Entries:
    counts = _counts(results, classifier.names)
    return side_car(
        classifier,
        source.sha256(),
        {"kind": source.kind, **source.described},
        {
            "bands": options.bands,
            "hdu": options.hdu,
            "parity": options.parity,
            "centre": options.centre,
            "keep_columns": options.keep_columns,
        },
        counts,
        failed=source.failed,
        warnings=[*source.warnings, *unseen_warnings(counts), *model_warnings(classifier)],
        packages=("domain-vision", "torch", "numpy", "astropy"),
    )


def table_meta(content: Document) -> dict[str, str]:
    """What is said of a table in its header, of its side-car."""
    sha256 = content["model"]["sha256"]
    return {
        "model": printable(str(content["model"]["name"])),
        "model_sha256_12": sha256[:12],
        "model_sha256": sha256,
        "input_sha256": content["input"]["sha256"],
        "software": f"domain-vision {content['versions']['domain-vision']}",
    }


def unseen_warnings(counts: Document) -> list[str]:
    """What a user should know of sources without a class; those off the image have no pixel either."""
    count, off_image = counts["rows"], counts["flags"]["off_image"]
    blank = count - counts["classified"] - off_image
    whys = ((off_image, "lie off the image"), (blank, "have no pixel with a value"))
    return [f"{number} of {count} sources {why} and have no class" for number, why in whys if number]


def _counts(results: _Results, names: Sequence[str]) -> Entries:
    labels = results.probabilities[~results.unseen].argmax(1)
    flags = {name: int((results.flags & flag > 0).sum()) for flag, name in FLAGS.items()}
    if results.is_outlier is not None:
        flags["outlier"] = int(results.is_outlier.sum())
    return {
        "rows": len(results.rows),
        "classified": len(labels),
        "classes": [{"name": name, "count": int((labels == n).sum())} for n, name in enumerate(names)],
        "flags": flags,
    }


def _columns(source: Source, results: _Results, classifier: GalaxyClassifier) -> list[Column]:
    """Columns of the table; of sources that have no class numbers are NaN or masked, and the class is empty.

    Kept columns of the catalogue whose names are taken begin with `catalogue_`.
    """
    valid = Column(
        "valid_share", results.valid_share.astype(np.float32), "", "meta.code.qual",
        "share of the pixels that the network sees which have a value",
    )  # fmt: skip
    columns = [
        *_places(source, results.rows),
        *_classes(results, classifier),
        *_sets(results, classifier),
        *_outliers(results, classifier),
        *([valid] if source.from_fits else []),
        _flags(results),
    ]
    taken = {column.name.lower() for column in columns}
    for kept in source.kept:
        name = kept.name
        while name.lower() in taken:
            name = f"catalogue_{name}"
        taken.add(name.lower())
        columns.append(replace(kept.part(results.rows), name=name))
    return columns


def _places(source: Source, rows: np.ndarray) -> list[Column]:
    columns = [
        Column("id", source.ids[rows], "", "meta.id;meta.main", source.id_meaning),
        Column("row", source.numbers[rows], "", "meta.record", "number of the source in the input, from 1"),
    ]
    for name, unit, ucd, description in (
        ("ra", "deg", "pos.eq.ra;meta.main", "right ascension (ICRS)"),
        ("dec", "deg", "pos.eq.dec;meta.main", "declination (ICRS)"),
        ("x", "pix", "pos.cartesian.x;instr.det", "column in the mosaic, 0 at the centre of the first pixel"),
        ("y", "pix", "pos.cartesian.y;instr.det", "row in the mosaic, 0 at the centre of the first pixel"),
    ):
        if name in source.places:
            columns.append(Column(name, source.places[name][rows], unit, ucd, description))
    return columns


def _classes(results: _Results, classifier: GalaxyClassifier) -> list[Column]:
    unseen, probabilities = results.unseen, results.probabilities
    labels = np.where(unseen[:, None], 0, probabilities).argmax(1)
    names = np.where(unseen, "", np.array([printable(name) for name in classifier.names])[labels])
    confidence = np.where(unseen, np.nan, probabilities.max(1)).astype(np.float32)
    return [
        Column("class", names, "", "src.class", "most probable class"),
        Column("confidence", confidence, "", "stat.confidenceLevel;src.class", "its probability"),
        *(
            Column(
                f"p_{name}", probabilities[:, n], "", "stat.probability;src.class", f"probability of class {name}"
            )
            for n, name in enumerate(classifier.names)
        ),
    ]  # fmt: skip


def _sets(results: _Results, classifier: GalaxyClassifier) -> list[Column]:
    if results.sets is None:
        return []
    columns = []
    for number, name in enumerate(classifier.names):
        about = f"whether class {name} is in the set that covers {classifier.coverage:g} of galaxies"
        columns.append(Column(f"in_set_{name}", results.sets[:, number], "", "meta.code;src.class", about))
    sizes = np.ma.MaskedArray(results.sets.sum(1).astype(np.int16), mask=results.unseen)
    return [*columns, Column("set_size", sizes, "", "meta.number;src.class", "classes in the set")]


def _outliers(results: _Results, classifier: GalaxyClassifier) -> list[Column]:
    if classifier.outliers is None or results.outlier_score is None or results.is_outlier is None:
        return []
    about = "squared distance from the training's features, per feature"
    score = Column("outlier_score", results.outlier_score.astype(np.float32), "", "stat.fit.chi2", about)
    about = f"whether the score is above {classifier.outliers.threshold:.4g}"
    return [score, Column("is_outlier", results.is_outlier, "", "meta.code.qual", about)]


def _flags(results: _Results) -> Column:
    outlier = np.zeros(len(results.rows), bool) if results.is_outlier is None else results.is_outlier
    flags = [
        ",".join([*flag_names(flag), *(["outlier"] if is_outlier else [])])
        for flag, is_outlier in zip(results.flags, outlier, strict=True)
    ]
    return Column("flags", np.array(flags, str), "", "meta.code.qual", "of partial, off_image, has_invalid and outlier")
