"""Settings of inference, shared by Python, the command line and the widgets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from napari_coseg.core.card import Decoding, ModelCard, ValueWindow
from napari_coseg.core.settings import Settings

LARGEST_AREA_UM2 = 1e12
"""One square metre; infinity is stored as this, since JSON has none."""

Area = Annotated[float, AfterValidator(lambda area: min(area, LARGEST_AREA_UM2))]


def _of_card(name: str) -> Any:
    """A field of `Decoding`, with the same limits, that is None by default."""
    field = Decoding.model_fields[name]
    limits = {
        key: getattr(limit, key)
        for limit in field.metadata
        for key in ("gt", "ge", "lt", "le")
        if hasattr(limit, key)
    }
    return Field(None, description=f"{field.description}; None: the model card's", **limits)


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
    task: str | None = Field(
        None,
        description="for models that serve several tasks: the name of one; None: the first whose "
        "images have as many axes and channels as this one",
    )
    modality: str | None = Field(
        None, description="for models that take a modality; None: the first of the task's"
    )
    tile_slices: int | None = Field(
        None, ge=1, le=1024, description="slices of a tile of a volume; None: the model card's"
    )
    window_step: float = Field(
        0.5,
        gt=0,
        le=1,
        description="models with tasks: windows are at most this part of their side apart",
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
        "units, or the name of a window (bone, soft tissue, teeth, brain, lung); None: the model "
        "card's, or the rule of `napari_coseg.images.intensity`",
    )
    white_point: bool | None = Field(
        None,
        description="correct exposure and white balance of a colour image by its brightest pixels; "
        "None: the model card's",
    )
    test_time_augmentation: bool = Field(
        False,
        description="average over the four flips (eight of volumes); takes as many times as long",
    )
    half_precision: bool = Field(True, description="bfloat16 on CUDA; no effect elsewhere")
    object_threshold: float | None = _of_card("object_threshold")
    border_threshold: float | None = _of_card("border_threshold")
    distance_smoothing_um: float | None = _of_card("distance_smoothing_um")
    min_object_area_um2: Area | None = _of_card("min_object_area_um2")
    min_object_volume_um3: float | None = _of_card("min_object_volume_um3")
    max_object_hole_area_um2: Area | None = _of_card("max_object_hole_area_um2")
    min_region_area_um2: Area | None = _of_card("min_region_area_um2")
    max_hole_area_um2: Area | None = _of_card("max_hole_area_um2")
    link_overlap: float = Field(
        0.5,
        gt=0,
        le=1,
        description="objects in neighbouring slices of a stack are linked if they overlap by at "
        "least this fraction of the smaller one",
    )
    link_join_overlap: float = Field(
        0.75,
        gt=0,
        le=1,
        description="a piece that begins or ends apart, such as a root of a tooth, joins the "
        "object of the neighbouring slice that holds at least this fraction of it",
    )
    link_max_gap: int = Field(
        3,
        ge=0,
        le=10,
        description="slices of a stack in which an object may be missing, split, or merged with "
        "another; 0 for none",
    )
    decode_block_px: int = Field(
        2048,
        ge=64,
        le=16384,
        description="side of a block, in pixels of the image, in which maps are decoded",
    )

    def decoding(self, card: ModelCard) -> Decoding:
        """How maps become labels: the card's values, and those given here in their place."""
        given = {name: getattr(self, name) for name in Decoding.model_fields}
        given = {name: value for name, value in given.items() if value is not None}
        return card.decoding.model_copy(update=given)
