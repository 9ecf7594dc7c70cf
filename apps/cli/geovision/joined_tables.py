"""Tables of shards of `geovision classify` and `geovision embed` in one."""

from collections.abc import Sequence
from pathlib import Path

from apps.cli.shared.classified_images import table_meta
from apps.cli.shared.joined_rows import join_rows
from apps.cli.shared.merging import Part
from geovision.embedding import join_embeddings
from shared_backbones.json_values import Entries


def join_tables(path: Path, parts: Sequence[Part], content: Entries) -> Entries:
    """Write the rows of all parts; returns the side-car.

    Raises:
        InputError: parts have different columns, or the table cannot be written.
    """
    tables = [part.table for part in parts]
    if "vectors" in content:
        join_embeddings(path, tables)
    else:
        join_rows(path, tables, table_meta(content))
    return content
