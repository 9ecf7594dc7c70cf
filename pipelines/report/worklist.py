"""A blinded reading: a shell for one reader over some reports of a batch, which shows nobody's verdicts."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2.utils import htmlsafe_json_dumps

from pipelines.report.page import render_page
from pipelines.report.sections import Cell, Column, Embedded, Page, Section, Table, Text
from pipelines.report.text import rows_at, value_at
from pipelines.report.thumbnails import thumbnail
from pipelines.report.verdict_files import Identity, read_identity
from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.files import printable

INDEX = "index.json"
_LINK = re.compile(r"(?:reports/)?case-[0-9a-f]{8}[\w.-]{0,99}\.html")
_MOST_PICTURES = 300


@dataclass(frozen=True)
class Entry:
    """A report of a batch, and where its page lies, seen from the batch's folder."""

    about: Identity
    link: str


def read_batch(folder: Path) -> list[Entry]:
    """Reports of a batch's index, each once, in the order of their numbers.

    Raises:
        InputError: there is no index, none of its reports is there, or it is none of ours.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{printable(folder)}: contains no {INDEX}; expected the results of a folder of scans")
    entries = {}
    for row in rows_at(read_json(path), "cases"):
        link = value_at(row, "report")
        if link is None or row.get("report_id") is None:
            continue  # failed, or made without a number
        about = read_identity(path, {"report": {"id": row["report_id"], "sha256": row.get("report_sha256")}})
        if not isinstance(link, str) or not _LINK.fullmatch(link):
            raise InputError(f"{printable(path)}: names a report that is not beside it; make the index again")
        if (folder / link).is_file():
            entries[about] = Entry(about, link)
    if not entries:
        raise InputError(f"{printable(path)}: none of its reports is there; make them again, or give another folder")
    return sorted(entries.values(), key=lambda entry: (entry.about.number, entry.about.sha256))


def draw(entries: Sequence[Entry], judged: Collection[Identity], overlap: float, seed: int) -> tuple[list[Entry], int]:
    """What a further reader is given, in random order, and how much of it others have judged.

    It is all that nobody else has judged, and of the rest the fraction `overlap`, but at least one where that is not 0.
    The draw depends on nothing but the arguments, and not on their order.
    """
    known = sorted((entry for entry in entries if entry.about in judged), key=lambda entry: entry.about.number)
    generator = np.random.default_rng(seed)
    count = min(len(known), max(round(overlap * len(known)), int(overlap > 0)))
    drawn = [known[place] for place in generator.permutation(len(known))[:count]]
    chosen = [*drawn, *(entry for entry in entries if entry.about not in judged)]
    chosen.sort(key=lambda entry: entry.about.number)
    return [chosen[place] for place in generator.permutation(len(chosen))], count


def worklist_page(entries: Sequence[Entry], reader: str, folder: Path) -> str:
    """The shell over some reports, in their order, for one reader; nothing of it tells what others or flags say.

    Args:
        entries: The reports.
        reader: Short name of the reader.
        folder: Folder of the batch, in which the page has to lie.
    """
    texts = {
        entry.about.case: (folder / entry.link).read_text(encoding="utf-8", errors="replace")
        for entry in entries[:_MOST_PICTURES]
    }
    pictures = {case: thumbnail(text) for case, text in texts.items()}
    known = sorted(f"{entry.about.number} {entry.about.sha256}" for entry in entries)
    data = {
        "batch": hashlib.sha256("\n".join([reader, *known]).encode()).hexdigest()[:16],
        "only": reader,
        "cases": [
            {"case": entry.about.case, "id": entry.about.number, "sha256": entry.about.sha256, "report": entry.link,
             "confidence": None, "flags": []}
            for entry in entries
        ],
    }  # fmt: skip
    page = Page(
        title="Blinded reading",
        kind="Blinded reading",
        heading=f"{len(entries)} report{'' if len(entries) == 1 else 's'} for {reader}",
        lead="In random order. What others said of them is not in this page.",
        sections=[_cases(entries, pictures)],
        footer="The page loads nothing but the reports beside it; its one script shows these and keeps verdicts.",
        embedded=[Embedded("shell-data", "application/json", htmlsafe_json_dumps(data))],
    )
    return render_page(page, styles=["verdict.css", "shell.css"], script="shell.js", bar="shell")


def _cases(entries: Sequence[Entry], pictures: Mapping[str, str | None]) -> Section:
    columns = [Column("Place", numeric=True, sort="number"), Column("Slice"), Column("Case", sort="text")]
    rows = [
        [
            Cell(str(place), sort=str(place)),
            Cell(picture=pictures.get(entry.about.case) or "", link=entry.link),
            Cell(entry.about.case, link=entry.link, sort=entry.about.case),
        ]
        for place, entry in enumerate(entries, 1)
    ]
    text = Text("Flags and confidence are in the reports; read the pictures first.", small=True)
    return Section("cases", "Reports", [text, Table(columns, rows, header=2)])
