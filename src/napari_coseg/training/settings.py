"""Settings of the training loop, which a recipe and a fine-tuning share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_coseg.core.settings import Settings
from napari_coseg.training.loss_settings import LossSettings

STATE_FILE = "training-state.pt"
"""In the output folder: what a training resumes from."""


class OptimiserSettings(Settings):
    """The papers' own (Co-Seg++ section 4.1, Co-Seg 3.1) is Adam, 1e-4, times 0.98 an epoch."""

    algorithm: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-4, gt=0)
    rates: dict[str, float] = Field(
        {},
        description="factors of the learning rate, by name in the model's parts(); 1 for the rest",
    )
    weight_decay: float = Field(0.0, ge=0, description="matrices only, never norms or biases")
    momentum: float = Field(0.99, ge=0, lt=1, description="sgd: Nesterov's")
    beta2: float = Field(0.999, gt=0, lt=1)
    warmup_steps: int = Field(0, ge=0)
    schedule: str = Field("exponential", pattern="^(exponential|cosine|poly)$")
    power: float = Field(
        0.9, gt=0, le=10, description="poly: of the part of the training that is left, by epochs"
    )
    restart_step: int | None = Field(
        None, ge=1, description="cosine: begin a second, lower cosine at this step"
    )
    restart_rate: float = Field(
        0.5, gt=0, le=1, description="cosine: where the second begins, as a part of the first"
    )
    decay: float = Field(0.98, gt=0, le=1, description="exponential: factor an epoch")
    steps_per_epoch: int = Field(
        100,
        ge=1,
        description="exponential, poly: steps an epoch; counted where the recipe has `epochs`",
    )
    clip_gradient_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.0, ge=0, lt=1, description="0 keeps no moving average")
    freeze_statistics_from_step: int | None = Field(
        None,
        ge=0,
        description="from this step on batch normalisation takes its running statistics, as in a "
        "prediction, and changes them no more: those of a batch of few crops are noise, which the "
        "last, small steps can do without",
    )


ChosenScore = Literal[
    "object_panoptic_quality", "object_aji", "object_dice", "type_panoptic_quality", "region_dice"
]
"""What `napari_coseg.evaluation.run.score_held_out` gives."""


class ValidationSettings(Settings):
    """How often to validate, and what is chosen by: the sum of the named scores."""

    every_steps: int = Field(500, ge=1)
    every_epochs: int | None = Field(
        None, ge=1, description="in place of every_steps where the recipe has `epochs`"
    )
    start_step: int = Field(0, ge=0, description="no validation before this step")
    choose_by: tuple[ChosenScore, ...] = Field(
        ("object_panoptic_quality", "region_dice"),
        min_length=1,
        description="the weights with the largest sum of those that the held-out labels give",
    )


class LogSettings(Settings):
    """What is written beside ``log.csv``."""

    tensorboard: bool = Field(False, description='needs the extra "train"')
    pictures_every_steps: int = Field(
        0, ge=0, description="image, truth and prediction of some crops as PNG; 0 for none"
    )


class TrainingSettings(Settings):
    """How a network trains, whatever it is shown."""

    name: str = Field(
        pattern=r"^\w[\w. +-]*$", description="names the weights file: no slashes in it"
    )
    seed: int = 0
    steps: int | None = Field(None, ge=1, description="goes before `epochs`")
    precision: Literal["fp16", "bf16", "fp32"] = Field(
        "bf16", description="of the networks; losses are always computed in fp32"
    )
    accumulate: int = Field(
        1, ge=1, description="micro batches that a batch is divided into, for less memory"
    )
    activation_checkpointing: bool | None = Field(
        None,
        description="compute the trunk's blocks twice, for less memory; same gradients. None: "
        "where memory runs out",
    )
    deterministic: bool = Field(
        False, description="the same bits every time on the same CUDA machine; slower"
    )
    skip_at_most: int = Field(
        20, ge=0, description="steps in a row without a finite loss, before the training stops"
    )
    trained_parts: tuple[str, ...] = Field(
        ("adapters", "neck", "prompt_encoders", "decoders"),
        description="names in the model's parts(); the paper freezes the trunk (section 3.4)",
    )
    optimiser: OptimiserSettings = OptimiserSettings()
    losses: LossSettings = LossSettings()
    validation: ValidationSettings = ValidationSettings()
    logs: LogSettings = LogSettings()
    checkpoint_every_steps: int = Field(100, ge=1)
    checkpoint_every_s: float | None = Field(
        None, gt=0, description="seconds between saved states, in place of checkpoint_every_steps"
    )
