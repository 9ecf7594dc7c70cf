"""What every section of a recipe is."""

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
ItemT = TypeVar("ItemT")
Filled = Annotated[list[ItemT], Field(min_length=1)]
"""A list that holds something."""
SplitSeed = Annotated[int | None, Field(ge=0, lt=2**31)]
Domain = Literal["medvision", "geovision", "astrovision"]


class Section(BaseModel):
    """Part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DataSection(Section):
    """The section `data`: each kind is of one domain."""

    domain: ClassVar[Domain]
    root: str | None = None
    """Folder of the data, or their file."""
