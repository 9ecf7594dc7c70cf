"""A packed, memory-mapped store of prepared data, with a manifest that says where every part comes from.

One binary file holds one field (such as `image`) of all cases, one after another, and `manifest.json` says where. The
bytes depend on the sources and the settings alone: not on the number of workers, and not on interruptions.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, TypeVar

import numpy as np

from pipelines.runtime.stopping import leave_interrupts_to_parent
from shared_backbones.errors import InputError
from shared_backbones.files import check_regular, replacing
from shared_backbones.folds import split_of
from shared_backbones.json_values import Document

MANIFEST = "manifest.json"
_JOURNAL = "journal.jsonl"
_ALIGNMENT = 64
_VERSION = 1

Record: TypeAlias = Document
"""What a manifest says of a case, in JSON types; each kind of data has its own entries."""
SourceT = TypeVar("SourceT")


class Place(TypedDict):
    """Where an array of a case lies in the file of its field.

    Attributes:
        dtype: Data type, as NumPy writes it.
        shape: Shape of the array.
        offset: First byte.
        bytes: Number of bytes.
        crc32: Checksum of the bytes.
    """

    dtype: str
    shape: list[int]
    offset: int
    bytes: int
    crc32: int


class CaseEntry(TypedDict):
    """A case of a manifest; `Sample` explains the parts, and `arrays` says where each field's array lies."""

    id: str
    group: str
    split: str
    record: Record
    arrays: dict[str, Place]


class Manifest(TypedDict):
    """The content of `manifest.json`.

    Attributes:
        version: Version of this form.
        settings: What decided the conversion.
        cases: Cases in the order of their sources.
        skipped: Number of sources that could not be used.
        bytes: Size of each field's file.
    """

    version: int
    settings: Document
    cases: list[CaseEntry]
    skipped: int
    bytes: dict[str, int]


@dataclass
class Sample:
    """A prepared case.

    Attributes:
        id: Name of the case, such as `case-0123abcd`.
        group: Name of what must stay in one split, such as the subject; a text that says nothing about a person.
        split: Split, `train`, `validation` or `test`, or a fold by its name (`shared_backbones.folds`).
        arrays: Arrays by field; empty for a case that is only checked and noted.
        record: What the manifest says of it, in JSON types.
    """

    id: str
    group: str
    split: str
    arrays: dict[str, np.ndarray]
    record: Record


class Store:
    """A finished store, opened for reading; it can be sent to other processes, which open it again.

    Args:
        folder: Folder of the store.
        fold: Fold that is validated on, where cases are divided into folds: they are then of training or validation.

    Attributes:
        folder: Folder of the store.
        fold: Fold that is validated on.
        manifest: Content of its manifest.
        digest: Sha256 of the manifest, which stands for the bytes of all fields.
    """

    def __init__(self, folder: Path, fold: int | None = None) -> None:
        self.folder, self.fold = Path(folder), fold
        path = self.folder / MANIFEST
        try:
            check_regular(path)
            content = path.read_bytes()
            self.manifest: Manifest = json.loads(content)
            for case in self.manifest["cases"]:
                case["split"] = split_of(case["split"], fold)
            sizes = dict(self.manifest["bytes"])
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); run the stage prepare again") from None
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            raise InputError(f"{path}: damaged; delete its folder and run the stage prepare again") from None
        self.digest = hashlib.sha256(content).hexdigest()
        self._maps: dict[str, np.ndarray] = {}
        for field, size in sizes.items():
            file = self.folder / f"{field}.bin"
            actual = file.stat().st_size if file.exists() else 0
            if actual != size:
                raise InputError(
                    f"{file}: has {actual} bytes, expected {size}; delete its folder and run the stage prepare again"
                )

    def training_digest(self) -> str:
        """Digest of what a training reads: the settings, and all cases but those of the test split."""
        read = [case for case in self.cases() if case["split"] != "test"]
        return hashlib.sha256(json.dumps([self.manifest["settings"], read], sort_keys=True).encode()).hexdigest()

    def split_digest(self, split: str) -> str:
        """Digest of a split: the settings, and its cases, wherever their bytes lie."""
        cases = [
            {**case, "arrays": {name: {**where, "offset": 0} for name, where in case["arrays"].items()}}
            for case in self.cases(split)
        ]
        return hashlib.sha256(json.dumps([self.manifest["settings"], cases], sort_keys=True).encode()).hexdigest()

    def fields(self) -> dict[str, str]:
        """Type and shape of each field, such as `float32 (1, -1, -1)`, where -1 differs between cases."""
        kinds: dict[str, tuple[str, list[int]]] = {}
        for name, where in ((name, where) for case in self.cases() for name, where in case["arrays"].items()):
            dtype, shape = np.dtype(where["dtype"]).name, where["shape"]
            _, before = kinds.setdefault(name, (dtype, shape))
            sizes = [size if size == other else -1 for size, other in zip(shape, before, strict=True)]
            kinds[name] = (dtype, sizes)
        return {name: f"{dtype} ({', '.join(map(str, sizes))})" for name, (dtype, sizes) in kinds.items()}

    def cases(self, split: str | None = None) -> list[CaseEntry]:
        """Entries of the manifest, of one split or all."""
        return [case for case in self.manifest["cases"] if split in {None, case["split"]}]

    def measured_cases(self) -> list[CaseEntry]:
        """Cases that means and deviations are of: training, and with folds all outside the test.

        So models of all folds expect the same input.
        """
        splits = {"train"} if self.fold is None else {"train", "validation"}
        return [case for case in self.cases() if case["split"] in splits]

    def array(self, case: CaseEntry, field: str) -> np.ndarray:
        """A field of a case: a view of the file, not a copy."""
        try:
            if field not in self._maps:
                self._maps[field] = np.memmap(self.folder / f"{field}.bin", np.uint8, "r")
            where = case["arrays"][field]
            raw = self._maps[field][where["offset"] : where["offset"] + where["bytes"]]
            return raw.view(where["dtype"]).reshape(where["shape"])
        except (KeyError, TypeError, ValueError):
            path = self.folder / MANIFEST
            raise InputError(f"{path}: damaged; delete its folder and run the stage prepare again") from None

    def verify(self) -> None:
        """Read everything once and compare checksums.

        Raises:
            InputError: a case's bytes are not those that were written.
        """
        for case in self.cases():
            for field, where in case["arrays"].items():
                if zlib.crc32(np.ascontiguousarray(self.array(case, field)).view(np.uint8).data) != where["crc32"]:
                    raise InputError(f"{self.folder}: {field} of {case['id']} is damaged; run the stage prepare again")

    def __getstate__(self) -> tuple[Path, int | None]:
        return self.folder, self.fold

    def __setstate__(self, state: tuple[Path, int | None]) -> None:
        self.__init__(*state)


