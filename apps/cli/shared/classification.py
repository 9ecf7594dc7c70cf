"""What the programs that classify images share: reading them, maps of Grad-CAM, the side-car and the last lines."""

import hashlib
import json
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from apps.cli.shared.journal import LeftOut
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries
from shared_backbones.terminal import say

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from shared_backbones.classification.classifier import ImageClassifier

T = TypeVar("T")


def check_parents(*targets: Path | None) -> None:
    """Refuse outputs whose folder is not there.

    Raises:
        InputError: one is not.
    """
    for target in targets:
        if target is not None and not target.parent.is_dir():
            raise InputError(f"{printable(target.parent)}: no such folder; make it, or choose another output")


def list_files(folder: Path) -> list[Path]:
    """Files of a folder, in the order of their names, without hidden ones.

    Raises:
        InputError: it cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed ({error.strerror}); expected a folder") from None


def read_in_batches(
    files: Sequence[Path],
    size: int,
    read: Callable[[Path], T],
    on_failure: Callable[[str], None],
    *,
    skip_unreadable: bool,
) -> Iterator[tuple[list[int], list[T]]]:
    """Numbers of files, and what was read of them, so many at once.

    Args:
        files: Files to read.
        size: Files of a batch, before files that cannot be used are left out.
        read: Reads one file.
        on_failure: Called with the reason why a file is left out.
        skip_unreadable: Whether files that cannot be used are left out, and not only those that killed a process.

    Raises:
        InputError: a file cannot be used.
    """
    for first in range(0, len(files), size):
        rows, values = [], []
        for row, path in enumerate(files[first : first + size], first):
            try:
                values.append(read(path))
            except InputError as error:
                if not skip_unreadable and not isinstance(error, LeftOut):
                    raise
                on_failure(str(error))
                continue
            rows.append(row)
        if rows:
            yield rows, values


def joint_sha256(digests: Sequence[bytes]) -> str:
    """The sha256 of one file is its own; that of several is the sha256 of theirs, sorted."""
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def say_unusable(reason: str) -> None:
    """Print why an image is left out."""
    say(f"cannot be used: {reason}", file=sys.stderr, flush=True)


def draw_maps(
    folder: Path,
    ids: "np.ndarray",
    rows: "Sequence[int] | np.ndarray",
    images: "Tensor",
    labels: "np.ndarray",
    classifier: "ImageClassifier[Any]",
    picture: "Callable[[np.ndarray], np.ndarray] | None" = None,
) -> None:
    """Pictures of what speaks for classes, named by row and id.

    Args:
        folder: Folder that they are written into.
        ids: What each image is known by, `(N,)`.
        rows: Row of each of these images.
        images: What the network sees of them.
        labels: Number of a class for each.
        classifier: Classifier that is asked.
        picture: Makes of an image `(C, H, W)` one `(3, H, W)` uint8; None where it can be seen as it is.
    """
    from PIL import Image

    from shared_backbones.classification.grad_cam import cam_overlay

    maps = classifier.grad_cam(images, labels)
    for row, image, cam in zip(rows, images.numpy(), maps, strict=True):
        name = re.sub(r"[^\w.-]+", "_", str(ids[row])).strip(".")[:100]
        shown = image if picture is None else picture(image)
        Image.fromarray(cam_overlay(shown, cam)).save(folder / f"{row + 1:06d}-{name}.png", format="PNG")


def model_warnings(classifier: "ImageClassifier[Any]") -> list[str]:
    """What a user should know of a model's calibration and score of outliers."""
    lines, calibration = [], classifier.card.get("calibration") or {}
    calibrated = calibration.get("symmetries", classifier.default_symmetries)
    if "temperature" not in calibration:
        lines.append("the model was not calibrated; its probabilities may be too sure")
    elif calibrated != classifier.symmetries:
        views = "over" if calibrated else "without"
        lines.append(f"the model's calibration is for averages {views} symmetries; its sets may cover less or more")
    if classifier.outliers is None:
        lines.append("the model does not say what is usual; nothing is called an outlier")
    return lines


def side_car(
    classifier: "ImageClassifier[Any]",
    sha256: str,
    described: Mapping[str, Any],
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    *,
    failed: int,
    warnings: Sequence[str],
    packages: Sequence[str],
) -> Entries:
    """Content of a side-car, which names no input.

    Args:
        classifier: Classifier that was asked.
        sha256: Digest of the input.
        described: What else is known of the input.
        settings: Settings that decided the result, beyond the classifier's.
        figures: Counts, and `classes` with a `name` and `count` each.
        failed: Number of images that were left out.
        warnings: Warnings beyond those of the classifier's device.
        packages: Packages whose versions are named.
    """
    from importlib.metadata import version

    return {
        "schema_version": 1,
        "case": f"case-{sha256[:8]}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": classifier.provenance(),
        "input": {"sha256": sha256, **described},
        **classifier.described(),
        "settings": {
            "symmetries": classifier.symmetries, "temperature": classifier.temperature,
            "coverage": classifier.coverage, "batch_size": classifier.batch_size, **settings,
        },
        **figures,
        "failed": failed,
        "warnings": [*classifier.warnings, *warnings],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }  # fmt: skip


def report(content: Mapping[str, Any], output: Path, *, as_json: bool, quiet: bool) -> None:
    """Print what a side-car says: as it is, or warnings, counts of classes and figures, and where the table is."""
    if as_json:
        print(json.dumps(content, indent=2))
        return
    for warning in content["warnings"]:
        say(f"warning: {warning}", file=sys.stderr)
    if quiet:
        return
    for row in content["classes"]:
        fraction = row["count"] / max(content["classified"], 1)
        say(f"  {printable(row['name']):<32} {row['count']:>8}  {fraction:6.1%}")
    for name, value in (content.get("figures") or {}).items():
        if name in ("accuracy", "balanced_accuracy", "auc"):
            say(f"  {name.replace('_', ' '):<32} {'-' if value is None else format(value, '.4f'):>8}")
    flags = ", ".join(f"{count} {name}" for name, count in content["flags"].items() if count)
    counts = f"{content['classified']} of {content['rows']} classified"
    say(f"{printable(output)}: {counts}{flags and f' ({flags})'}")
