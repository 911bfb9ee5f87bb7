"""Base of every settings object: frozen, documented, and deaf to no typo.

A settings class is a pydantic model: one default, one unit and one range a field. A key that does
not exist is refused with the nearest known name.
"""

from __future__ import annotations

import difflib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_coseg.errors import SettingsError


class Settings(BaseModel):
    """Frozen values; unknown keys are refused. Build from files with `from_mapping`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Self:
        """Check `values` and turn pydantic's findings into one readable `SettingsError`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [_explain(cls, finding) for finding in error.errors()]
            raise SettingsError("; ".join(lines)) from error


def _explain(cls: type[BaseModel], finding: Any) -> str:
    path = [str(part) for part in finding["loc"]]
    name = ".".join(path)
    if finding["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _field_names(cls), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown setting {name!r}{hint}"
    return f"setting {name!r}: {finding['msg']} (got {finding['input']!r})"


def _field_names(cls: type[BaseModel]) -> list[str]:
    names = list(cls.model_fields)
    for info in cls.model_fields.values():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _field_names(kind)
    return names
