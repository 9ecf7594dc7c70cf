"""Outputs replace what the program wrote, and nothing else."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.cli.shared.outputs import SIDECAR, Outputs, State, backup_of, check_outputs, place_text, sealed
from shared_backbones.errors import InputError


def outputs_in(folder: Path, *kinds: str, overwrite: bool = False) -> Outputs:
    return Outputs({SIDECAR: folder / "a.json", **{kind: folder / f"a.{kind}" for kind in kinds}}, overwrite)


def write(outputs: Outputs, text: str) -> dict:
    """What a command does."""
    outputs.check()
    with outputs.placing() as staged:
        for kind, path in staged.items():
            if kind != SIDECAR:
                path.write_text(f"{text} {kind}")
        return outputs.finish(staged, {"input": {"sha256": text}, "figure": 0.1 + 0.2})


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_we_wrote_is_replaced(tmp_path: Path):
    outputs = outputs_in(tmp_path, "csv", "html")
    assert set(outputs.states().values()) == {State.absent}
    content = write(outputs, "one")
    assert content == json.loads((tmp_path / "a.json").read_text()) == sealed(content)
    assert set(outputs.states().values()) == {State.ours}
    write(outputs, "two")
    assert contents(tmp_path).keys() == {"a.json", "a.csv", "a.html"}
    assert (tmp_path / "a.csv").read_text() == "two csv"


def test_files_of_an_earlier_run_with_more_outputs_stay_ours(tmp_path: Path):
    write(outputs_in(tmp_path, "csv", "html"), "one")
    write(outputs_in(tmp_path, "csv"), "two")
    write(outputs_in(tmp_path, "csv"), "three")
    assert outputs_in(tmp_path, "csv", "html").states()["html"] is State.earlier
    write(outputs_in(tmp_path, "csv", "html"), "four")
    assert (tmp_path / "a.html").read_text() == "four html"


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
@pytest.mark.parametrize("written", [False, True])
def test_what_is_foreign_or_changed_is_refused_or_kept(tmp_path: Path, name: str, written: bool):
    if written:
        write(outputs_in(tmp_path, "csv", "html"), "one")
        text = (tmp_path / name).read_text().replace("one", "mine")
    else:
        text = "mine"
    (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    why = "was changed since this program wrote it" if written else "was not written by this program"
    with pytest.raises(InputError) as refused:
        write(outputs_in(tmp_path, "csv", "html"), "two")
    assert str(refused.value) == (
        f"{tmp_path / name}: is there and {why}; choose another place with -o, or --overwrite, which keeps it as "
        f"{name}.bak"
    )
    assert contents(tmp_path) == before
    for number in ("", "2"):
        write(outputs_in(tmp_path, "csv", "html", overwrite=True), "two")
        assert (tmp_path / f"{name}.bak{number}").read_text() == text
        assert set(outputs_in(tmp_path, "csv", "html").states().values()) == {State.ours}
        (tmp_path / name).write_text(text)


def test_a_side_car_that_lies_about_itself_is_none(tmp_path: Path):
    """Some JSON of somebody's that lists a digest does not make a file ours."""
    write(outputs_in(tmp_path, "csv"), "one")
    listed = json.loads((tmp_path / "a.json").read_text())
    del listed["seal"]
    (tmp_path / "a.json").write_text(json.dumps(listed))
    assert set(outputs_in(tmp_path, "csv").states().values()) == {State.foreign}


def test_links_and_inputs_are_known_by_what_they_are(tmp_path: Path):
    source = tmp_path / "source"
    source.write_text("scan")
    os.link(source, tmp_path / "a.csv")
    with pytest.raises(InputError, match="would replace it, and it is an input"):
        outputs_in(tmp_path, "csv", overwrite=True).check([tmp_path / "absent", source])
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.csv").symlink_to("nowhere")
    with pytest.raises(InputError, match="was not written by this program"):
        write(outputs_in(tmp_path, "csv"), "one")
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        outputs_in(tmp_path, "csv", overwrite=True).check()


def test_all_that_is_in_the_way_is_counted(tmp_path: Path):
    results = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("mine")
        results.append(outputs_in(tmp_path / name, "csv"))
    with pytest.raises(InputError, match=r"a/a.csv: is there and was not written by this program \(and 1 more\)"):
        check_outputs(results)


