"""What can be chosen about a run. The command line and the widgets build this same object."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from napari_coseg.core.card import ValueWindow
from napari_coseg.core.settings import Settings
from napari_coseg.labels.decoding.hover import HoverSettings

LARGEST_AREA_UM2 = 1e12
"""A square metre. Infinity, which says "all there is", is kept as this: no JSON knows infinity."""

Area = Annotated[float, AfterValidator(lambda area: min(area, LARGEST_AREA_UM2))]


class InferenceSettings(Settings):
    """Settings of `napari_coseg.segment`. Sizes in pixels are of the model's grid."""

    tile_size_px: int | None = Field(
        None, ge=64, le=16384, description="side of a tile; None takes the model card's"
    )
    halo_px: int | None = Field(
        None, ge=0, le=4096, description="context thrown away around a tile; None: the card's"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=256,
        description="tiles in one call of the network; None: 8 on a GPU, 1 on the CPU, where more "
        "gains nothing and cancelling waits longer",
    )
    window: ValueWindow | None = Field(
        None,
        description="values of the image that become black and white, such as -1000 and 3000 "
        "Hounsfield units; None: the model card's, or the rule of `napari_coseg.images.intensity`",
    )
    test_time_augmentation: bool = Field(
        False, description="average over the four flips; four times the work"
    )
    half_precision: bool = Field(True, description="bfloat16 on CUDA; elsewhere without effect")
    object_threshold: float = Field(
        0.5, gt=0, lt=1, description="probability from which a pixel belongs to an object"
    )
    border_threshold: float = Field(
        HoverSettings.model_fields["border_threshold"].default,
        ge=0,
        le=2,
        description="how sharply the distance maps must part two touching objects; lower splits "
        "more",
    )
    min_object_area_um2: Area = Field(4.0, ge=0, description="smaller objects are dropped")
    min_region_area_um2: Area = Field(
        500.0, ge=0, description="smaller connected regions become background"
    )
    max_hole_area_um2: Area = Field(
        2000.0, ge=0, description="background enclosed by one region is filled up to this area"
    )
    link_overlap: float = Field(
        0.5,
        gt=0,
        le=1,
        description="an object continues in the next slice of a stack where the two share at "
        "least this part of the smaller cross section",
    )
    decode_block_px: int = Field(
        2048,
        ge=64,
        le=16384,
        description="side of the blocks, in pixels of the image, in which maps become objects",
    )
