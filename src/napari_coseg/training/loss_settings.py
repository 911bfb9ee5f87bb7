"""Weights of the loss terms, and the source of each preset.

| preset               | source                                                                  |
|----------------------|-------------------------------------------------------------------------|
| coseg-plus-paper     | Co-Seg++ equations 9 to 12, lambda 0.5 (section 4.1); the instance terms, |
|                      | which the paper takes from CellViT without weights, with CellViT's        |
| coseg-plus-released  | the loop of the authors' ``train_puma.py``                              |
| coseg-paper          | Co-Seg equation 8, lambda 2 and 1 (section 3.1); HV maps as CellViT     |
| coseg-released       | the loop of the authors' ``train.py``                                   |

What the papers leave open is ours: over what Dice is summed, and that the first forward of Co-Seg
is judged by its masks alone, which are what prompts the second.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from napari_coseg.core.settings import Settings

PresetName = Literal["coseg-plus-paper", "coseg-plus-released", "coseg-paper", "coseg-released"]


class LossSettings(Settings):
    """Weight of each term; 0 leaves it out. The defaults are the first preset's.

    A preset sets what it names; settings given beside it go over it.
    """

    preset: PresetName = "coseg-plus-paper"
    first_forward: float = Field(
        0.5, ge=0, description="all of the first forward: lambda of Co-Seg++ equation 12"
    )
    first_semantic: float = Field(1.0, ge=0, description="lambda 1 of Co-Seg equation 8")
    first_instance: float = Field(1.0, ge=0, description="lambda 2 of Co-Seg equation 8")
    first_cross_entropy: float = Field(1.0, ge=0, description="Co-Seg++ equation 10")
    first_dice: float = Field(0.0, ge=0, description="Dice of both binary masks")
    first_object: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="focal takes the cross-entropy's place on the object mask"
    )
    consistency: float = Field(1.0, ge=0, description="Co-Seg++ equation 9")
    consistency_symmetric: bool = Field(False, description="mean of the divergence both ways")
    semantic_cross_entropy: float = Field(1.0, ge=0, description="regions")
    semantic_dice: float = Field(1.0, ge=0, description="regions")
    object_cross_entropy: float = Field(0.0, ge=0, description="object or not")
    object_focal: float = Field(1.0, ge=0, description="object or not")
    object_dice: float = Field(1.0, ge=0, description="object or not")
    class_cross_entropy: float = Field(0.5, ge=0, description="classes of objects")
    class_dice: float = Field(0.2, ge=0, description="classes of objects")
    class_focal: float = Field(0.5, ge=0, description="classes of objects")
    hv_mse: float = Field(2.5, ge=0, description="as CellViT, which the paper follows")
    hv_msge: float = Field(8.0, ge=0, description="as CellViT, which the paper follows")
    crowded: float = Field(
        0.0,
        ge=0,
        description="extra weight of pixels near two objects, in the cross-entropy of the objects "
        "and the error of the distance maps (not in the papers): there a few pixels merge objects",
    )
    focal_gamma: float = Field(2.0, ge=0, description="exponent of the focal terms")
    dice_over: Literal["batch", "image"] = Field(
        "batch",
        description="batch: all pixels of the batch at once, of the foreground classes it holds; "
        "image: each image and class apart, background and absent classes too, smoothed by 1e-5, "
        "as MONAI's DiceCELoss in the released code",
    )
    gradient_axis: Literal["right", "as_released"] = Field(
        "right",
        description="the released code differentiates each HV map along the other's axis",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("preset"), str):
            return {**PRESETS.get(values["preset"], {}), **values}
        return values

    def over_preset(self) -> dict[str, Any]:
        """The preset's name and the settings that differ from it: as short as a recipe says it.

        >>> LossSettings(preset="coseg-paper", hv_mse=1.0).over_preset()
        {'preset': 'coseg-paper', 'hv_mse': 1.0}
        """
        as_preset = LossSettings(preset=self.preset).model_dump()
        own = {name: value for name, value in self.model_dump().items() if value != as_preset[name]}
        return {"preset": self.preset, **own}


_CROSS_ENTROPY_AND_DICE: dict[str, Any] = {
    "first_dice": 1.0,
    "object_cross_entropy": 1.0,
    "object_focal": 0.0,
    "class_cross_entropy": 1.0,
    "class_dice": 1.0,
    "class_focal": 0.0,
    "dice_over": "image",
    "gradient_axis": "as_released",
}

PRESETS: dict[str, dict[str, Any]] = {
    "coseg-plus-paper": {},
    "coseg-plus-released": {
        **_CROSS_ENTROPY_AND_DICE,
        "consistency": 10.0,
        "consistency_symmetric": True,
        "semantic_cross_entropy": 0.5,
        "semantic_dice": 0.5,
        "hv_mse": 8.0,
        "hv_msge": 2.5,
    },
    "coseg-paper": {
        "first_forward": 1.0,
        "first_semantic": 2.0,
        "first_instance": 1.0,
        "first_dice": 1.0,
        "first_object": "focal",
        "consistency": 0.0,
    },
    "coseg-released": {
        **_CROSS_ENTROPY_AND_DICE,
        "first_forward": 1.0,
        "consistency": 0.0,
        "hv_mse": 10.0,
        "hv_msge": 2.5,
    },
}
"""What differs from the defaults, by preset."""
