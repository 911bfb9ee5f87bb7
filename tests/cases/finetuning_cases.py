"""Reviewed images made of discs, and a tiny base, for the tests of fine-tuning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cases.stub_models import disc_picture, spread_discs
from cases.tiny_models import tiny_card, tiny_model
from napari_coseg.core.card import ModelCard
from napari_coseg.core.types import LabelClass
from napari_coseg.finetuning import FinetuneSettings, ReviewedImage, ReviewedSet
from napari_coseg.finetuning.hooks import FinetuneHooks
from napari_coseg.finetuning.run import FinetuneResult, finetune
from napari_coseg.labels.editing.review import BOTH
from napari_coseg.models.checkpoints.native import save
from napari_coseg.models.registry import build

GLAND = (LabelClass(1, "gland", (10, 200, 30)),)
TYPES = (LabelClass(1, "round", (10, 200, 30)), LabelClass(2, "long", (20, 200, 30)))
DOCK_STEPS = 24
"""Of a training that a Fine-tune dock starts."""


def reviewed_image(number: int = 0, size: int = 96, **changes: Any) -> ReviewedImage:
    """Discs of two types on a region that fills the left half."""
    pixels, labels = disc_picture((size, size), spread_discs((size, size), seed=number))
    everywhere = np.ones((size, size), bool)
    types = np.where(labels > 0, 1 + labels % 2, 0).astype(np.uint8)
    regions = np.zeros((size, size), np.uint8)
    regions[:, : size // 2] = 1
    image = ReviewedImage(
        name=f"image {number}",
        image=pixels,
        pixel_size_um=0.5,
        semantic=regions,
        instances=labels,
        instance_types=types,
        semantic_known=everywhere,
        instances_known=everywhere,
    )
    return replace(image, **changes)


def reviewed_set(images: int = 2, **changes: Any) -> ReviewedSet:
    made = tuple(reviewed_image(i, **changes) for i in range(images))
    return ReviewedSet(made, GLAND, TYPES, "the test")


def settings(**changes: Any) -> FinetuneSettings:
    """A few steps of small crops, in float32 so that results are the same everywhere."""
    values: dict[str, Any] = {
        "steps": 4,
        "crops": 2,
        "crop_px": 64,
        "precision": "fp32",
        "interpolate": False,
        "validations": 2,
        "match_input": False,
        "variants": 2,
    }
    return FinetuneSettings.from_mapping(values | changes)


def base_file(folder: Path, card: ModelCard | None = None) -> Path:
    """A tiny base whose weights are random, with dropout where it trains."""
    path = folder / "base.safetensors"
    if not path.exists():
        card = card or tiny_card(fusion_dropout=0.2)
        small = card.model_copy(update={"tile_size_px": 128, "halo_px": 16})
        torch.manual_seed(0)
        stem = small.config["encoder"].get("stem_channels")
        save(path, build(small) if stem else tiny_model(small))
    return path


def labelled_folder(root: Path, images: int = 2, **description: Any) -> Path:
    """The same images as files of the layout of dataset "folder"."""
    for kind in ("images", "regions", "objects", "object_classes"):
        (root / kind).mkdir(parents=True)
    for i in range(images):
        image = reviewed_image(i)
        arrays = (image.image, image.semantic, image.instances, image.instance_types)
        for kind, array in zip(
            ("images", "regions", "objects", "object_classes"), arrays, strict=True
        ):
            assert array is not None
            Image.fromarray(array.astype(np.uint8)).save(root / kind / f"s{i}.png")
    classes = {"semantic_classes": GLAND, "instance_classes": TYPES}
    told: dict[str, Any] = {"pixel_size_um": 0.5}
    for task, entries in classes.items():
        told[task] = [{"id": c.id, "name": c.name, "color": c.color} for c in entries]
    (root / "dataset.json").write_text(json.dumps(told | description))
    return root


def made_workspace(
    root: Path,
    image: ReviewedImage,
    part: np.ndarray,
    targets: Any = BOTH,
    *,
    marked: bool = True,
    provenance: dict[str, Any] | None = None,
    region_classes: tuple[LabelClass, ...] = GLAND,
) -> Path:
    """One image, `part` of it reviewed for these, and one object `marked` as reviewed beside it."""
    import tifffile

    from napari_coseg.images.readers.registry import read_image
    from napari_coseg.labels.measure import class_table, labelled
    from napari_coseg.workspace.folder import create_workspace
    from napari_coseg.workspace.image import reference_of
    from napari_coseg.workspace.saved import Saved

    file = root / "image.tif"
    tifffile.imwrite(file, image.image)
    assert image.instances is not None and image.instance_types is not None
    ids = np.arange(1, image.instances.max() + 1)
    kinds = np.array([image.instance_types[image.instances == i][0] for i in ids])
    saved = Saved(
        labelled(
            image.instances,
            image.semantic,
            pixel_size_um=(0.5, 0.5),
            known=class_table(kinds, np.ones(len(ids))),
            classes=TYPES,
            region_classes=region_classes,
            provenance=provenance,
        )
    )
    marks = saved.reviewed.with_area(np.nonzero(part), targets)
    saved = replace(saved, reviewed=marks.with_objects([int(ids[-1])] if marked else []))
    with create_workspace(root / "mine.coseg") as workspace:
        workspace.add(reference_of(read_image(file), file, workspace.path), saved)
    return root / "mine.coseg"


def tuned(folder: Path, reviewed: ReviewedSet | None = None, **more: Any) -> FinetuneResult:
    """A fine-tuning in a folder of its own; settings and arguments of `finetune` by name."""
    known = {"base_validation", "replay", "restart", "hooks", "name"}
    arguments = {key: more.pop(key) for key in known & more.keys()}
    base = base_file(folder) if "base" not in more else more.pop("base")
    return finetune(
        reviewed or reviewed_set(),
        folder / "mine.safetensors",
        base=base,
        settings=settings(**more),
        device="cpu",
        **arguments,
    )


class StopAfter:
    """Cancels once, when a step or a kind of event has been reported."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.left, self.seen = kind, count, [("", {})][:0]

    def report(self, kind: str, values: dict[str, Any]) -> None:
        self.seen.append((kind, values))
        self.left -= kind == self.kind

    def hooks(self) -> FinetuneHooks:
        return FinetuneHooks(report=self.report, should_cancel=lambda: self.left <= 0)
