"""Tables of shards as the one table that a single process would have written, with its side-car."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from apps.cli.shared.classification import joint_sha256
from apps.cli.shared.journal import journal_folder, records
from apps.cli.shared.outputs import SIDECAR, Outputs, State, read_sidecar
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from apps.cli.shared.sharding import NoInputs, Shard
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Entries

_ALIKE = ("schema_version", "model", "precision", "engine", "settings", "width")
"""What the side-cars of all parts must say alike."""
_SUMS = ("rows", "classified", "failed", "vectors")
_OF_A_PART = ("shard", "seal", "outputs", "earlier_outputs", "figures")


class Part(NamedTuple):
    """The table of a shard.

    Attributes:
        table: The file.
        content: What its side-car says.
    """

    table: Path
    content: Entries


Join: TypeAlias = Callable[[Path, Sequence[Part], Entries], Entries]
"""Writes the rows of parts, each of which has some, to a path; takes the side-car of all, and returns it completed."""


def merge_tables(output: Path, join: Join, *, overwrite: bool) -> tuple[Entries, int]:
    """Put the tables of all shards together; returns the side-car and the exit code.

    Args:
        output: Table of the whole input.
        join: Writes the rows.
        overwrite: Whether a table that is not ours makes way.

    Raises:
        InputError: a shard is missing or was changed, parts do not belong together, or the table cannot be written.
    """
    parts = _find_parts(output)
    _check_alike(parts)
    outputs = Outputs.table(output, overwrite)
    outputs.check([path for part in parts for path in (part.table, part.table.with_suffix(".json"))])
    filled = [part for part in parts if part.content.get("rows", part.content.get("vectors"))]
    if not filled:
        raise InputError(f"{printable(output)}: no shard could use any of its inputs; see their logs, and give others")
    with outputs.placing() as staged:
        content = join(staged["table"], filled, _merged([part.content for part in parts]))
        content = outputs.finish(staged, content)
    return content, PARTLY_FAILED if content["failed"] else COMPLETE


def check_ended(output: Path) -> None:
    """Make sure that all shards of an array have ended, where notes of one are there.

    Raises:
        InputError: one was killed, failed or never ran.
    """
    known = records(journal_folder(output))
    counts = {shard.count for shard in known}
    if len(counts) > 1:
        raise InputError(
            f"{printable(journal_folder(output))}: has notes of arrays of {_listed(counts)} shards; remove one's"
        )
    for count in counts:
        codes = [known.get(Shard(number, count), {}).get("code") for number in range(1, count + 1)]
        _refuse_missing(output, [n for n, code in enumerate(codes, 1) if code not in (COMPLETE, PARTLY_FAILED)], count)


def _find_parts(output: Path) -> list[Part]:
    """The parts of a table, in the order of their shards."""
    check_ended(output)
    name = re.compile(rf"{re.escape(output.stem)}\.([0-9]{{1,6}})-of-([0-9]{{1,6}}){re.escape(output.suffix)}")
    matches = [name.fullmatch(path.name) for path in output.parent.glob("*-of-*")]
    shards = sorted((Shard(int(match[1]), int(match[2])) for match in matches if match), key=lambda shard: shard.number)
    counts = {shard.count for shard in shards}
    if not shards:
        beside = printable(Shard(1, 10).beside(output).name)
        raise InputError(f"{printable(output)}: has no part beside it; expected tables of shards, such as {beside}")
    if len(counts) > 1:
        raise InputError(f"{printable(output)}: has parts of {_listed(counts)} shards beside it; remove those of one")
    parts = [Part(shard.beside(output), _content(shard.beside(output), shard)) for shard in shards]
    (count,) = counts
    inputs = {part.content["shard"]["inputs"] for part in parts}
    if len(inputs) > 1:
        raise InputError(
            f"{printable(output)}: the shards saw {_listed(inputs)} inputs; repeat all shards over the input as it is"
        )
    there, (number_of_inputs,) = set(shards), inputs
    lacking = [
        n for n in range(1, count + 1) if Shard(n, count) not in there and _has_inputs(n, count, number_of_inputs)
    ]
    _refuse_missing(output, lacking, count)
    return parts


def _content(table: Path, shard: Shard) -> Entries:
    """The side-car of a shard's table."""
    outputs = Outputs.table(table, False)
    states, content = outputs.states(), dict(read_sidecar(outputs.files[SIDECAR]))
    about = content.get("shard")
    if set(states.values()) != {State.ours} or not isinstance(about, dict):
        raise InputError(f"{printable(table)}: is not as its shard wrote it; repeat shard {shard}")
    if (about.get("number"), about.get("count")) != (shard.number, shard.count):
        raise InputError(f"{printable(table)}: is the table of another shard by its side-car; repeat shard {shard}")
    return content


