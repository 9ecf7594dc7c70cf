"""What every job asks for, whichever scheduler runs it."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from pipelines.recipe.section import Section
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

Word = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]+$", max_length=500)]
"""Text without spaces: it stands in a line of a script or of a manifest."""


class JobSettings(Section):
    """What a job asks for."""

    nodes: PositiveInt = 1
    """Machines, or pods, that train together."""
    gpus_per_node: NonNegativeInt = 0
    """Each gets a process; without any, a node has one process on its CPUs."""
    mem: Word | None = None
    """Memory of a node, such as 64G (SLURM) or 64Gi (Kubernetes)."""

    @property
    def processes(self) -> int:
        """Number of processes that train together."""
        return self.nodes * max(1, self.gpus_per_node)

    @classmethod
    def read(cls, content: Document) -> Self:
        """Settings of a mapping.

        Raises:
            InputError: an unknown key, or a value of the wrong kind.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problem = error.errors()[0]
            known = f"; expected some of: {', '.join(cls.model_fields)}" if problem["type"] == "extra_forbidden" else ""
            where = ".".join(map(str, problem["loc"]))
            message = problem["msg"].removeprefix("Value error, ")
            raise InputError(f"settings of the job: {where}: {message}{known}") from None
