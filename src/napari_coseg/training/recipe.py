"""A recipe: everything that a training needs besides the data, in one TOML file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import SettingsError
from napari_coseg.core.settings import Settings
from napari_coseg.datasets.kept import KEEP_GIB
from napari_coseg.datasets.transforms import AugmentationSettings
from napari_coseg.training.prompting import PromptSettings
from napari_coseg.training.settings import TrainingSettings


class BatchPart(Settings):
    """One dataset's share of every step."""

    dataset: str = Field(description="key of napari_coseg.datasets.registry.DATASETS")
    split: str = "train"
    crop_px: int = Field(ge=32, multiple_of=32, description="side of the crops, model pixels")
    crops: float = Field(
        gt=0,
        description="crops in a batch, which processes and micro batches divide among them; no "
        "whole number: so many on average, as long as those that share a batch add up to one",
    )
    mosaic: int = Field(
        1, ge=1, le=8, description="each crop is put together from mosaic x mosaic smaller ones"
    )
    every_steps: int = Field(1, ge=1, description="take part in every step, every second, ...")
    from_step: int = Field(0, ge=0, description="take part from this step on")
    to_step: int | None = Field(None, ge=1, description="take part until before this step")
    object_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of crops laid around an object of a randomly drawn class",
    )
    derived_region_of: str | None = Field(
        None,
        description="name of an object class; a region derived from its objects prompts crops "
        "whose dataset has no regions, where `prompts` asks for truth. It is never a target itself",
    )

    @model_validator(mode="after")
    def _pieces_fit(self) -> Self:
        if self.crop_px % self.mosaic:
            raise ValueError(
                f"crops of {self.crop_px} pixels cannot be put together from {self.mosaic} a side"
            )
        return self

    @model_validator(mode="after")
    def _comes_at_all(self) -> Self:
        if self.to_step is not None and self.to_step <= self.from_step:
            raise ValueError(
                f"a part from step {self.from_step} to before step {self.to_step} never takes part"
            )
        return self


class Recipe(TrainingSettings):
    """One training, reproducible from this and the data."""

    epochs: int | None = Field(
        None, ge=1, description="an epoch shows as many crops of each part as it has images"
    )
    training_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="part of each dataset's training images, drawn by the seed (Co-Seg++, table "
        "11); a smaller part lies within a larger one",
    )
    held_out: str = Field(
        "colon_default",
        description="file of names held out of training, to choose by; or a partition in three, "
        "whose test images are looked at neither here nor there; or 7:1:2, drawn by the seed; or "
        "own, the datasets' own splits",
    )
    keep_in_memory_gib: float = Field(
        KEEP_GIB,
        ge=0,
        description="memory for the training images of each of `batches`; what does not fit is "
        "read again for each crop",
    )
    card: ModelCard
    batches: tuple[BatchPart, ...] = Field(min_length=1)
    augmentation: AugmentationSettings = AugmentationSettings()
    prompts: PromptSettings = PromptSettings()

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.steps is None and self.epochs is None:
            raise ValueError("give steps or epochs")
        return self


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    folder = resources.files("napari_coseg.training") / "recipes"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if ".toml" in entry.name)


def read_recipe(name_or_path: str | Path) -> Recipe:
    """Read a shipped recipe by name, or one from a TOML file.

    A recipe that names a ``base``, a shipped one or a file beside it, says only what differs from
    that: tables are merged, lists such as ``batches`` are replaced as a whole.

    Parameters
    ----------
    name_or_path
        Name of a shipped recipe, or the path of a ``.toml`` file.

    Returns
    -------
    Recipe
        Model card, data, optimiser, losses and everything else that a training needs.

    Raises
    ------
    SettingsError
        If there is no such recipe, or a setting is unknown or out of its range.
    """
    return Recipe.from_mapping(_values(str(name_or_path), Path(), heirs=()))


def _values(name_or_path: str, folder: Path, heirs: tuple[str, ...]) -> dict[str, Any]:
    """Of a recipe that a file in `folder` names, and of those that it rests on."""
    path = folder / name_or_path
    if path.suffix == ".toml":
        if not path.is_file():
            raise SettingsError(f"there is no recipe file {path}")
        key, text = str(path.resolve()), path.read_text(encoding="utf-8")
    elif name_or_path in recipe_names():
        entry = resources.files("napari_coseg.training") / "recipes" / f"{name_or_path}.toml"
        key, text = name_or_path, entry.read_text(encoding="utf-8")
    else:
        raise SettingsError(
            f"there is no recipe {name_or_path!r}; name one of {', '.join(recipe_names())}, "
            "or give the path of a .toml file"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"recipe {name_or_path} is not valid TOML: {error}") from error
    if "base" not in values:
        return values
    base = values.pop("base")
    if not isinstance(base, str):
        raise SettingsError(f"base of recipe {name_or_path} is {base!r}; name one recipe")
    if key in heirs:
        raise SettingsError(f"recipe {name_or_path} is its own base; name another")
    return _merged(_values(base, path.parent, (*heirs, key)), values)


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in own.items():
        inherited = base.get(name)
        if isinstance(value, dict) and isinstance(inherited, dict):
            value = _merged(inherited, value)
        merged[name] = value
    return merged
