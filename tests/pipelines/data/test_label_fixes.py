"""Labels of galleries in place of those of the data set."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.data.image_layouts import find_layout
from pipelines.data.label_fixes import fix_labels, read_fixes
from shared_backbones.errors import InputError
from shared_backbones.labelled_images import ImageSource, Item

CLASSES = ["elliptical", "spiral", "edge-on"]


def write(path: Path, *lines: str) -> str:
    path.write_text("id,row,label,again,answer,drawn,reader,created\n" + "".join(f"{line}\n" for line in lines))
    return str(path)


def sources() -> list[ImageSource[Any]]:
    """Two parts of training, one of validation and one of test, all images elliptical."""
    layout, made = find_layout("folders"), []
    for split, first in (("train", 0), ("train", 2), ("validation", 4), ("test", 6)):
        items = tuple(Item(Path(f"{n}.png"), 0, f"elliptical/g{n}.png", split) for n in (first, first + 1))
        made.append(ImageSource(items, split, layout))
    return made


def labels(fixed: Any) -> dict[str, int]:
    return {item.key[11:-4]: item.label for source in fixed for item in source.items}


def test_training_labels_are_replaced_and_what_nobody_was_sure_of_is_left_out(tmp_path: Path):
    table = write(
        tmp_path / "f.csv", "g0,1,spiral,,elliptical,doubtful,AB,t", "g1,2,elliptical,,x,doubtful,AB,t",
        "g2,3,artefact,,x,doubtful,AB,t", "g3,4,spiral,edge-on,x,doubtful,AB,t", "g4,5,cannot tell,,x,random,AB,t",
        "g6,7,spiral,,x,doubtful,AB,t", "g7,8,artefact,,x,doubtful,AB,t", "unknown,9,spiral,,x,doubtful,AB,t",
    )  # fmt: skip
    fixed, counts = fix_labels(sources(), [table], CLASSES, test=False)
    assert labels(fixed) == {"g0": 1, "g1": 0, "g5": 0, "g6": 0, "g7": 0}
    assert [source.split for source in fixed] == ["train", "validation", "test"], "a part without images is none"
    assert counts is not None and counts["title"] == "Labels fixed by readers; test labels stay"
    assert counts["rows"] == [["test", 0, 0, 0, 2, 2, 0], ["training and validation", 1, 1, 3, 0, 4, 1]]


def test_test_labels_are_replaced_where_as_many_random_images_were_looked_at(tmp_path: Path):
    doubtful = "g6,7,spiral,,x,doubtful,AB,t"
    table = write(tmp_path / "f.csv", doubtful)
    with pytest.raises(InputError, match="1 test images were looked at as doubtful and 0 at random"):
        fix_labels(sources(), [table], CLASSES, test=True)
    table = write(tmp_path / "f.csv", doubtful, "g7,8,cannot tell,,x,random,AB,t")
    fixed, counts = fix_labels(sources(), [table], CLASSES, test=True)
    assert labels(fixed)["g6"] == 1 and labels(fixed)["g7"] == 0, "a test image is never left out"
    assert counts is not None and "test labels, too" in counts["title"]
    assert counts["rows"][0] == ["test", 1, 0, 0, 1, 1, 1]


def test_readers_who_differ_were_not_sure(tmp_path: Path):
    tables = [
        write(tmp_path / "a.csv", "g0,1,spiral,,x,doubtful,A,t", "g1,2,spiral,,x,doubtful,A,t"),
        write(tmp_path / "b.csv", "g0,1,edge-on,,x,doubtful,B,t", "g1,2,spiral,,x,random,B,t"),
    ]
    fixes = read_fixes(list(map(Path, tables)), CLASSES)
    assert (fixes["g0"].label, fixes["g1"].label, fixes["g1"].random) == (None, 1, True)


def test_of_what_a_reader_saved_twice_the_latest_counts_whichever_table_comes_first(tmp_path: Path):
    first = write(
        tmp_path / "f.csv", "g0,1,spiral,,x,random,A,2026-01-01T10:00", "g1,2,spiral,,x,random,A,2026-01-01T10:01"
    )
    second = write(
        tmp_path / "f (1).csv", "g0,1,edge-on,,x,random,A,2026-01-01T10:05", "g1,2,spiral,,x,random,A,2026-01-01T10:01"
    )
    for tables in ([first, second], [second, first]):
        fixes = read_fixes(list(map(Path, tables)), CLASSES)
        assert (fixes["g0"].label, fixes["g1"].label) == (CLASSES.index("edge-on"), CLASSES.index("spiral"))
    other = write(tmp_path / "b.csv", "g0,1,spiral,,x,random,B,2026-01-01T09:00")
    assert read_fixes([Path(first), Path(second), Path(other)], CLASSES)["g0"].label is None, "two readers differ"


def test_tables_without_names_are_of_different_readers(tmp_path: Path):
    tables = []
    for name, label in (("a", "spiral"), ("b", "edge-on")):
        tables.append(tmp_path / f"{name}.csv")
        tables[-1].write_text(f"id,label,again,drawn\ng0,{label},,random\ng1,spiral,,random\n")
    fixes = read_fixes(tables, CLASSES)
    assert (fixes["g0"].label, fixes["g1"].label) == (None, CLASSES.index("spiral"))


def test_names_that_spreadsheets_take_for_formulas_are_known(tmp_path: Path):
    table = write(tmp_path / "f.csv", "'=g,1,spiral,,x,doubtful,AB,t", "'plain,1,spiral,,x,doubtful,AB,t")
    assert set(read_fixes([Path(table)], CLASSES)) == {"=g", "'plain"}


def test_without_tables_nothing_changes():
    given = sources()
    assert fix_labels(given, [], CLASSES, test=True) == (given, None)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            ["g0,1,barred,,x,doubtful,AB,t"],
            "line 2 has 'barred'; expected a class of the card, cannot tell or artefact",
        ),
        (["g0,1,,,x,doubtful,AB,t"], "line 2 has 'no label'"),
        (["other,1,spiral,,x,doubtful,AB,t"], "none of its 1 ids is an image of the data"),
        ([], "none of its 0 ids"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path: Path, lines: list[str], says: str):
    with pytest.raises(InputError, match=says):
        fix_labels(sources(), [write(tmp_path / "f.csv", *lines)], CLASSES, test=False)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a,b\n1,2\n", "has no column id"), (b"\xff\xfe\0", "is no table of text"), (None, "cannot be read")],
)
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, content: bytes | None, says: str):
    path = tmp_path / "f.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        fix_labels(sources(), [str(path)], CLASSES, test=False)


def test_images_with_several_classes_have_no_one_label(tmp_path: Path):
    item = Item(Path("a.png"), 0, "a", "train", labels=(0, 1))
    source = ImageSource((item,), "train", find_layout("folders"))
    with pytest.raises(InputError, match="images have several classes"):
        fix_labels([source], [write(tmp_path / "f.csv", "a,1,spiral,,x,doubtful,AB,t")], CLASSES, test=False)