def write_store(
    folder: Path,
    sources: Sequence[SourceT],
    convert: Callable[[SourceT], Sample],
    *,
    settings: Document,
    splits: Sequence[str] = (),
    workers: int = 0,
    skip_unreadable: bool = False,
    estimate: Callable[[SourceT], int] | None = None,
    on_failure: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Convert sources into a store; what an interrupted call finished is kept.

    Args:
        folder: Folder of the store, created where absent.
        sources: Sources to convert, in order; they can be sent to other processes.
        convert: Function that makes a sample of a source, or raises an InputError where the source cannot be used.
        settings: Settings that decide the conversion, in JSON types; a store begun under others is begun anew.
        splits: Splits that must not be empty.
        workers: Number of processes that convert; 0 converts in this one.
        skip_unreadable: Whether sources that cannot be used are left out and counted, rather than an error in the end.
        estimate: Function that gives the bytes a source will take; a disk with too little room is refused at once.
        on_failure: Function that is called with the reason why a source cannot be used.
        on_progress: Function that is called with the cases done and the cases in all.

    Raises:
        InputError: a source cannot be used, ids repeat, a group is in two splits, a split is empty, or the disk is
            full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if estimate is not None:
        _check_room(folder, sum(map(estimate, sources)))
    fingerprint = hashlib.sha256(f"{_VERSION}{json.dumps(settings, sort_keys=True)}{list(sources)!r}".encode())
    writer = _Writer(folder, fingerprint.hexdigest(), settings)
    todo = [(number, source) for number, source in enumerate(sources) if number not in writer.done]
    failures: list[str] = []
    for number, result in _convert_all(todo, convert, workers):
        if isinstance(result, str):
            failures.append(result)
            if on_failure is not None:
                on_failure(result)
        else:
            try:
                writer.add(number, result)
            except OSError as error:
                raise InputError(
                    f"{folder}: cannot be written ({error.strerror}); make room, or choose another output folder; what "
                    "is prepared is kept"
                ) from None
        if on_progress is not None:
            on_progress(len(writer.done) + len(failures), len(sources))
    if failures and not skip_unreadable:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise InputError(
            f"{len(failures)} of {len(sources)} cases cannot be used: {failures[0]}{more}; fix them, or leave them "
            "out with --skip-unreadable (data.skip_unreadable=true)"
        )
    return writer.finish(splits, len(failures))


class _Writer:
    """Appends cases to the fields' files, and notes each in a journal once its bytes are on the disk."""

    def __init__(self, folder: Path, fingerprint: str, settings: Document) -> None:
        self.folder, self.settings = folder, settings
        self.done: dict[int, CaseEntry] = {}
        self.sizes: dict[str, int] = {}
        journal = folder / _JOURNAL
        lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
        if lines and _parse(lines[0]) == {"fingerprint": fingerprint}:
            for line in lines[1:]:
                entry = _parse(line)
                if entry is None:
                    break  # cut off in the middle
                self.done[entry["number"]] = entry["case"]
                for field, where in entry["case"]["arrays"].items():
                    self.sizes[field] = where["offset"] + where["bytes"]
        for path in folder.glob("*.bin"):
            if path.stem in self.sizes:
                with path.open("r+b") as file:
                    file.truncate(self.sizes[path.stem])
            else:
                path.unlink()
        kept = [json.dumps({"number": number, "case": case}) for number, case in self.done.items()]
        journal.write_text("\n".join([json.dumps({"fingerprint": fingerprint}), *kept]) + "\n", encoding="utf-8")

    def add(self, number: int, sample: Sample) -> None:
        arrays: dict[str, Place] = {}
        for field, array in sample.arrays.items():
            raw = np.ascontiguousarray(array)
            content = raw.view(np.uint8).reshape(-1) if raw.size else np.zeros(0, np.uint8)
            size = self.sizes.get(field, 0)
            offset = -(-size // _ALIGNMENT) * _ALIGNMENT
            with (self.folder / f"{field}.bin").open("ab") as file:
                file.write(b"\0" * (offset - size))
                file.write(content.data)
                file.flush()
                os.fsync(file.fileno())
            self.sizes[field] = offset + content.size
            arrays[field] = {
                "dtype": raw.dtype.str,
                "shape": list(raw.shape),
                "offset": offset,
                "bytes": int(content.size),
                "crc32": zlib.crc32(content.data),
            }
        case: CaseEntry = {
            "id": sample.id, "group": sample.group, "split": sample.split, "record": sample.record, "arrays": arrays,
        }  # fmt: skip
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"number": number, "case": case}) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.done[number] = case

    def finish(self, splits: Sequence[str], skipped: int) -> Store:
        cases = [self.done[number] for number in sorted(self.done)]
        repeated = [name for name, count in Counter(case["id"] for case in cases).items() if count > 1]
        if repeated:
            raise InputError(f"{repeated[0]}: two of the sources are the same file; keep one of them")
        homes: dict[str, str] = {}
        for case in cases:
            if homes.setdefault(case["group"], case["split"]) != case["split"]:
                raise InputError(
                    f"{case['id']}: its subject is in split {case['split']} and in {homes[case['group']]}; keep all "
                    "cases of a subject in one split"
                )
        for split in splits:
            if split not in homes.values():
                raise InputError(f"split {split} is empty; change the rule of the split, or give more data")
        manifest: Manifest = {
            "version": _VERSION, "settings": self.settings, "cases": cases, "skipped": skipped, "bytes": self.sizes,
        }  # fmt: skip
        with replacing(self.folder / MANIFEST) as path:
            path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (self.folder / _JOURNAL).unlink()
        return Store(self.folder)


