"""Published splits: lists of images that lie beside a data set, or above it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.labelled_files import SPLITS, entries_of

Lists = dict[str, tuple[Path, frozenset[str]]]
DRAWN = "drawn"
"""What says that no list decides a split."""
_ABOVE, _BELOW = 6, 7  # levels at which downloads lay lists above, and classes below


@dataclass(frozen=True)
class PublishedSplit:
    """The lists that decide a split.

    Attributes:
        names: names of the lists, such as `eurosat-{train,val,test}.txt`; empty where there are none.
        split_of: split of each image, by its name without ending.
    """

    names: str
    split_of: Mapping[str, str]


def folder_below(root: Path, holds: Callable[[Path], bool]) -> Path:
    """The first folder at or below a root, level by level, that holds a data set's images; the root where none does."""
    level = [root]
    for _ in range(_BELOW):
        home = next((folder for folder in level if holds(folder)), None)
        if home is not None:
            return home
        level = [entry for folder in level for entry in entries_of(folder) if entry.is_dir()]
    return root


def find_split(
    home: Path,
    root: Path,
    images: Iterable[str],
    *,
    ending: str,
    read: Callable[[Path], Iterable[str]],
    chosen: str | None = None,
) -> PublishedSplit:
    """The lists that fit some images, looked for from their folder up to the root, or up to six levels above.

    Args:
        home: folder of the classes, or of the images.
        root: folder that the user gave.
        images: names of the images without ending.
        ending: ending of the lists, such as `.txt`.
        read: names of the images in a list, without ending.
        chosen: what the names of the lists begin with, where several fit.

    Raises:
        InputError: two sets of lists fit, a list is there twice with other content, or an image is in two lists.
    """
    sets = _sets(_upwards(home, root), set(images), ending, read)
    if chosen is not None:
        sets = {prefix: lists for prefix, lists in sets.items() if prefix == chosen}
        if not sets:
            raise InputError(f"{printable(root)}: no lists {printable(chosen)}-*{ending} fit; check data.options.lists")
    if len(sets) > 1:
        raise InputError(
            f"{printable(root)}: the lists of {' and '.join(sorted(printable(p) or 'no name' for p in sets))} fit, "
            "expected one; name it with data.options.lists, or remove the others"
        )
    lists = next(iter(sets.values()), {})
    return PublishedSplit(", ".join(path.name for path, _ in lists.values()), _split_of(lists))


def _sets(
    folders: Iterable[Path], known: set[str], ending: str, read: Callable[[Path], Iterable[str]]
) -> dict[str, Lists]:
    """Lists that name some of the images, by what their names begin with and by split."""
    sets: dict[str, Lists] = {}
    for folder in folders:
        for path in entries_of(folder):
            prefix, word = _parts(path.stem)
            if path.suffix != ending or word not in SPLITS or not path.is_file():
                continue
            content = frozenset(read(path))
            if not content & known:
                continue
            before = sets.setdefault(prefix, {}).setdefault(SPLITS[word], (path, content))
            if before[1] != content:
                raise InputError(
                    f"{printable(path)}: {printable(before[0])} is another list of the same name; remove one of them"
                )
    return sets


def _split_of(lists: Lists) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for split, (path, content) in lists.items():
        twice = sorted(content & split_of.keys())
        if twice:
            raise InputError(
                f"{printable(path)}: {printable(twice[0])} is in the list of {split_of[twice[0]]}, too; an image can "
                "be in one list: mend them"
            )
        split_of |= dict.fromkeys(content, split)
    return split_of


def _upwards(home: Path, root: Path) -> list[Path]:
    """Folders from the images' up: to the root, or where that is the images' folder itself, up to six levels above."""
    home, root = home.absolute(), root.absolute()
    above = [home, *home.parents]
    if root in above and root != home:
        return above[: above.index(root) + 1]
    return [folder for folder in above[: _ABOVE + 1] if _can_be_listed(folder)]


def _can_be_listed(folder: Path) -> bool:
    try:
        next(folder.iterdir(), None)
    except OSError:
        return False
    return folder != Path(folder.anchor)


def _parts(stem: str) -> tuple[str, str]:
    prefix, _, word = stem.rpartition("-")
    return prefix, word
