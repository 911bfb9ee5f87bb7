"""Checks the provenance of a run that was read from a file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]


class RunFacts(BaseModel):
    """The part of a provenance that is used again, to read the image as the run did."""

    model_config = ConfigDict(extra="allow")

    axes: Annotated[str, Field(max_length=4)] | None = None
    channels: tuple[Annotated[int, Field(ge=0, le=2**16)], ...] | int | None = None
    window: tuple[Finite, Finite] | None = None
    region_offset: tuple[Annotated[int, Field(ge=0, le=2**31)], ...] = ()


def checked_provenance(values: Any) -> dict[str, Any]:
    """The same values, after `RunFacts` accepted those that are used again.

    Raises
    ------
    ValueError
        Where they are not as a run writes them.
    """
    RunFacts.model_validate(values)
    return dict(values)
