"""The files that a command writes: all of them or none, and never over what the program did not write.

A result has one side-car, a JSON file. It lists the other files of the result by kind and sha256, and is sealed with a
digest of its own content. So whatever lies at a file's name is known to be ours, ours but changed since, or foreign.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable, replacing
from shared_backbones.json_values import Document, Entries
from shared_backbones.work_folders import work_folder

SIDECAR = "sidecar"
"""The kind of the file that lists the others."""

Content: TypeAlias = Document
"""Content of a side-car."""
IsSame: TypeAlias = Callable[[Content], bool]
"""Whether a side-car is of the input, the model and the settings that count."""

OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace files that are not ours, or were changed since, and keep them as NAME.bak.",
    ),
]


class State(Enum):
    """What lies at the name of an output."""

    absent = "nothing"
    ours = "a file as its side-car lists it"
    earlier = "a file of an earlier run, which the side-car lists as such"
    changed = "was changed since this program wrote it"
    foreign = "was not written by this program"


@dataclass(frozen=True)
class Outputs:
    """The files that a command writes together.

    Attributes:
        files: paths by kind; `sidecar` is one of them.
        overwrite: whether files that are not ours, or were changed, are moved out of the way.
    """

    files: Mapping[str, Path]
    overwrite: bool = False

    @classmethod
    def table(cls, path: Path, overwrite: bool) -> "Outputs":
        """A table and, beside it, its side-car of the same name that ends in `.json`; `t.json.json` beside `t.json`."""
        is_json = path.suffix.lower() == ".json"
        sidecar = path.with_name(f"{path.name}.json") if is_json else path.with_suffix(".json")
        return cls({"table": path, SIDECAR: sidecar}, overwrite)

    def states(self) -> dict[str, State]:
        """What lies at each name."""
        sidecar = read_sidecar(self.files[SIDECAR])
        ours, earlier = _listed(sidecar, "outputs"), _listed(sidecar, "earlier_outputs")
        states = {kind: _state(path, ours.get(kind), earlier.get(kind)) for kind, path in self.files.items()}
        if sidecar:
            states[SIDECAR] = State.ours if sidecar == sealed(sidecar) else State.changed
        return states

    def check(self, inputs: Iterable[Path] = ()) -> None:
        """Refuse to replace inputs, folders and, unless it is asked for, what is not ours.

        Raises:
            InputError: an output would.
        """
        check_outputs([self], inputs)

    def standing(self, is_same: IsSame) -> list[Path] | None:
        """Files of a result that is there and was changed since, or None where there is none of that kind.

        Args:
            is_same: whether a side-car is of the input, the model and the settings that count.
        """
        states = self.states()
        try:
            same = is_same(read_sidecar(self.files[SIDECAR]))
        except (InputError, AttributeError, KeyError, TypeError, ValueError):
            return None
        if not same or not {*states.values()} <= {State.ours, State.changed}:
            return None
        return [self.files[kind] for kind, state in states.items() if state is State.changed]

    @contextmanager
    def placing(self) -> Iterator[dict[str, Path]]:
        """Paths to write to; when the block ends they all take their names, when it raises all is as it was.

        A kind that the block takes out of the mapping is not placed.

        The side-car is first to be moved: a process that is killed between two moves leaves nothing that is unlisted.

        Raises:
            InputError: the files cannot be written, or a name was taken meanwhile by what is not ours.
        """
        where = self.files[SIDECAR].parent
        try:
            with ExitStack() as stack:
                staging = {}
                for where in dict.fromkeys(path.parent for path in self.files.values()):
                    staging[where] = stack.enter_context(work_folder(where))
                staged = {kind: staging[path.parent] / path.name for kind, path in self.files.items()}
                try:
                    yield staged
                except InputError as error:  # it names a file where it is now, not where it was to be
                    raise InputError(_renamed(str(error), staging)) from error
                self.check()
                self._move(staged)
        except OSError as error:
            raise InputError(
                f"{printable(where)}: cannot be written ({error.strerror or error}); nothing was left behind; make "
                "room, or choose another folder with --output"
            ) from error

    def finish(self, staged: Mapping[str, Path], content: Content) -> Entries:
        """Write the side-car, which lists the files that are staged, and those of earlier runs; returns its content."""
        written = {kind: file_sha256(path) for kind, path in staged.items() if kind != SIDECAR}
        sidecar, states = read_sidecar(self.files[SIDECAR]), self.states()
        earlier = _listed(sidecar, "earlier_outputs") | _listed(sidecar, "outputs")
        for kind in written:
            earlier.pop(kind, None)
            if states[kind] in (State.ours, State.earlier):
                earlier[kind] = file_sha256(self.files[kind])
        lists = {"outputs": written, "earlier_outputs": earlier}
        for key, part in lists.items():
            content = {**content, **({key: {kind: {"sha256": part[kind]} for kind in part}} if part else {})}
        whole = sealed(content)
        text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        staged[SIDECAR].write_text(text, encoding="utf-8")
        return whole

    def _move(self, staged: Mapping[str, Path]) -> None:
        states = self.states()
        with ExitStack() as undo:
            for kind in sorted(staged, key=lambda kind: kind != SIDECAR):
                target = self.files[kind]
                if states[kind] is State.absent:
                    undo.callback(target.unlink, missing_ok=True)
                else:
                    ours = states[kind] in (State.ours, State.earlier)
                    aside = staged[kind].with_name(f"{kind}.old") if ours else backup_of(target)
                    # the side-car is copied, so that at no time there is none
                    (shutil.copyfile if kind == SIDECAR else os.replace)(target, aside)
                    undo.callback(os.replace, aside, target)
                os.replace(staged[kind], target)
            undo.pop_all()


def check_outputs(results: Iterable[Outputs], inputs: Iterable[Path] = ()) -> None:
    """Refuse to replace inputs, folders and, unless it is asked for, what is not ours; before anything is read.

    Raises:
        InputError: an output of one of the results would.
    """
    given = {_identity(path): path for path in inputs if os.path.exists(path)}
    blocked: list[tuple[Path, State]] = []
    for result in results:
        for kind, state in result.states().items():
            target = result.files[kind]
            if os.path.isdir(target):
                raise InputError(f"{printable(target)}: is a folder, a result goes there; move it, or choose --output")
            if state is not State.absent and (source := given.get(_identity(target))):
                raise InputError(
                    f"{printable(source)}: a result of that name would replace it, and it is an input; choose another "
                    "--output"
                )
            if state in (State.foreign, State.changed) and not result.overwrite:
                blocked.append((target, state))
    if blocked:
        target, state = blocked[0]
        more = f" (and {len(blocked) - 1} more)" if len(blocked) > 1 else ""
        raise InputError(
            f"{printable(target)}: is there and {state.value}{more}; choose another place with -o, or --overwrite, "
            f"which keeps it as {printable(backup_of(target).name)}"
        )


def is_ours(path: Path) -> bool:
    """Whether a file is a table that a command wrote, as the side-car beside it says."""
    result = Outputs.table(path, False)
    return result.files[SIDECAR].is_file() and result.states()["table"] in (State.ours, State.earlier)


def sealed(content: Content) -> Entries:
    """The content of a side-car with a digest of all the rest of it, by which changes are seen."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    return {**rest, "seal": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def place_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a file whose content follows from what it is about, so that one of that content is ours.

    Raises:
        InputError: it cannot be written, or another one is there and is not to be replaced.
    """
    if path.is_dir():
        raise InputError(f"{printable(path)}: is a folder, a file goes there; move it, or choose --output")
    if os.path.lexists(path):
        if _bytes_of(path) == text.encode():
            return
        if not overwrite:
            raise InputError(
                f"{printable(path)}: is there and {State.foreign.value}; choose another place with -o, or --overwrite, "
                f"which keeps it as {printable(backup_of(path).name)}"
            )
        os.replace(path, backup_of(path))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link to a file, or a copy where there are none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def backup_of(path: Path) -> Path:
    """The name under which a file is kept that makes way: `<name>.bak`, or with a number where that is taken."""
    names = (f"{path.name}.bak{number or ''}" for number in (0, *range(2, 10_000)))
    return next(kept for kept in map(path.with_name, names) if not os.path.lexists(kept))


def _state(path: Path, ours: str | None, earlier: str | None) -> State:
    if not os.path.lexists(path):
        return State.absent
    if ours is None and earlier is None:
        return State.foreign
    try:
        digest = file_sha256(path)
    except InputError:
        return State.foreign
    return State.ours if digest == ours else State.earlier if digest == earlier else State.changed


def read_sidecar(path: Path) -> Content:
    """Content of a side-car of ours; empty where there is none."""
    try:
        content = read_json(path)
    except InputError:
        return {}
    return content if "seal" in content else {}


def _listed(sidecar: Content, key: str) -> dict[str, str]:
    """Digests by kind of the files that a side-car lists."""
    part = sidecar.get(key)
    return {
        kind: about["sha256"]
        for kind, about in (part.items() if isinstance(part, dict) else ())
        if isinstance(about, dict) and isinstance(about.get("sha256"), str)
    }


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common."""
    try:
        about = path.stat()
    except (OSError, ValueError):  # ValueError: no name that a system can have
        return None
    return about.st_dev, about.st_ino


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _renamed(message: str, staging: Mapping[Path, Path]) -> str:
    for parent, folder in staging.items():
        message = message.replace(printable(folder), printable(parent))
    return message
