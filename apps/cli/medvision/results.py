"""Files of one scan's results: their names, whether they are there, and how they are put in place, all or none."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from apps.cli.medvision.scans import Scan
from apps.cli.medvision.segment import SegmentOptions
from medvision.contract import Setting
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable


@dataclass(frozen=True)
class ResultFiles:
    """Files of one scan's results.

    Attributes:
        folder: folder that they lie in.
        names: file name by kind: `labels`, `sidecar`, `report`, and where asked for `probabilities` and `dicom_seg`.
    """

    folder: Path
    names: Mapping[str, str]

    @classmethod
    def of(cls, scan: Scan, folder: Path, options: SegmentOptions) -> "ResultFiles":
        """The files of a scan's results, as the options name them."""
        stem = f"case-{scan.sha256()[:8]}" if options.pseudonyms else scan.stem
        names = {"labels": f"{stem}_seg.nii.gz", "sidecar": f"{stem}_seg.json", "report": f"{stem}_report.html"}
        if options.save_probabilities:
            names["probabilities"] = f"{stem}_prob.nii.gz"
        if options.dicom_seg:
            names["dicom_seg"] = f"{stem}_seg.dcm"
        return cls(folder, names)

    def path(self, kind: str) -> Path:
        """The file of a kind."""
        return self.folder / self.names[kind]

    def check_targets(self, sources: Sequence[Path]) -> None:
        """Refuse to write over what is read, and over folders.

        Raises:
            InputError: a result would replace a source or a folder.
        """
        for kind in self.names:
            target = self.path(kind)
            try:
                if target.is_dir():
                    raise InputError(
                        f"{printable(target)}: is a folder, a result goes there; move it, or choose --output"
                    )
                for source in sources:
                    if target.exists() and target.samefile(source):
                        raise InputError(
                            f"{printable(source)}: a result of that name would replace it; choose another --output "
                            "folder"
                        )
            except OSError as error:
                raise _unwritable(target, error) from None

    def are_complete(self, scan: Scan, model_sha256: str, settings: Mapping[str, Setting]) -> bool:
        """Whether the files in place are whole, and of this scan, model and settings."""
        try:
            sidecar = json.loads(self.path("sidecar").read_text(encoding="utf-8"))
            return (
                sidecar["input"]["sha256"] == scan.sha256()
                and sidecar["model"]["sha256"] == model_sha256
                and sidecar["settings"] == settings
                and all(
                    file_sha256(self.path(kind)) == sidecar["outputs"][kind]["sha256"]
                    for kind in self.names
                    if kind != "sidecar"
                )
            )
        except (InputError, OSError, ValueError, KeyError, TypeError):
            return False

    @contextmanager
    def placing(self) -> Iterator[dict[str, Path]]:
        """Paths to write to; when the block ends they all take their final names, when it raises all is as it was.

        The side-car is last to be moved: where it is, the others are.
        """
        try:
            with tempfile.TemporaryDirectory(prefix=".medvision-", dir=self.folder) as staging, ExitStack() as undo:
                staged = {kind: Path(staging) / name for kind, name in self.names.items()}
                try:
                    yield staged
                except InputError as error:  # it names a file where it is now, not where it was to be
                    raise InputError(str(error).replace(printable(staging), printable(self.folder))) from error
                for kind in sorted(staged, key=lambda kind: kind == "sidecar"):
                    target, replaced = self.path(kind), Path(staging) / kind
                    if target.exists():
                        os.replace(target, replaced)
                        undo.callback(os.replace, replaced, target)
                    else:
                        undo.callback(target.unlink, missing_ok=True)
                    os.replace(staged[kind], target)
                undo.pop_all()
        except OSError as error:
            raise _unwritable(self.folder, error) from error


def make_writable(folder: Path) -> None:
    """Make a folder for results, and find out that it can be written to before the work is done.

    Raises:
        InputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{printable(path)}: cannot be written ({error.strerror}); nothing was left behind; "
        "make room, or choose another folder with --output"
    )
