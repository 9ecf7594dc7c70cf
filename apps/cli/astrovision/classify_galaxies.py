"""`astrovision classify`: images of galaxies in; a table of classes and probabilities out, with a side-car."""

import contextlib
import json
from pathlib import Path
from typing import Any

from apps.cli.shared.classification import check_parents, draw_maps, model_warnings, new_folder, say_unusable, side_car
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED, find_model
from apps.cli.shared.sharding import Shard
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing


def classify_galaxies(
    text: str,
    output: Path,
    model: str,
    options: Any,
    *,
    coverage: float | None,
    symmetries: bool,
    cam_folder: Path | None,
    batch_size: int,
    skip_unreadable: bool,
    quiet: bool,
    shard: Shard | None,
    network: dict[str, Any],
) -> tuple[dict[str, Any], int]:
    """Classify an input's images and write the table, its side-car and maps; returns the side-car and the exit code.

    Args:
        text: the input, see `apps.cli.astrovision.sources.open_source`.
        output: of the table; its ending decides the format. The side-car lies beside it.
        model: folder or URI of a trained model.
        options: `InputOptions`.
        coverage: of the prediction sets; None takes the model's.
        symmetries: average over the eight symmetries of the square.
        cam_folder: new folder for pictures of Grad-CAM; None for none.
        batch_size: images that the network sees at once.
        skip_unreadable: leave out image files that cannot be used.
        quiet: show no progress.
        shard: part of the images or sources; None for all.
        network: `device`, `threads` and `precision`.

    Raises:
        InputError: input, model, options and output do not go together, or nothing could be classified.
    """
    from apps.cli.astrovision.sources import open_source
    from astrovision.catalogues import write_catalogue
    from astrovision.classification import GalaxyClassifier
    from astrovision.tables import format_of

    format_of(output)
    check_parents(output, cam_folder)
    classifier = GalaxyClassifier(find_model(model), symmetries=symmetries, batch_size=batch_size, **network)
    if coverage is not None and (classifier.coverage is None or abs(classifier.coverage - coverage) > 1e-6):
        stored = "none" if classifier.coverage is None else f"those of {classifier.coverage:g}"
        raise InputError(
            f"--coverage {coverage:g}: of prediction sets the model has {stored}; leave it out, or "
            "calibrate the model anew"
        )
    beside = output.with_suffix(".json")
    with contextlib.ExitStack() as stack:
        source, files = open_source(
            text, options, classifier, shard, on_failure=say_unusable if skip_unreadable else None, stack=stack
        )
        for path in files:
            if path.resolve() in (output.resolve(), beside.resolve()):
                raise InputError(f"{printable(path)}: is an input and would be overwritten; choose another output")
        temporary = stack.enter_context(replacing(beside))
        pictures = stack.enter_context(new_folder(cam_folder)) if cam_folder is not None else None
        found = _classify(source, classifier, pictures, quiet)
        if not len(found["rows"]):
            raise InputError(f"{printable(text)}: none of {len(source)} images can be used; give others")
        sha256 = source.sha256()
        content = side_car(
            classifier,
            sha256,
            {"kind": source.kind, **source.described},
            {"bands": options.bands, "hdu": options.hdu},
            _counts(found, classifier),
            failed=source.failed,
            warnings=[*source.warnings, *_warnings(found, classifier)],
            packages=("domain-vision", "torch", "numpy", "astropy"),
        )
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        meta = {
            "model": printable(str(classifier.card.get("name"))),
            "model_sha256_12": classifier.sha256[:12],
            "model_sha256": classifier.sha256,
            "input_sha256": sha256,
            "software": f"domain-vision {content['versions']['domain-vision']}",
        }
        write_catalogue(output, _columns(source, found, classifier), meta=meta)
    return content, PARTLY_FAILED if source.failed else COMPLETE


def _classify(source: Any, classifier: Any, pictures: Path | None, quiet: bool) -> dict[str, Any]:
    """Arrays over the sources that were read: `rows`, `scores`, `flags`, and `sets`, `strange`, `called`, or None."""
    import numpy as np

    from astrovision.cutouts import OFF_IMAGE
    from pipelines.runtime.progress import Meter

    count, names = len(source), classifier.names
    flags, read = np.zeros(count, np.uint8), np.zeros(count, bool)
    scores = np.full((count, len(names)), np.nan, np.float32)
    sets = None if classifier.quantile is None else np.zeros((count, len(names)), bool)
    known = classifier.outliers is not None
    strange, called = (np.full(count, np.nan), np.zeros(count, bool)) if known else (None, None)
    with contextlib.closing(Meter("classify", None if quiet else 10.0)) as meter:
        for rows, images, said in source.batches():
            flags[rows], read[rows] = said, True
            there = said & OFF_IMAGE == 0
            rows, images = rows[there], images[there]
            if len(rows):
                found = classifier.predict(images)
                scores[rows] = found.probabilities
                if sets is not None:
                    sets[rows] = found.sets
                if strange is not None and called is not None:
                    strange[rows], called[rows] = found.outlier_score, found.is_outlier
                if pictures is not None:
                    draw_maps(pictures, source.ids, rows, images, found.labels, classifier)
            if not quiet:
                meter(int(read.sum()) + source.failed, count)
    rows = np.flatnonzero(read)
    kept = {"scores": scores, "flags": flags, "sets": sets, "strange": strange, "called": called}
    return {"rows": rows, **{name: None if values is None else values[rows] for name, values in kept.items()}}