def _convert_all(
    todo: Sequence[tuple[int, SourceT]], convert: Callable[[SourceT], Sample], workers: int
) -> Iterator[tuple[int, Sample | str]]:
    """Samples, or why there is none, in the order of the sources."""
    if not workers:
        for number, source in todo:
            yield number, _attempt(convert, source)
        return
    try:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, initializer=leave_interrupts_to_parent) as pool:
            waiting: deque[tuple[int, Future[Sample | str]]] = deque()
            for number, source in todo:
                waiting.append((number, pool.submit(_attempt, convert, source)))
                if len(waiting) > 2 * workers:  # not more at once than memory has room for
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
    except BrokenProcessPool:
        raise InputError(
            f"one of {workers} processes that convert files was killed, most likely for want of memory; lower "
            "data.workers, or give the job more memory; what is prepared is kept"
        ) from None


def _attempt(convert: Callable[[SourceT], Sample], source: SourceT) -> Sample | str:
    try:
        return convert(source)
    except InputError as error:
        return str(error)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: the prepared data takes about {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free; "
            "make room, or choose another output folder"
        )


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def parts_of(store: Store, split: str) -> list[dict[str, np.ndarray]]:
    """Arrays of the parts of a split, memory-mapped."""
    return [{name: store.array(case, name) for name in case["arrays"]} for case in store.cases(split)]
