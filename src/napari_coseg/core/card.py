"""The model card: everything a weights file says about itself, and all that inference must know."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    PositiveFloat,
    model_validator,
)

from napari_coseg.core.settings import Settings
from napari_coseg.core.types import LabelClass
from napari_coseg.core.windows import parse_window


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
    BeforeValidator(parse_window),
]
"""Two values of an image, the lower one first; also as the text "LOW,HIGH" or a name of
`napari_coseg.core.windows.WINDOWS`."""


class Normalisation(Settings):
    """``(value - mean) / std`` for each channel, in the order of the card's `channels`."""

    mean: tuple[FiniteFloat, ...] = Field((123.675, 116.28, 103.53), min_length=1, max_length=4)
    std: tuple[FiniteFloat, ...] = Field(
        (58.395, 57.12, 57.375),
        min_length=1,
        max_length=4,
        description="not zero; negative where dark and bright change places",
    )
    values: Literal["display", "measured", "z-scores"] = Field(
        "display",
        description="display: image values mapped to 0..255 first, by the rule of "
        "`images.intensity`; measured: values as the file gives them (Hounsfield units, "
        "counts), clipped to `window` where there is one; z-scores: measured, then each channel of "
        "an image less its mean, by its standard deviation",
    )
    stretch: bool = Field(
        False,
        description="each image's own range becomes 0 to 255 first, as `images.intensity` "
        "stretches values that have no range of their own: for images exposed in many ways",
    )
    white_point: bool = Field(
        False,
        description="bring the white of each colour image (the 99.5th percentile of each channel) "
        "to the same value, in training and in a run: for H&E of many scanners",
    )
    window: ValueWindow | None = Field(
        None,
        description="values of an image that become 0 and 255 first, such as Hounsfield units; "
        "images of 8 bits are taken as they are, for they were cut to a window before",
    )

    @model_validator(mode="after")
    def _one_std_for_each_mean(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means but {len(self.std)} standard deviations")
        if not all(self.std):
            raise ValueError("a standard deviation of 0")
        return self


class Decoding(Settings):
    """How a model's maps become labels; areas are of the image.

    Which values serve a model is chosen on its validation images (`evaluation.calibration`).
    """

    object_threshold: float = Field(
        0.5, gt=0, lt=1, description="smallest probability of an object's pixels"
    )
    border_threshold: float = Field(
        0.04,
        ge=0,
        le=2,
        description="gradient of the distance maps that separates touching objects; lower values "
        "split more",
    )
    distance_smoothing_um: float = Field(
        0.0,
        ge=0,
        description="sigma of the Gaussian over the distance maps before objects are separated; "
        "0: none",
    )
    min_object_area_um2: float = Field(4.0, ge=0, description="smaller objects are removed")
    min_object_volume_um3: float = Field(
        0.0, ge=0, description="smaller objects are removed from stacks, once slices are linked"
    )
    max_object_hole_area_um2: float = Field(
        10.0, ge=0, description="background enclosed by one object is filled up to this area"
    )
    min_region_area_um2: float = Field(
        500.0, ge=0, description="smaller connected regions become background"
    )
    max_hole_area_um2: float = Field(
        2000.0, ge=0, description="background enclosed by one region is filled up to this area"
    )


class OutputMap(Settings):
    """One named output of a network: (B, `channels`, [Z,] Y, X) logits or values."""

    name: str = Field(min_length=1)
    channels: int = Field(ge=0)
    activation: Literal["softmax", "sigmoid", "none"] = Field(
        description="softmax over the channels, sigmoid of each channel, or values as they are"
    )


class TaskEntry(Settings):
    """One task that a model takes as an input, such as organs of CT: its classes and modalities.

    A network that serves several tasks answers with the channels of the task that was asked for.
    What a task says of its images goes before what the card says; see `ModelCard.for_task`.
    """

    name: str = Field(min_length=1)
    classes: tuple[str, ...] = Field(min_length=1, description="names of semantic classes")
    modalities: tuple[str, ...] = Field(
        (), description="modalities that the task was trained on; empty: all of the card's"
    )
    objects: Literal["none", "components", "watershed"] = Field(
        "none",
        description="what the pixels of each class are: none: a region; components: each connected "
        "component is an object; watershed: components are cut where they narrow",
    )
    channels: tuple[str, ...] | None = Field(
        None, min_length=1, max_length=4, description="None: the card's, as all that follow"
    )
    dimensions: Literal[2, 3] | None = None
    pixel_size_um: PositiveFloat | None = None
    slice_spacing_um: PositiveFloat | None = None
    normalisation: Normalisation | None = None


class ModelCard(Settings):
    """What a weights file says about itself. Stored as JSON beside the weights.

    Class ids of each task run from 1 without holes, in the order of the network's channels.
    """

    format_version: int = 1
    name: str
    family: str = Field(description="key of models.registry.FAMILIES")
    config: dict[str, Any] = Field(description="the family's own settings")
    channels: tuple[str, ...] = Field(
        ("red", "green", "blue"), min_length=1, max_length=4, description="of the input, in order"
    )
    dimensions: Literal[2, 3] = Field(2, description="spatial axes of the input: YX or ZYX")
    modalities: tuple[str, ...] = Field(
        (), description="kinds of image that the network takes as an input; empty: no such input"
    )
    tasks: tuple[TaskEntry, ...] = Field(
        (), description="tasks that the network takes as an input; empty: no such input"
    )
    semantic_classes: tuple[ClassEntry, ...] = ()
    instance_classes: tuple[ClassEntry, ...] = ()
    maps: tuple[OutputMap, ...] | None = Field(
        None,
        description="named outputs; None: those of a two-task family, which follow from the "
        "classes",
    )
    pixel_size_um: float = Field(
        gt=0, description="spacing along y and x that the network works at, in micrometres"
    )
    slice_spacing_um: PositiveFloat | None = Field(
        None, description="spacing along z, in micrometres; needed where `dimensions` is 3"
    )
    object_diameter_um: PositiveFloat | None = Field(
        None,
        description="usual diameter of the objects it finds, from which the pixel size of an image "
        "is estimated that has none",
    )
    slicing: Literal["square", "axial"] = Field(
        "square",
        description="how models of planes cut a volume of one channel. square: across its largest "
        "spacing, so that pixels are square, and across Z where that serves as well; axial: always "
        "across Z",
    )
    tile_size_px: int = Field(512, ge=64, description="tile for inference, at that pixel size")
    tile_slices: int | None = Field(
        None, ge=1, description="slices of a tile of a volume; None: a third of tile_size_px"
    )
    halo_px: int = Field(
        64, ge=0, description="context around a tile that is predicted and discarded"
    )
    normalisation: Normalisation = Normalisation()
    decoding: Decoding = Decoding()
    temperatures: dict[Literal["semantic", "object", "classes"], PositiveFloat] = Field(
        {},
        description="by name of a map, what its logits are divided by, so that a probability of "
        "0.8 is right in 80 % of cases (temperature scaling, Guo et al. 2017); 1 where not named",
    )
    training_data: str = ""
    licence: str = ""
    scores: dict[str, Any] = {}
    adapted_from: str | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        _check_images(self)
        known = {entry.name for entry in self.semantic_classes}
        for task in self.tasks:
            if unknown := [name for name in task.classes if name not in known]:
                raise ValueError(f"task {task.name!r} names unknown classes {unknown}")
            if unknown := [name for name in task.modalities if name not in self.modalities]:
                raise ValueError(f"task {task.name!r} names unknown modalities {unknown}")
            try:
                _check_images(self.for_task(task.name))
            except ValueError as error:
                raise ValueError(f"task {task.name!r}: {error}") from error
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"two tasks of one name among {', '.join(names)}")
        return self

    def for_task(self, name: str | None) -> ModelCard:
        """The card with what a task says of its images in place of its own; itself for None."""
        task = next((task for task in self.tasks if task.name == name), None)
        if task is None:
            return self
        own = {key: getattr(task, key) for key in _OF_IMAGES if getattr(task, key) is not None}
        if task.dimensions == 2:
            own["slice_spacing_um"] = None
        return self.model_copy(update=own)

    @property
    def spacing_um(self) -> tuple[float, ...]:
        """Spacing along (z,) y, x that the network works at, in micrometres."""
        in_plane = (self.pixel_size_um, self.pixel_size_um)
        return in_plane if self.slice_spacing_um is None else (self.slice_spacing_um, *in_plane)

    @property
    def output_maps(self) -> tuple[OutputMap, ...]:
        """The network's outputs; for two-task families regions, objects, their classes, HV maps."""
        if self.maps is not None:
            return self.maps
        types = 1 + len(self.instance_classes) if self.instance_classes else 0
        return (
            OutputMap(
                name="semantic", channels=1 + len(self.semantic_classes), activation="softmax"
            ),
            OutputMap(name="object", channels=1, activation="sigmoid"),
            OutputMap(name="classes", channels=types, activation="softmax"),
            OutputMap(name="hv", channels=2, activation="none"),
        )

    @property
    def semantic_label_classes(self) -> tuple[LabelClass, ...]:
        return tuple(entry.as_label_class() for entry in self.semantic_classes)

    @property
    def instance_label_classes(self) -> tuple[LabelClass, ...]:
        return tuple(entry.as_label_class() for entry in self.instance_classes)


_OF_IMAGES = ("channels", "dimensions", "pixel_size_um", "slice_spacing_um", "normalisation")
"""What a card says of its images, and a task may say otherwise."""


def _check_images(card: ModelCard) -> None:
    if len(card.normalisation.mean) != len(card.channels):
        raise ValueError(
            f"normalisation of {len(card.normalisation.mean)} channels, but the channels are "
            f"{', '.join(card.channels)}"
        )
    if (card.slice_spacing_um is None) != (card.dimensions == 2):
        raise ValueError("slice_spacing_um goes with dimensions = 3 and with nothing else")
