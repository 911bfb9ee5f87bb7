"""Settings of a fine-tuning; the command line and the widget build this object."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_coseg.core.errors import SettingsError
from napari_coseg.core.settings import Settings
from napari_coseg.datasets.stain import StainSettings
from napari_coseg.datasets.transforms import AugmentationSettings
from napari_coseg.training.loss_settings import LossSettings

HEADS = ("prompt_encoders", "decoders")
"""What follows the encoder."""
THROUGH_ENCODER = ("adapters", "lora", "neck")

FEWEST_USEFUL_STEPS = 100
"""Through the encoder, about as many gained more than heads did (docs/results.md)."""

FINETUNING_LOSSES = LossSettings(
    semantic_cross_entropy=1.0,
    semantic_dice=1.0,
    object_cross_entropy=1.0,
    object_focal=0.0,
    class_cross_entropy=1.0,
    class_focal=0.0,
    class_dice=0.5,
    hv_mse=4.0,
    hv_msge=0.5,
)
"""Cross-entropy for calibrated probabilities; little weight for the gradients of the distance maps,
which would dominate the other terms at the weights of CellViT."""

FINETUNING_AUGMENTATION = AugmentationSettings(
    free_probability=0.5,
    stain=StainSettings(
        stain_probability=0.5,
        stain_factor_spread=0.25,
        stain_vector_sigma=0.03,
        colour_probability=0.3,
        blur_probability=0.1,
        sharpen_probability=0.05,
        jpeg_probability=0.05,
        noise_probability=0.1,
    ),
)
"""Weaker than in training from scratch: these are the user's own images."""


class FinetuneSettings(Settings):
    """Settings of a fine-tuning. Sizes in pixels are of the model's grid."""

    speed: Literal["heads", "adapters"] = Field(
        "heads",
        description="heads: the frozen encoder's features are kept on disk, and what follows it "
        "trains; adapters: trains through the encoder",
    )
    parts: tuple[str, ...] | None = Field(
        None,
        description="parts of the model that train: adapters, lora, neck, prompt_encoders, "
        "decoders; None: all that the speed can train. The trunk never does",
    )
    lora_rank: int = Field(
        0, ge=0, le=256, description="put LoRA of this rank into the trunk; speed adapters only"
    )
    minutes: float = Field(
        5.0, gt=0, le=10_000, description="about how long it may take, scores and all; minutes"
    )
    steps: int | None = Field(
        None, ge=1, description="steps in place of minutes; the same on every machine"
    )
    crops: int = Field(4, ge=1, le=256, description="crops a step")
    crop_px: int = Field(256, ge=32, le=4096, description="side of the crops")
    learning_rate: float | None = Field(
        None, gt=0, description="at its highest; None: 1e-3 for heads, 5e-4 for adapters"
    )
    distance_to_base: float = Field(
        3.0,
        ge=0,
        description="how fast weights are drawn back to the base's: the part of the way at each "
        "step, as a multiple of the learning rate; 0 switches it off",
    )
    replay_fraction: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="share of crops from the replayed images, or the sample",
    )
    rehearse: bool = Field(
        True,
        description="the shipped model: replay its own predictions on a sample, so that it "
        "forgets less, where no images are given to replay",
    )
    held_out_fraction: float = Field(
        0.2,
        ge=0,
        lt=0.9,
        description="share of what was reviewed that scores and is not trained on",
    )
    validations: int = Field(4, ge=1, le=100, description="how often the held-out part scores")
    interpolate: bool = Field(
        True,
        description="weight interpolation: at the end take as much of the change from the base as "
        "scores best on the held-out part; false takes all of it",
    )
    match_input: bool = Field(
        True,
        description="look for the linear change of intensities (inverted, stretched, tinted) under "
        "which the base model fits the reviewed labels best, and keep it with the adapter",
    )
    exposure_spread: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="where intensities are changed so: how far the brightness of crops varies, "
        "as exposure does between such images; factor",
    )
    add_classes: bool = Field(False, description="allow classes that the base does not know")
    rename: dict[str, str] = Field({}, description="name of a class of the base -> new name")
    merge: dict[str, tuple[str, ...]] = Field(
        {}, description="new name -> classes of the base that become one"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="of the network; auto: bf16 on CUDA, and where it is clearly faster",
    )
    activation_checkpointing: bool | None = Field(
        None, description="compute the trunk's blocks twice; None: where memory runs out"
    )
    variants: int = Field(
        32, ge=1, le=64, description="speed heads: augmented crops of each place that are encoded"
    )
    cache_mb: int = Field(
        2000, ge=10, description="speed heads: largest size of the features on disk; megabytes"
    )
    checkpoint_every_s: float = Field(30.0, gt=0, description="seconds between saved states")
    seed: int = 0
    losses: LossSettings = FINETUNING_LOSSES
    augmentation: AugmentationSettings = FINETUNING_AUGMENTATION

    def check_lora(self) -> None:
        """Check that LoRA, where it is added, trains.

        Raises
        ------
        SettingsError
            Where it would not.
        """
        if not self.lora_rank:
            return
        if self.speed == "heads":
            raise SettingsError(
                f"LoRA (lora_rank {self.lora_rank}) lies in the encoder, which does not train at "
                "speed 'heads'; take speed 'adapters', or lora_rank 0"
            )
        if self.parts is not None and "lora" not in self.parts:
            raise SettingsError(
                f"LoRA is put in (lora_rank {self.lora_rank}), but the parts that train are "
                f"{', '.join(self.parts) or 'none'}; name lora among them, or take lora_rank 0"
            )

    def with_crop(self, crop_px: int) -> FinetuneSettings:
        """The same settings with another size of crops."""
        return self.model_copy(update={"crop_px": crop_px})

    def augmentation_of(self, changed_input: bool) -> AugmentationSettings:
        """Augmentation of crops, of images as the base knows them or with changed intensities."""
        stain = self.augmentation.stain
        if not changed_input or self.exposure_spread <= stain.brightness_spread:
            return self.augmentation
        more = {"brightness_spread": self.exposure_spread, "colour_probability": 0.8}
        return self.augmentation.model_copy(update={"stain": stain.model_copy(update=more)})

    def rate(self) -> float:
        """The learning rate at its highest."""
        return self.learning_rate or {"heads": 1e-3, "adapters": 5e-4}[self.speed]
