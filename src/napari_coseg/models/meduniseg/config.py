"""Settings of MedUniSeg: widths, stems, prompts, adapters. The defaults are the paper's network."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from napari_coseg.core.settings import Settings

Width = Annotated[int, Field(ge=1, le=2048)]
Side = Annotated[int, Field(ge=1, le=64)]
Channels = Annotated[int, Field(ge=1, le=4)]


class MedUniSegConfig(Settings):
    """Shape of a MedUniSeg network.

    Numbers that the paper does not give are those of the authors' earlier network, UniSeg.
    """

    widths: tuple[Width, ...] = Field(
        (32, 64, 128, 256, 320, 320),
        min_length=3,
        max_length=8,
        description="channels of each stage; halve them for a network of a quarter of the size",
    )
    stems: tuple[Channels, ...] = Field(
        (1, 2, 3, 4),
        min_length=1,
        max_length=4,
        description="channels of images for which there is a first convolution",
    )
    modal_prompt: Literal["input", "bottleneck", "none"] = Field(
        "input",
        description="where the map of the image's modality is added: to the image (the paper), to "
        "the encoder's last features, or nowhere (ablations, table 5)",
    )
    modal_width: Width = Field(512, description="numbers of one modality's vector")
    modal_grid_2d: tuple[Side, Side] = Field((12, 12), description="y, x of the map of 2D images")
    modal_grid_3d: tuple[Side, Side, Side] = Field((4, 6, 6), description="z, y, x of volumes")
    task_prior: bool = Field(
        True,
        description="FUSE: a map of the task at hand joins the encoder's last features; no after "
        "a transfer to another task",
    )
    prompt_channels: Width = Field(100, description="channels of the universal task prompt")
    prompt_grid: tuple[Side, Side, Side] = Field((4, 6, 6), description="its z, y, x")
    head_channels: int | None = Field(
        None, ge=2, le=256, description="None: as many as the task with the most classes needs"
    )
    single_plane: Literal["mean", "first"] = Field(
        "mean",
        description="images of depth 1: how the two planes after an upscaling become one. The "
        "paper does not say; the mean is this project's choice and equals linear interpolation",
    )
    lora_rank: int = Field(
        0, ge=0, le=512, description="MedUniSeg*: rank of the convolutions' changes; 0 for none"
    )
    lora_alpha: float = Field(64.0, gt=0, description="changes are multiplied by alpha / rank")
    adapted_tasks: tuple[str, ...] = Field(
        (), description="MedUniSeg*: tasks that the changes serve; empty: all"
    )

    @model_validator(mode="after")
    def _grids_agree(self) -> Self:
        if math.prod(self.modal_grid_2d) != math.prod(self.modal_grid_3d):
            raise ValueError(
                f"modal_grid_2d {self.modal_grid_2d} and modal_grid_3d {self.modal_grid_3d} must "
                "hold the same number of values, since one layer makes both"
            )
        if len(set(self.stems)) != len(self.stems):
            raise ValueError(f"stems {self.stems} name a number of channels twice")
        return self

    @property
    def fusion_width(self) -> int:
        """Channels between the blocks of FUSE: a quarter of what goes in."""
        return (self.widths[-1] + self.prompt_channels) // 4

    @property
    def depth_multiple(self) -> int:
        """Volumes have a multiple of this many slices: the first two stages keep the depth."""
        return 2 ** (len(self.widths) - 2)

    @property
    def plane_multiple(self) -> int:
        """Y and X are multiples of this."""
        return 2 ** (len(self.widths) - 1)


SMALL: dict[str, Any] = {"widths": (16, 32, 64, 128, 160, 160), "prompt_channels": 50}
"""Half of the paper's widths: about a quarter of its weights."""