def test_a_name_that_is_taken_while_we_work_is_not_replaced(tmp_path: Path):
    outputs = outputs_in(tmp_path, "csv")
    with pytest.raises(InputError, match="was not written by this program"), outputs.placing() as staged:
        staged["csv"].write_text("ours")
        outputs.finish(staged, {})
        (tmp_path / "a.csv").write_text("mine")
    assert contents(tmp_path) == {"a.csv": "mine"}


def test_a_run_that_is_killed_between_two_moves_is_made_again(tmp_path: Path):
    outputs, moves = outputs_in(tmp_path, "csv", "html"), 5  # the side-car's, and two of each other file
    for last in range(-1, moves - 1):
        with pytest.MonkeyPatch.context() as patch:
            write(outputs, "one")
            real, count = os.replace, iter(range(moves + 1))

            def killed(source, target, last=last, real=real, count=count):
                if next(count) > last:
                    raise SystemExit
                real(source, target)

            patch.setattr(os, "replace", killed)
            patch.setattr("contextlib.ExitStack.callback", lambda *arguments, **options: None)  # nothing is undone
            with pytest.raises(SystemExit):
                write(outputs, "two")
        assert outputs.standing(lambda sidecar: sidecar["input"]["sha256"] == "two") is None
        write(outputs, "three")
        assert (tmp_path / "a.html").read_text() == "three html"
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_finished_result_is_known_and_what_was_changed_is_named(tmp_path: Path):
    outputs = outputs_in(tmp_path, "csv", "html")

    def standing(text: str) -> list[Path] | None:
        return outputs.standing(lambda sidecar: sidecar["input"]["sha256"] == text)

    assert standing("one") is None
    write(outputs, "one")
    assert standing("one") == [] and standing("two") is None
    (tmp_path / "a.csv").write_text("corrected")
    assert standing("one") == [tmp_path / "a.csv"] and standing("two") is None
    (tmp_path / "a.html").unlink()
    assert standing("one") is None


def test_a_file_that_follows_from_what_it_is_about_may_be_written_again(tmp_path: Path):
    path = tmp_path / "labels.txt"
    for _ in range(2):
        place_text(path, "1 a\n", overwrite=False)
    with pytest.raises(InputError, match=r"--overwrite, which keeps it as labels\.txt\.bak$"):
        place_text(path, "2 b\n", overwrite=False)
    assert path.read_text() == "1 a\n"
    place_text(path, "2 b\n", overwrite=True)
    assert contents(tmp_path) == {"labels.txt": "2 b\n", "labels.txt.bak": "1 a\n"}
    assert backup_of(path).name == "labels.txt.bak2"


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["run", "overwrite", "fewer", "edit", "delete", "fail"]),
        st.sampled_from(["csv", "html", SIDECAR]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(actions=ACTIONS)
def test_nothing_that_a_user_wrote_is_ever_lost(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str]]
):
    """Whatever runs and edits follow one another, every text of the user's is there until the user deletes it."""
    folder = tmp_path_factory.mktemp("outputs")
    theirs: dict[str, str] = {}  # text by the name where it lies
    for number, (action, kind) in enumerate(actions):
        outputs = outputs_in(folder, "csv", "html", overwrite=action == "overwrite")
        target = outputs.files[kind]
        if action == "edit":
            target.write_text(f'{{"seal": "mine {number}"}}')
            theirs[target.name] = target.read_text()
        elif action == "delete":
            target.unlink(missing_ok=True)
            theirs.pop(target.name, None)
        elif action == "fail":
            before = contents(folder)
            with pytest.raises((ZeroDivisionError, InputError)), outputs.placing() as staged:
                staged["csv"].write_text("half")
                raise ZeroDivisionError
            assert contents(folder) == before
        else:
            before, blocked = contents(folder), set(theirs) & {path.name for path in outputs.files.values()}
            outputs = outputs_in(folder, "csv", overwrite=outputs.overwrite) if action == "fewer" else outputs
            try:
                write(outputs, f"run {number}")
            except InputError:
                assert action != "overwrite" and contents(folder) == before
            else:
                if action == "overwrite":
                    for name in blocked:
                        kept = next(n for n, text in contents(folder).items() if text == theirs[name])
                        theirs[kept] = theirs.pop(name)
        assert theirs.items() <= contents(folder).items()
        assert not list(folder.glob(".*"))
