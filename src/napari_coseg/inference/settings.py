"""Settings of inference, shared by Python, the command line and the widgets."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from napari_coseg.core.card import ValueWindow
from napari_coseg.core.settings import Settings
from napari_coseg.labels.decoding.hover import HoverSettings

LARGEST_AREA_UM2 = 1e12
"""One square metre; infinity is stored as this, since JSON has none."""

Area = Annotated[float, AfterValidator(lambda area: min(area, LARGEST_AREA_UM2))]


class InferenceSettings(Settings):
    """Settings of `napari_coseg.segment`; sizes in pixels are on the network's grid."""

    tile_size_px: int | None = Field(
        None, ge=64, le=16384, description="side of a tile; None: the model card's"
    )
    halo_px: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="context around a tile that is predicted and discarded; None: the card's",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=256,
        description="tiles in one batch; None: 8 on a GPU, 1 on the CPU, where larger batches are "
        "not faster and delay cancelling",
    )
    window: ValueWindow | None = Field(
        None,
        description="image values that become black and white, such as -1000 and 3000 Hounsfield "
        "units; None: the model card's, or the rule of `napari_coseg.images.intensity`",
    )
    white_point: bool | None = Field(
        None,
        description="correct exposure and white balance of a colour image by its brightest pixels; "
        "None: the model card's",
    )
    test_time_augmentation: bool = Field(
        False, description="average over the four flips; takes four times as long"
    )
    half_precision: bool = Field(True, description="bfloat16 on CUDA; no effect elsewhere")
    object_threshold: float = Field(
        0.5, gt=0, lt=1, description="smallest probability of an object's pixels"
    )
    border_threshold: float = Field(
        HoverSettings.model_fields["border_threshold"].default,
        ge=0,
        le=2,
        description="gradient of the distance maps that separates touching objects; lower values "
        "split more",
    )
    min_object_area_um2: Area = Field(4.0, ge=0, description="smaller objects are removed")
    max_object_hole_area_um2: Area = Field(
        10.0, ge=0, description="background enclosed by one object is filled up to this area"
    )
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
        description="objects in neighbouring slices of a stack are linked if they overlap by at "
        "least this fraction of the smaller one",
    )
    decode_block_px: int = Field(
        2048,
        ge=64,
        le=16384,
        description="side of a block, in pixels of the image, in which maps are decoded",
    )
