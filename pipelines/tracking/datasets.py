"""What a run notes about its data: a digest, counts and a schema, and no path."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared_backbones.json_values import Json

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput


@dataclass(frozen=True)
class DatasetRecord:
    """What a run notes about a data set.

    Attributes:
        name: Name that MLflow shows.
        digest: Digest of its content, at most 36 characters.
        context: Use of it, `train`, `validation` or `test`.
        profile: Counts, by name.
        fields: Type and shape of each field, such as `float32 (1, -1, -1)`, where -1 differs between items.
    """

    name: str
    digest: str
    context: str
    profile: Mapping[str, Json] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


def as_input(record: DatasetRecord, source: Mapping[str, str]) -> "DatasetInput":
    """A record as MLflow keeps it.

    Args:
        record: The record.
        source: Tags of the program that reads the data; they stand in for the data's address, which is private.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    # Of the forms of a schema, MLflow shows only that of a table, row by row.
    columns = [{"name": name, "type": kind, "required": True} for name, kind in record.fields.items()]
    dataset = Dataset(
        record.name,
        record.digest,
        "code",
        json.dumps({"tags": dict(source)}),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps(dict(record.profile)) if record.profile else None,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", record.context)])
