"""Base of all settings: frozen pydantic models that reject unknown keys.

Each field has one default, unit and range. The error for an unknown key suggests the nearest name.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_coseg.core.errors import SettingsError


class Settings(BaseModel):
    """Frozen values; unknown keys are rejected. Build from files with `from_mapping`."""

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
        near = difflib.get_close_matches(path[-1], _names_at(cls, finding["loc"]), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown setting {name!r}{hint}"
    return f"setting {name!r}: {finding['msg']} (got {finding['input']!r})"


def _names_at(cls: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Candidates for a wrong name: the settings of its own table first, then all others."""
    table = cls
    for part in path[:-1]:
        if isinstance(part, str) and part in table.model_fields:
            models = _models_in(table.model_fields[part].annotation)
            if not models:
                break
            table = models[0]
    return list(dict.fromkeys([*table.model_fields, *_field_names(cls)]))


def _field_names(cls: type[BaseModel]) -> list[str]:
    names = list(cls.model_fields)
    for info in cls.model_fields.values():
        for model in _models_in(info.annotation):
            names += _field_names(model)
    return names


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Settings classes within a type: ``tuple[BatchPart, ...]`` has one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
