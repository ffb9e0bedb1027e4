"""What the sections of `params.yaml` are made of."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Split = Literal["train", "val", "test"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
# A file, a folder or a model: an empty name would be the project's own folder.
Name = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]  # what numpy takes


class ParamsError(ValueError):
    """A parameter file that cannot be used; the message names file, key, value and expectation."""


class Section(BaseModel):
    """What every section has in common: immutable, no unknown keys, no silent conversion, every key written out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _tuples(cls, content: Any) -> Any:
        """YAML lists are kept as tuples: an immutable section holds nothing that can change."""
        if not isinstance(content, Mapping):
            return content
        return {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
