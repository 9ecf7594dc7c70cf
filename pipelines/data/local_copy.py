"""A copy of a prepared store on a node's own disk: one for all processes of the node, and for later runs."""

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from pipelines.data.store import MANIFEST, Store
from shared_backbones.errors import InputError
from shared_backbones.files import printable


def local_copy(store: Store, disk: str) -> Store:
    """Copy a store, or find the copy that another process or an earlier run has made of the same bytes.

    The first process that asks makes it, while the others of the node wait. It lies in `domain-vision-USER/DIGEST`, is
    complete as soon as it is there, and stays. One that has lost a file since is made anew.

    Args:
        store: on a file system that all nodes share.
        disk: folder on a disk of this node, whose variables (`$TMPDIR`) have their values here.

    Returns:
        The copy; the store itself where the disk has no room, or cannot be written, which a line then says.

    Raises:
        InputError: there is no such folder, another user has made ours, or the store is damaged.
    """
    root = Path(os.path.expandvars(disk))
    if not root.is_dir():
        raise InputError(
            f"train.local_copy={printable(disk)}: not a folder on this node; name one on its own disk, or leave it out"
        )
    home = root / f"domain-vision-{os.geteuid()}"
    target = home / store.digest[:16]
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        if home.is_symlink() or home.stat().st_uid != os.geteuid():  # anyone may have put data there
            raise InputError(f"{printable(home)}: belongs to another user; name another folder as train.local_copy")
        with _locked(home / f"{target.name}.lock"):
            if not _is_complete(target, store):
                _copy(store, target)
        return Store(target, store.fold)
    except OSError as error:
        reason = error.strerror or error
        print(f"warning: no copy in {printable(home)} ({reason}); data are read where they are", file=sys.stderr)
        return store


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among this node's processes; the system lets go for one that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_complete(target: Path, store: Store) -> bool:
    if not target.exists():
        return False
    with contextlib.suppress(InputError):  # a file is missing or cut short, as cleaners of /tmp leave it
        return Store(target).digest == store.digest
    return False


def _copy(store: Store, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    for left in (partial, target):  # of a process that was killed; of a cleaner
        shutil.rmtree(left, ignore_errors=True)
    size = sum(store.manifest["bytes"].values())
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise OSError(f"takes {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
    print(f"copy: {size / 2**30:.1f} GiB of prepared data to {printable(target)}", flush=True)
    partial.mkdir()
    try:
        for name in (*(f"{field}.bin" for field in store.manifest["bytes"]), MANIFEST):
            shutil.copyfile(store.folder / name, partial / name)
            with (partial / name).open("rb") as file:
                os.fsync(file.fileno())  # a node that goes down must not leave a name without its bytes
        try:
            Store(partial).verify()
        except InputError as error:
            store.verify()
            raise OSError(f"the disk gives back other bytes than were written: {error}") from None
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