def _columns(source: Any, found: dict[str, Any], classifier: Any) -> list[Any]:
    """Columns of the table; of sources off the image numbers are NaN or masked, the class is empty, and no flag is set.

    Truth values are not masked, as FITS would have them true.
    """
    import numpy as np

    from astrovision.catalogues import Column
    from astrovision.cutouts import OFF_IMAGE, flag_names

    rows, scores, sets, called = found["rows"], found["scores"], found["sets"], found["called"]
    away = found["flags"] & OFF_IMAGE > 0
    best = np.where(away[:, None], 0, scores).argmax(1)
    columns = [Column("id", source.ids[rows], "", "meta.id;meta.main", source.id_meaning)]
    for name, unit, ucd, description in (
        ("ra", "deg", "pos.eq.ra;meta.main", "right ascension (ICRS)"),
        ("dec", "deg", "pos.eq.dec;meta.main", "declination (ICRS)"),
        ("x", "pix", "pos.cartesian.x;instr.det", "column in the mosaic, 0 at the centre of the first pixel"),
        ("y", "pix", "pos.cartesian.y;instr.det", "row in the mosaic, 0 at the centre of the first pixel"),
    ):
        if name in source.places:
            columns.append(Column(name, source.places[name][rows], unit, ucd, description))
    named = np.where(away, "", np.array([printable(name) for name in classifier.names])[best])
    sure = np.where(away, np.nan, scores.max(1))
    columns += [
        Column("class", named, "", "src.class", "most probable class"),
        Column("confidence", sure.astype(np.float32), "", "stat.confidenceLevel;src.class", "its probability"),
    ]
    for number, name in enumerate(classifier.names):
        about = f"probability of class {name}"
        columns.append(Column(f"p_{name}", scores[:, number], "", "stat.probability;src.class", about))
    if sets is not None:
        for number, name in enumerate(classifier.names):
            about = f"whether class {name} is in the set that covers {classifier.coverage:g} of galaxies"
            columns.append(Column(f"in_set_{name}", sets[:, number], "", "meta.code;src.class", about))
        sizes = np.ma.MaskedArray(sets.sum(1).astype(np.int16), mask=away)
        columns.append(Column("set_size", sizes, "", "meta.number;src.class", "classes in the set"))
    if called is not None:
        about = "squared distance from the training's features, per feature"
        columns.append(Column("outlier_score", found["strange"].astype(np.float32), "", "stat.fit.chi2", about))
        about = f"whether the score is above {classifier.outliers.threshold:.4g}"
        columns.append(Column("is_outlier", called, "", "meta.code.qual", about))
    flags = [
        ",".join([*flag_names(flag), *(["outlier"] if called is not None and called[number] else [])])
        for number, flag in enumerate(found["flags"])
    ]
    about = "of partial, off_image, has_invalid and outlier"
    return [*columns, Column("flags", np.array(flags, str), "", "meta.code.qual", about)]


def _counts(found: dict[str, Any], classifier: Any) -> dict[str, Any]:
    from astrovision.cutouts import FLAGS, OFF_IMAGE

    there = found["flags"] & OFF_IMAGE == 0
    best = found["scores"][there].argmax(1)
    flags = {name: int((found["flags"] & flag > 0).sum()) for flag, name in FLAGS.items()}
    if found["called"] is not None:
        flags["outlier"] = int(found["called"].sum())
    return {
        "rows": len(there),
        "classified": int(there.sum()),
        "classes": [{"name": name, "count": int((best == n).sum())} for n, name in enumerate(classifier.names)],
        "flags": flags,
    }


def _warnings(found: dict[str, Any], classifier: Any) -> list[str]:
    from astrovision.cutouts import OFF_IMAGE

    away = int((found["flags"] & OFF_IMAGE > 0).sum())
    lines = [f"{away} of {len(found['flags'])} sources lie off the image and have no class"] if away else []
    return [*lines, *model_warnings(classifier)]
