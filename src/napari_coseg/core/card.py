"""The model card: everything a weights file says about itself, and all that inference must know."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat

from napari_coseg.core.settings import Settings
from napari_coseg.core.types import LabelClass


class ClassEntry(Settings):
    """One class, as written in a card."""

    id: int = Field(ge=1, le=255)
    name: str = Field(min_length=1)
    color: tuple[int, int, int]

    def as_label_class(self) -> LabelClass:
        return LabelClass(self.id, self.name, self.color)


def _as_range(window: tuple[float, float]) -> tuple[float, float]:
    if not window[0] < window[1]:
        raise ValueError("the lower end of a window comes first")
    return window


ValueWindow = Annotated[
    tuple[FiniteFloat, FiniteFloat],
    AfterValidator(_as_range),
    BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value),
]
"""Two values of an image, the lower one first; also as the text "LOW,HIGH"."""


class Normalisation(Settings):
    """``(value - mean) / std`` a channel, on red, green, blue values of 0 to 255."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    stretch: bool = Field(
        False,
        description="each image's own range becomes 0 to 255 first, as `images.intensity` "
        "stretches values that have no range of their own: for images exposed in many ways",
    )
    window: ValueWindow | None = Field(
        None,
        description="values of an image that become 0 and 255 first, such as Hounsfield units; "
        "images of 8 bits are taken as they are, for they were cut to a window before",
    )


class ModelCard(Settings):
    """What a weights file says about itself. Stored as JSON beside the weights.

    Class ids of each task run from 1 without holes, in the order of the network's channels.
    """

    format_version: int = 1
    name: str
    family: str = Field(description="key of napari_coseg.models.registry.FAMILIES")
    config: dict[str, Any] = Field(description="the family's own settings")
    semantic_classes: tuple[ClassEntry, ...] = ()
    instance_classes: tuple[ClassEntry, ...] = ()
    pixel_size_um: float = Field(gt=0, description="micrometres a pixel the network works at")
    tile_size_px: int = Field(512, ge=64, description="tile for inference, at that pixel size")
    halo_px: int = Field(64, ge=0, description="context around a tile that is thrown away")
    normalisation: Normalisation = Normalisation()
    training_data: str = ""
    licence: str = ""
    scores: dict[str, Any] = {}
    adapted_from: str | None = None
    notes: str = ""

    @property
    def semantic_label_classes(self) -> tuple[LabelClass, ...]:
        return tuple(entry.as_label_class() for entry in self.semantic_classes)

    @property
    def instance_label_classes(self) -> tuple[LabelClass, ...]:
        return tuple(entry.as_label_class() for entry in self.instance_classes)
