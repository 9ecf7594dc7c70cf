"""`medvision review collect`: verdicts meet their reports, whatever else lies in the folders."""

import csv
import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.cli.shared import program
from pipelines.report.verdicts import COLUMNS, collect_reviews
from tests.apps.conftest import Outcome

Collect = Callable[..., Outcome]


def identity(case: int, content: int) -> dict[str, str]:
    sha256 = f"{content:08x}" * 8
    return {"id": f"case-{case:08x}-{sha256[:8]}", "sha256": sha256}


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def put_report(path: Path, case: int, content: int, flags: int = 0) -> Path:
    model = {"name": "=balls", "version": "1.0"}
    return put(
        path, {"case": f"case-{case:08x}", "report": identity(case, content), "flags": [{}] * flags, "model": model}
    )


def verdict(
    case: int, content: int, given: str = "accept", at: str = "2026-01-02T03:04:05.678Z", **more: Any
) -> dict[str, Any]:
    return {"schema_version": 1, "report": identity(case, content), "verdict": given, "created": at, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four reports: reviewed twice, open, made again since its verdict, with a forged verdict; and a stray verdict."""
    put_report(tmp_path / "a" / "one_seg.json", 1, 11, flags=2)
    put(
        tmp_path / "verdicts" / "x_review.json",
        verdict(1, 11, "reject", "2026-01-02T04:00:00+02:00", comment="early", reviewer="ab"),
    )
    put(
        tmp_path / "verdicts" / "x (1)_review.json",
        verdict(1, 11, "needs_work", comment="=HYPERLINK(1)", reviewer="AB"),
    )
    put_report(tmp_path / "a" / "two_seg.json", 2, 22)
    put_report(tmp_path / "b" / "three_seg.json", 3, 33)
    put(tmp_path / "verdicts" / "y_review.json", verdict(3, 34))
    put_report(tmp_path / "b" / "four_seg.json", 4, 44)
    forged = verdict(4, 44)
    forged["report"]["sha256"] = forged["report"]["sha256"][:-1] + "0"
    put(tmp_path / "verdicts" / "z_review.json", forged)
    put(tmp_path / "verdicts" / "w_review.json", verdict(5, 55))
    return tmp_path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_latest_verdict_counts_and_what_matches_nothing_is_listed(medvision: Collect, folder: Path):
    done = medvision("review", "collect", folder, "-o", folder / "t.csv")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("t.csv: 4 reports, 3 open, 0 accept, 1 needs work, 0 reject, 0 disagree, 3 orphan\n")
    rows = table(folder / "t.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["report_id"][5:13], row["state"], row["verdict"]) for row in rows] == [
        ("00000001", "reviewed", "needs_work"),
        ("00000002", "open", ""),
        ("00000003", "open", ""),
        ("00000004", "open", ""),
        ("00000003", "orphan", "accept"),
        ("00000004", "orphan", "accept"),
        ("00000005", "orphan", "accept"),
    ]
    first = rows[0]
    assert (first["comment"], first["reviewer"], first["verdicts"], first["flags"]) == (
        "'=HYPERLINK(1)",
        "AB",
        "2",
        "2",
    )
    assert first["model"] == "'=balls 1.0" and first["reviewed_at"] == "2026-01-02T03:04:05+00:00"
    assert [row["note"] for row in rows[4:]] == [
        "the report of this case was made again since, with another result",
        "the report of this number has another content hash",
        "no report of this case is here",
    ]


def test_all_forms_of_the_table_hold_the_same(medvision: Collect, folder: Path):
    from pyarrow import parquet

    printed = json.loads(medvision("review", "collect", folder, "-o", folder / "t.parquet", "--json").out)
    collect = ("review", "collect", folder / "a", folder / "b", folder / "verdicts", folder)
    assert medvision(*collect, "-o", folder / "u.json").code == 0
    rows = json.loads((folder / "u.json").read_text())
    assert {path.name for path in folder.glob("[tu].*")} == {"t.parquet", "t.json", "u.json", "u.json.json"}
    assert rows == printed["rows"] == parquet.read_table(folder / "t.parquet").to_pylist()
    assert rows[0]["comment"] == "=HYPERLINK(1)" and rows[1]["verdict"] is None


def test_a_report_of_the_program_is_found(medvision: Collect, segment: Collect, scan: Path):
    assert segment(scan).code == 0
    report = json.loads((scan.parent / "scan_seg.json").read_text())["report"]
    page = (scan.parent / "scan_report.html").read_text()
    assert f'data-report="{report["id"]}" data-sha256="{report["sha256"]}"' in page
    put(scan.parent / "v_review.json", {"report": report, "verdict": "accept", "created": "2026-01-02T03:04:05Z"})
    assert medvision("review", "collect", scan.parent, "-o", scan.parent / "t.csv").code == 0
    (row,) = table(scan.parent / "t.csv")
    assert (row["state"], row["verdict"]) == ("reviewed", "accept")
    first = report
    assert segment(scan, "--labels", "1,2").code == 0
    assert json.loads((scan.parent / "scan_seg.json").read_text())["report"] != first, "other labels, other report"


def test_two_scans_of_equal_content_are_two_rows_and_a_copied_folder_is_none(
    medvision: Collect, segment: Collect, scan: Path, tmp_path: Path
):
    twin = shutil.copy(scan, scan.with_name("twin.nii.gz"))
    output = tmp_path / "out"
    assert segment(scan.parent, "-o", output).code == 0
    report = json.loads((output / "scan_seg.json").read_text())["report"]
    assert json.loads((output / "twin_seg.json").read_text())["report"] == report
    shutil.copy(output / "scan_seg.json", output / "twin_seg.json")  # as where both took equally long
    shutil.copytree(output, tmp_path / "copy")
    put(output / "v_review.json", {"report": report, "verdict": "accept", "created": "2026-01-02T03:04:05Z"})
    done = medvision("review", "collect", output, tmp_path / "copy", "-o", tmp_path / "t.csv")
    assert (done.code, done.err) == (0, "")
    rows = table(tmp_path / "t.csv")
    assert [Path(row["report_file"]).name for row in rows] == ["scan_seg.json", f"{Path(twin).name[:4]}_seg.json"]
    assert {(row["state"], row["verdict"], row["note"]) for row in rows} == {
        ("reviewed", "accept", "one of 2 of equal content")
    }


NAMES = ["x_review.json", "x_review (1).json", "x_review(2).json", "x_review - Copy.JSON", "download.json", "é.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_corrected_verdict_is_found_whatever_the_browser_called_it(medvision: Collect, tmp_path: Path, name: str):
    put_report(tmp_path / "one_seg.json", 1, 11)
    put(tmp_path / "a_review.json", verdict(1, 11, "reject", "2026-01-01T00:00:00Z"))
    put(tmp_path / name, verdict(1, 11, "accept", "2026-01-02T00:00:00Z"))
    assert medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv").code == 0
    (row,) = table(tmp_path / "t.csv")
    assert (row["verdict"], row["verdicts"]) == ("accept", "2")


def test_what_looks_like_a_verdict_and_is_not_taken_is_said_and_other_files_are_left_alone(
    medvision: Collect, tmp_path: Path
):
    put_report(tmp_path / "one_seg.json", 1, 11)
    unfinished = put(tmp_path / f"{identity(1, 11)['id']}_review.json.part", "{")
    listed = put(tmp_path / f"reviews-{1:08x}-AB.json", {"verdicts": [verdict(1, 11), 5]})
    put(tmp_path / "other.json", {"verdicts": [1, 2], "note": "not ours"})
    put(tmp_path / "broken.json", '{"verdict": ')
    put(tmp_path / "team_reviews.csv", "a,b")
    done = medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv")
    assert done.code == 5 and done.err.count("\n") == 2
    assert f"{unfinished}: looks like a verdict, but is not taken" in done.err and f"{listed}: its verdicts" in done.err


def test_a_file_of_many_verdicts_is_as_many_rows_and_a_verdict_can_be_taken_back(medvision: Collect, tmp_path: Path):
    for case in range(1, 61):
        put_report(tmp_path / f"{case}_seg.json", case, case)
    saved = [verdict(case, case, reviewer="AB", seconds=2.5, structures={"cortex": "fix"}) for case in range(1, 61)]
    put(tmp_path / "r.json", {"schema_version": 2, "verdicts": saved})
    later = verdict(60, 60, "open", "2026-01-03T00:00:00Z", reviewer="AB")
    put(tmp_path / "later.json", {"schema_version": 2, "verdicts": [later]})
    assert medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv").code == 0
    rows = table(tmp_path / "t.csv")
    assert [row["state"] for row in rows] == ["reviewed"] * 59 + ["open"]
    assert (rows[0]["structures"], rows[0]["seconds"]) == ("cortex: fix", "2.5")


@pytest.mark.parametrize(
    ("rule", "consensus"),
    [(None, "disagree"), ("worst", "reject"), ("majority", "accept"), ("adjudicator:cd", "reject"),
     ("adjudicator:XY", "disagree")],
)  # fmt: skip
def test_readers_who_disagree_are_a_row_each_and_a_rule_decides(
    medvision: Collect, tmp_path: Path, rule: str | None, consensus: str
):
    put_report(tmp_path / "one_seg.json", 1, 11)
    for reader, judged in (("AB", "accept"), ("CD", "reject"), ("EF", "accept")):
        put(tmp_path / f"{reader}.json", verdict(1, 11, judged, reviewer=reader, comment=f"by {reader}"))
    asked = () if rule is None else ("--consensus", rule)
    done = medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv", "--json", *asked)
    rows = table(tmp_path / "t.csv")
    assert [(row["reviewer"], row["verdict"], row["comment"]) for row in rows] == [
        ("AB", "accept", "by AB"), ("CD", "reject", "by CD"), ("EF", "accept", "by EF")
    ]  # fmt: skip
    assert {row["consensus"] for row in rows} == {consensus}
    counts = json.loads(done.out)["counts"]
    assert (counts["reports"], counts["open"], counts[consensus]) == (1, 0, 1)


def test_an_unknown_rule_is_refused(medvision: Collect, tmp_path: Path):
    done = medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv", "--consensus", "adjudicator:")
    assert done.code == 2 and "expected worst, majority or adjudicator:NAME" in done.error


def test_a_copied_folder_that_another_program_wrote_anew_is_no_second_report(medvision: Collect, tmp_path: Path):
    report = put_report(tmp_path / "a" / "one_seg.json", 1, 11)
    put(tmp_path / "b" / "one_seg.json", json.dumps(json.loads(report.read_text()), indent=1))
    put_report(tmp_path / "a" / "two_seg.json", 2, 22)
    shutil.copytree(tmp_path / "a", tmp_path / "backup" / "reports")
    assert medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv").code == 0
    assert len(table(tmp_path / "t.csv")) == 2


def test_every_program_collects_verdicts_on_reports_of_every_kind(tmp_path: Path):
    put_report(tmp_path / "a" / "one_seg.json", 1, 11)
    put_report(tmp_path / "b" / "robustness.json", 1, 12)
    trained = {"id": f"model-{7:08x}-{'0000000d'}", "sha256": f"{13:08x}" * 8}
    put(tmp_path / "c" / "report.json", {"case": "model-00000007", "report": trained, "model": {"name": "m"}})
    for number, saved in enumerate((verdict(1, 11), verdict(1, 12), verdict(1, 13) | {"report": trained})):
        put(tmp_path / "v" / f"{number}_review.json", saved)
    put(tmp_path / "c" / "other_report.json", "{}")  # no report of ours
    tables = []
    for name in ("medvision", "geovision", "astrovision"):
        app = importlib.import_module(f"apps.cli.{name}.program").app
        assert program.run(app, ["review", "collect", str(tmp_path), "-o", str(tmp_path / "t.csv"), "-q"]) == 0
        tables.append(table(tmp_path / "t.csv"))
    assert tables[0] == tables[1] == tables[2]
    assert [(row["case"], row["kind"], row["state"]) for row in tables[0]] == [
        ("case-00000001", "segmentation", "reviewed"),
        ("case-00000001", "robustness", "reviewed"),
        ("model-00000007", "training", "reviewed"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not JSON"),
        ("[" * 9_000_000, "larger than 8 MB"),
        ("[" * 60_000, "is not JSON"),
        ("9" * 5_000, "is not JSON"),
        ("[1]", "contains a list"),
        ("{}", "its report.id is null"),
        ({**verdict(1, 11), "report": {"id": "../../etc", "sha256": "0" * 64}}, 'its report.id is "../../etc"'),
        ({**verdict(1, 11), "report": {"id": identity(1, 11)["id"], "sha256": 5}}, "its report.sha256 is 5"),
        (verdict(1, 11, "maybe"), 'its verdict is "maybe"; expected accept or needs_work or reject'),
        (verdict(1, 11, comment=["x"]), "its comment is something else"),
        (verdict(1, 11, comment="x" * 4001), "at most 4000 characters"),
        (verdict(1, 11, at="yesterday\u001b[2J"), r'its created is "yesterday\u001b[2J"'),
        (verdict(1, 11, at="2026-01-02T03:04:05"), "a date and time with its zone"),
        (verdict(1, 11, at="0001-01-01T00:00:00+14:00"), "a date and time with its zone"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_verdict_is_one_line_and_the_rest_counts(
    medvision: Collect, folder: Path, content: Any, says: str
):
    bad = put(folder / "bad_review.json", content)
    done = medvision("review", "collect", folder, "-o", folder / "t.csv")
    assert done.code == 5
    assert done.error.startswith(f"error: {bad}: ") and says in done.error
    assert len(table(folder / "t.csv")) == 7


def test_what_is_no_file_is_not_opened(medvision: Collect, folder: Path):
    os.mkfifo(folder / "pipe_review.json")
    (folder / "gone_review.json").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder)
    done = medvision("review", "collect", folder, "-o", folder / "t.csv", "-q")
    assert done.code == 5 and done.out == ""
    assert "not a regular file" in done.err and "cannot be read" in done.err and done.err.count("\n") == 2


def test_a_sidecar_of_an_earlier_version_says_what_to_do(medvision: Collect, tmp_path: Path):
    put(tmp_path / "old_seg.json", {"case": "case-00000001"})
    done = medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv")
    assert done.code == 5 and "make it again" in done.error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere", "-o", "t.csv"), "no such folder"),
        ((".", "-o", "t.xlsx"), "expected .csv, .parquet, .json"),
        ((".", "-o", "a_review.json"), "would be read as a verdict"),
        ((".", "-o", "report.json"), "would be read as a verdict or report"),
        (
            (".", "-o", "t.csv"),
            "contains no *_seg.json, *_dseg.json, robustness.json, report.json, *_report.json and no verdict",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(medvision: Collect, tmp_path: Path, monkeypatch, arguments, says: str):
    monkeypatch.chdir(tmp_path)
    done = medvision("review", "collect", *arguments)
    assert done.code == 2 and says in done.error
    assert list(tmp_path.iterdir()) == []


def test_a_run_gets_counts_and_a_table_without_names(medvision: Collect, folder: Path, tmp_path: Path, monkeypatch):
    from mlflow import MlflowClient

    from pipelines.tracking import runs, stores

    uri = f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    stores.open_store(uri)
    with runs.start_run(
        "medvision", "run", uri=uri, parameters={}, tags={}, datasets=[], spool=tmp_path / "spool", system_metrics=False
    ) as run:
        pass
    put(folder / "p_review.json", verdict(2, 22, comment="see /scans/jane/scan.nii.gz", reviewer="JD"))
    assert (
        medvision("review", "collect", folder, "-o", folder / "t.csv", "--log-to-run", run.run_id, "--comments").code
        == 0
    )
    noted = MlflowClient(uri).get_run(run.run_id)
    metrics = {name: value for name, value in noted.data.metrics.items() if name.startswith("review.")}
    assert metrics.items() >= {
        "review.reports": 4, "review.open": 2, "review.accept": 1, "review.needs_work": 1, "review.reject": 0,
        "review.disagree": 0, "review.orphan": 3, "review.readers": 2, "review.accept_share": 0.5,
    }.items()  # fmt: skip
    assert "review.auc_flags" not in metrics, "there is no reject"
    assert noted.info.status == "FINISHED"
    kept = Path(MlflowClient(uri).download_artifacts(run.run_id, "review/reviews.csv", str(tmp_path)))
    text = kept.read_text()
    assert len(table(kept)) == 7 and "'=HYPERLINK(1)" in text and "see [path left out]" in text
    assert not any(name in text for name in ("AB", "JD", "jane", "one_seg", "x (1)", str(tmp_path)))
    assert medvision("review", "collect", folder, "-o", folder / "q.csv", "--log-to-run", run.run_id).code == 0
    kept = Path(MlflowClient(uri).download_artifacts(run.run_id, "review/reviews.csv", str(tmp_path)))
    assert "comment" not in kept.read_text() and "HYPERLINK" not in kept.read_text(), "comments only on request"
    put(folder / "both.json", {"verdicts": [
        verdict(case, content, given, "2026-02-02T00:00:00Z", reviewer=reader)
        for case, content, *judged in ((1, 11, "accept", "accept"), (2, 22, "reject", "needs_work"))
        for reader, given in zip(("AB", "JD"), judged, strict=True)
    ]})  # fmt: skip
    assert medvision("review", "collect", folder, "-o", folder / "two.csv", "--log-to-run", run.run_id).code == 0
    metrics = MlflowClient(uri).get_run(run.run_id).data.metrics
    assert (metrics["review.readers"], metrics["review.judged_twice"], metrics["review.alike"]) == (2, 2, 0.5)
    assert {f"review.{figure}{end}" for figure in ("alike", "kappa", "alpha") for end in ("", "_low", "_high")} <= {
        *metrics
    }
    assert metrics["review.kappa"] == pytest.approx(2 / 3), "apart by 1 of 3 by chance"
    done = medvision("review", "collect", folder, "-o", folder / "u.csv", "--log-to-run", "0" * 32)
    assert done.code == 2 and "run " + "0" * 32 + ": not in sqlite:///" in done.error


def test_verdict_files_of_every_version_stay_valid(medvision: Collect, tmp_path: Path):
    """Files as the pages of each version saved them: one a verdict, then one a batch, then with marks in mm."""
    for case in (1, 2, 3):
        put_report(tmp_path / f"{case}_seg.json", case, 10 + case)
    about = [{"id": f"case-0000000{case}-0000000{letter}", "sha256": f"0000000{letter}" * 8}
             for case, letter in ((1, "b"), (2, "c"), (3, "d"))]  # fmt: skip
    first = {"schema_version": 1, "case": "case-00000001", "report": about[0], "verdict": "needs_work",
             "comment": "leaks", "reviewer": "ab", "created": "2026-01-02T03:04:05.678Z"}  # fmt: skip
    put(tmp_path / "one_review.json", first)
    second = {"schema_version": 2, "case": "case-00000002", "report": about[1], "verdict": "reject", "cause": "scan",
              "comment": "", "reviewer": "AB", "created": "2026-01-02T03:04:05.678Z", "seconds": 3.2,
              "structures": {"core": "fix"},
              "marks": [{"plane": "axial", "position": "S 1.0 mm", "word": "here", "x": 0.5, "y": 0.25}]}  # fmt: skip
    third = second | {"report": about[2], "case": "case-00000003", "cause": ""}
    third["marks"] = [second["marks"][0] | {"mm": [1.5, -2.25, 1.0]}]
    put(tmp_path / "two.json", {"schema_version": 2, "batch": "0" * 16, "reviewer": "AB", "verdicts": [second, third]})
    done = medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv")
    assert (done.code, done.err) == (0, "")
    rows = table(tmp_path / "t.csv")
    assert [(row["verdict"], row["cause"], row["reviewer"]) for row in rows] == [
        ("needs_work", "", "ab"), ("reject", "scan", "AB"), ("reject", "", "AB")
    ]  # fmt: skip
    assert rows[1]["marks"] == rows[2]["marks"] == "axial S 1.0 mm (0.500, 0.250): here"


@pytest.mark.parametrize("mm", [[1, 2], ["1", 2, 3], [1, 2, float("nan")], [1, 2, 1e300], "1 2 3", [True, 0, 0]])
def test_a_mark_that_is_nowhere_is_one_line(medvision: Collect, tmp_path: Path, mm: Any):
    put_report(tmp_path / "one_seg.json", 1, 11)
    mark = {"plane": "axial", "position": "S 1.0 mm", "word": "here", "x": 0.5, "y": 0.25, "mm": mm}
    put(tmp_path / "a_review.json", verdict(1, 11, marks=[mark]))
    done = medvision("review", "collect", tmp_path, "-o", tmp_path / "t.csv")
    assert done.code == 5 and "expected mm as three numbers" in done.error


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda more: st.lists(more) | st.dictionaries(st.text(), more),
    max_leaves=5,
)


@given(
    changed=st.dictionaries(st.sampled_from(["report", "verdict", "comment", "reviewer", "created"]), json_values),
    text=st.text(st.characters(exclude_categories=())),
)
@settings(max_examples=30)
def test_any_json_is_a_row_or_a_line(tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any], text: str):
    folder = tmp_path_factory.mktemp("any")
    put(
        folder / "a_review.json",
        verdict(1, 11, **{"comment": text[:4000], **changed}) if changed else verdict(1, 11, comment=text),
    )
    found = collect_reviews([folder])
    assert len(found.rows) + len(found.problems) == 1
    for row in found.rows:
        json.dumps(row, ensure_ascii=False).encode()
    assert not any("\n" in problem for problem in found.problems)
