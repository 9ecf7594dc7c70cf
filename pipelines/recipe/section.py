"""What every section of a recipe is."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")
