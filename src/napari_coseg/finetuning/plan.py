"""What a run has settled before its first step; written down, so that it can be gone on with."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from napari_coseg.card import Normalisation
from napari_coseg.errors import OutputError, SettingsError
from napari_coseg.finetuning.costs import Cost
from napari_coseg.finetuning.request import PLAN_FILE
from napari_coseg.finetuning.reviewed import ReviewedSet
from napari_coseg.finetuning.settings import FinetuneSettings
from napari_coseg.settings import Settings

LEAST_STEPS = 20
CACHING_SHARE = 0.25
"""Of the time there is, at most, for features; the rest learns from them."""
LEAST_CACHED = 8


class RunPlan(Settings):
    """Fixed for a run. `digest` tells whether another call means the same one."""

    digest: str
    steps: int = Field(ge=1)
    validate_every: int = Field(ge=1)
    precision: str
    crop_px: int
    micro: int = Field(ge=1, description="crops in one forward and backward")
    activation_checkpointing: bool = False
    cached_crops: int = Field(0, ge=0)
    seconds_a_step: float = 0.0
    input: str = "as it is"
    normalisation: Normalisation = Normalisation()
    scores_before: dict[str, Any] = {}
    base_scores_before: dict[str, Any] = {}
    notes: tuple[str, ...] = ()


def digest_of(
    reviewed: ReviewedSet, base_sha256: str, settings: FinetuneSettings, more: str = ""
) -> str:
    """SHA-256 over images, labels, classes, base and settings."""
    digest = hashlib.sha256(f"{base_sha256}\n{settings.model_dump_json()}\n{more}\n".encode())
    for classes in (reviewed.semantic_classes, reviewed.instance_classes):
        digest.update(repr([(c.id, c.name) for c in classes]).encode())
    for image in reviewed.images:
        digest.update(f"{image.name} {image.pixel_size_um} {image.shape}".encode())
        for array in (image.image, image.semantic, image.objects, image.types):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).data)
        digest.update(repr(image.range).encode())
        for mask in (image.semantic_reviewed, image.objects_reviewed):
            digest.update(b"-" if mask is None else np.packbits(mask).data)
    return digest.hexdigest()


class Shares(NamedTuple):
    """What the time there is goes into: crops to encode, and steps."""

    cached_crops: int
    steps: int


def share_out(
    settings: FinetuneSettings, cost: Cost, area_px: float, seconds: float, scoring_s: float
) -> Shares:
    """Crops to encode, where features are kept, and steps from what is left.

    Every place is encoded `variants` times, as far as time and disk allow.

    Parameters
    ----------
    settings
        With the crops that fit.
    area_px
        Reviewed, in pixels of the model.
    seconds
        For both, and for the scores on the way.
    scoring_s
        Of scoring the held-back regions once.
    """
    cached = 0
    if settings.speed == "heads":
        places = max(1, math.ceil(2 * area_px / settings.crop_px**2))
        wanted = settings.variants * places
        if settings.steps is None:
            wanted = min(wanted, int(CACHING_SHARE * seconds / max(cost.encode_s, 1e-6)))
        fits = int(settings.cache_mb / max(cost.features_mb, 1e-6))
        cached = max(min(wanted, fits), LEAST_CACHED, settings.crops)
    if settings.steps is not None:
        return Shares(cached, settings.steps)
    left = seconds - settings.validations * scoring_s - cached * cost.encode_s
    return Shares(cached, max(LEAST_STEPS, int(left / max(cost.step_s, 1e-6))))


def write_plan(folder: Path, plan: RunPlan) -> None:
    """Write ``plan.json``; it appears whole or not at all."""
    path = folder / PLAN_FILE
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        partial.write_text(plan.model_dump_json(indent=2), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def read_plan(folder: Path, digest: str) -> RunPlan | None:
    """The plan of a run that was begun in `folder`; None where none was.

    Raises
    ------
    SettingsError
        Where the run is another one: other images, labels, base or settings.
    """
    path = folder / PLAN_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        plan = RunPlan.from_mapping(values)
    except (OSError, ValueError, SettingsError) as error:
        raise SettingsError(
            f"{path} cannot be read ({error}); start the fine-tuning anew, or delete {folder}"
        ) from error
    if plan.digest != digest:
        raise SettingsError(
            f"{folder} holds an unfinished fine-tuning of other images, labels, base or settings; "
            "start anew, which forgets it, or name another output"
        )
    return plan