def _has_inputs(number: int, count: int, inputs: int) -> bool:
    try:
        return bool(Shard(number, count).rows(inputs))
    except NoInputs:
        return False


def _refuse_missing(output: Path, numbers: Sequence[int], count: int) -> None:
    if numbers:
        shards = "shard" if len(numbers) == 1 else "shards"
        raise InputError(
            f"{printable(output)}: {shards} {_listed(numbers)} of {count} did not end; repeat with --resume, or each "
            "with --shard"
        )


def _check_alike(parts: Sequence[Part]) -> None:
    """Make sure that parts were made of one input by one model with the same settings."""
    first = parts[0]
    for part in parts[1:]:
        for key in (*_ALIKE, "input"):
            one, other = (_comparable(content, key) for content in (first.content, part.content))
            if one != other:
                keys = sorted(name for name in {**one, **other} if one.get(name) != other.get(name))
                what = key if keys == [key] else f"{key} ({', '.join(keys)})"
                raise InputError(
                    f"{printable(part.table)}: differs from {printable(first.table.name)} in {what}; repeat one of "
                    "them, so that all are alike"
                )


def _comparable(content: Document, key: str) -> Document:
    value = content.get(key)
    if not isinstance(value, dict):
        return {key: value}
    own = key == "input" and "digests" in content["shard"]  # then the digest is that of the part's own files
    return {name: entry for name, entry in value.items() if not (own and name == "sha256")}


def _merged(contents: Sequence[Entries]) -> Entries:
    """The side-car of all parts together, but for what only their rows say."""
    whole = {key: value for key, value in contents[0].items() if key not in _OF_A_PART}
    for key in _SUMS:
        if key in whole:
            whole[key] = sum(content[key] for content in contents)
    if "classes" in whole:
        whole["classes"] = [
            {**rows[0], "count": sum(row["count"] for row in rows)}
            for rows in zip(*(content["classes"] for content in contents), strict=True)
        ]
        names = dict.fromkeys(name for content in contents for name in content["flags"])
        whole["flags"] = {name: sum(content["flags"].get(name, 0) for content in contents) for name in names}
    if "inputs" in whole:
        whole["inputs"] = [entry for content in contents for entry in content["inputs"]]
    if all("digests" in content["shard"] for content in contents):
        digests = [bytes.fromhex(digest) for content in contents for digest in content["shard"]["digests"]]
        whole["input"] = {**whole["input"], "sha256": joint_sha256(digests)}
        whole["case"] = f"case-{whole['input']['sha256'][:8]}"
    whole["created"] = max(content["created"] for content in contents)
    whole["device"] = ", ".join(dict.fromkeys(content["device"] for content in contents))
    whole["warnings"] = joined_warnings([content["warnings"] for content in contents])
    if any(content["versions"] != whole["versions"] for content in contents):
        whole["warnings"].append("shards were made with different versions of packages; those of the first are named")
    return whole


def joined_warnings(lists: Sequence[Sequence[str]]) -> list[str]:
    """Each warning once; those with which all lists end stay at the end."""
    common = 0
    while all(len(warnings) > common for warnings in lists) and len({warnings[-1 - common] for warnings in lists}) == 1:
        common += 1
    heads = [warning for warnings in lists for warning in warnings[: len(warnings) - common]]
    return list(dict.fromkeys([*heads, *lists[0][len(lists[0]) - common :]]))


def _listed(numbers: Sequence[int] | set[int]) -> str:
    """Numbers as a line has them, not all of many."""
    texts = [str(number) for number in sorted(numbers)]
    return ", ".join(texts) if len(texts) <= 20 else f"{', '.join(texts[:20])} and {len(texts) - 20} more"
