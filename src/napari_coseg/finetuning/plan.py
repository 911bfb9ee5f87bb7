"""The plan of a run: settled before its first step, and written down, so that it can resume."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from napari_coseg.core.card import Normalisation
from napari_coseg.core.errors import SettingsError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.settings import Settings
from napari_coseg.core.words import counted
from napari_coseg.finetuning.costs import StepCost
from napari_coseg.finetuning.inputs_snapshot import arrays_of
from napari_coseg.finetuning.interpolation import FRACTIONS
from napari_coseg.finetuning.request import PLAN_FILE
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.settings import FinetuneSettings

LEAST_STEPS = 20
CACHING_SHARE = 0.25
"""Of the time, at most, for features; the rest trains on them."""
LEAST_CACHED = 8


class OtherReviewsError(SettingsError):
    """An unfinished run started with other reviewed labels, and nothing else differs."""


class Origin(Settings):
    """What identifies a run: a call with the same origin resumes it."""

    base_sha256: str
    settings: FinetuneSettings
    reviewed: str = Field(description="SHA-256 over images, labels and classes")
    others: str = Field("", description="the same of images to measure forgetting, and to replay")
    images: int = 0
    objects: int = 0
    area_px: int = 0

    @classmethod
    def of(
        cls,
        reviewed: ReviewedSet,
        base_sha256: str,
        settings: FinetuneSettings,
        base_images: tuple[ReviewedImage, ...] = (),
        replayed: tuple[ReviewedImage, ...] = (),
    ) -> Origin:
        """Of what a run was given."""
        counts = reviewed.reviews()
        others = _digest(ReviewedSet((*base_images, *replayed)))
        return cls(
            base_sha256=base_sha256,
            settings=settings,
            reviewed=_digest(reviewed),
            others=f"{len(base_images)} {others}",
            images=counts.images,
            objects=counts.objects,
            area_px=counts.area_px,
        )

    def in_words(self) -> str:
        """How much is reviewed."""
        images, objects = counted(self.images, "image"), counted(self.objects, "whole object")
        return f"{images}, {objects} and {self.area_px / 1e6:.3f} Mpx"


class RunPlan(Settings):
    """Fixed for a run. A call with the same `origin` resumes it."""

    origin: Origin
    steps: int = Field(ge=1)
    validate_every: int = Field(ge=1)
    precision: str
    crop_px: int
    activation_checkpointing: bool | None = Field(
        None, description="whether blocks are computed twice; None: where memory runs out"
    )
    cached_crops: int = Field(0, ge=0)
    seconds_a_step: float = 0.0
    input: str = "as it is"
    normalisation: Normalisation = Normalisation()
    scores_before: dict[str, Any] = {}
    base_scores_before: dict[str, Any] = {}
    notes: tuple[str, ...] = ()


def _digest(reviewed: ReviewedSet) -> str:
    """SHA-256 over images, labels and classes."""
    digest = hashlib.sha256()
    for classes in (reviewed.semantic_classes, reviewed.instance_classes):
        digest.update(repr([(c.id, c.name) for c in classes]).encode())
    for image in reviewed.images:
        digest.update(repr((image.name, image.pixel_size_um, image.shape, image.range)).encode())
    for name, array in arrays_of(reviewed).items():
        digest.update(name.encode())
        digest.update(array.data)
    return digest.hexdigest()


class TimeBudget(NamedTuple):
    """What the time is spent on: crops to encode, and steps."""

    cached_crops: int
    steps: int


def validations_of(settings: FinetuneSettings) -> int:
    """How often the held-out part scores between the first step and the adapter's file."""
    return settings.validations + (len(FRACTIONS) if settings.interpolate else 0)


def divide_time(
    settings: FinetuneSettings, cost: StepCost, area_px: float, seconds: float, scoring_s: float
) -> TimeBudget:
    """Crops to encode, where features are cached, and as many steps as the rest allows.

    Every place is encoded `variants` times, as far as time and disk allow.

    Parameters
    ----------
    settings
        With the crops that fit.
    area_px
        Reviewed, in pixels of the model.
    seconds
        For both, and for the validations.
    scoring_s
        Of scoring the held-out part once.
    """
    cached = 0
    if settings.speed == "heads":
        places = max(1, math.ceil(2 * area_px / settings.crop_px**2))
        wanted = settings.variants * places
        if settings.steps is None:
            wanted = min(wanted, int(CACHING_SHARE * seconds / max(cost.encode_s, 1e-6)))
        else:
            wanted = min(wanted, settings.steps * settings.crops)  # more would not be looked at
        fits = int(settings.cache_mb / max(cost.features_mb, 1e-6))
        cached = max(min(wanted, fits), LEAST_CACHED, settings.crops)
    if settings.steps is not None:
        return TimeBudget(cached, settings.steps)
    left = seconds - validations_of(settings) * scoring_s - cached * cost.encode_s
    return TimeBudget(cached, max(LEAST_STEPS, int(left / max(cost.step_s, 1e-6))))


def write_plan(folder: Path, plan: RunPlan) -> None:
    """Write ``plan.json``; it appears whole or not at all."""
    with atomic_write(folder / PLAN_FILE, overwrite=True) as partial:
        partial.write_text(plan.model_dump_json(indent=2), encoding="utf-8")


def read_plan(folder: Path, origin: Origin) -> RunPlan | None:
    """The plan of the run in `folder`; None where there is none.

    Raises
    ------
    OtherReviewsError
        Where something else is reviewed than when the run started.
    SettingsError
        Where the run is of another base, settings or images to measure forgetting.
    """
    path = folder / PLAN_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        plan = RunPlan.from_mapping(values)
    except (OSError, ValueError, SettingsError) as error:
        raise SettingsError(
            f"{path} cannot be read ({error}); start the fine-tuning over, or delete {folder}"
        ) from error
    _check_same(folder, plan.origin, origin)
    return plan


def _check_same(folder: Path, before: Origin, now: Origin) -> None:
    """Check that a run resumes with what it started with."""
    was, is_now = before.settings.model_dump(), now.settings.model_dump()
    others = [
        f"{name} was {was[name]}, is {is_now[name]}" for name in was if was[name] != is_now[name]
    ]
    if before.base_sha256 != now.base_sha256:
        others.append("the base model is another file")
    if before.others != now.others:
        others.append("the images to measure forgetting on, or to replay, are others")
    if others:
        raise SettingsError(
            f"{folder} holds an unfinished fine-tuning that started otherwise: "
            f"{'; '.join(others)}. Repeat the same call, start over, which discards what it has "
            "trained, or name another output"
        )
    if before.reviewed == now.reviewed:
        return
    then, today = before.in_words(), now.in_words()
    changed = f"{today} are now" if today != then else "classes or labels of these have changed"
    raise OtherReviewsError(
        f"{folder.name} was started with other labels: {then} were reviewed then; {changed}. "
        "Resume it with the original labels, or start over with all that is reviewed now, which "
        "discards what it has trained"
    )
