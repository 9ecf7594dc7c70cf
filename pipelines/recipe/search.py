"""The section `search`: which values of which keys a search tries, and how many times."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from pipelines.recipe.section import Filled, Section

_JUDGED_BY = ("data.validation", "data.split", "data.options", "data.root", "data.layout", "data.kind")
_REFUSED = ("seed", "fold", "output", "name", "search", "evaluate", "register_as", "tracking", "card", "domain")


class SearchedValues(Section):
    """Values of a key: numbers from `low` to `high`, both included, or one of `choices`."""

    low: int | float | None = None
    """Lowest number; numbers are whole where both ends are."""
    high: int | float | None = None
    log: bool = False
    """Whether the logarithm is drawn evenly."""
    step: int | float | None = Field(default=None, gt=0)
    """From one number to the next; not where the logarithm is drawn."""
    choices: Filled[object] | None = None

    @property
    def ends(self) -> list[object]:
        """The choices, or both ends of the range."""
        return [self.low, self.high] if self.choices is None else self.choices

    @model_validator(mode="after")
    def _range_or_choices(self) -> "SearchedValues":
        if self.choices is not None:
            if not (self.low is self.high is self.step is None) or self.log:
                raise ValueError("give either choices, or low and high")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(
                f"found low={self.low} and high={self.high}, expected choices, or low to be less than high"
            )
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log=true: needs a low above 0, and no step")
        return self


class SearchSection(Section):
    """What `run --search optuna` tries; each trial is judged on its validation figure alone."""

    trials: PositiveInt
    """Number of trials in all, those of earlier starts included."""
    space: Annotated[dict[str, SearchedValues], Field(min_length=1)]
    """Values of keys of the recipe, such as `train.learning_rate`."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How values are drawn: by Optuna's tree of Parzen estimators, or evenly."""
    pruner: Literal["none", "median"] = "none"
    """Whether trials end early that are worse than the median of earlier ones at the same step."""

    @model_validator(mode="after")
    def _keys_that_can_be_judged(self) -> "SearchSection":
        for key in self.space:
            if key.split(".")[0] in _REFUSED:
                raise ValueError(f"space.{key}: cannot be searched; give keys of data, model or train")
            if any(key == known or key.startswith((f"{known}.", f"{known}_")) for known in _JUDGED_BY):
                raise ValueError(f"space.{key}: decides which cases trials are judged on; leave it out")
        return self
