"""A training small enough for a test: made-up batches, targets, recipes, a folder of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from napari_coseg.datasets.batches import Batch
from napari_coseg.models.base import FirstForward, TaskMaps, TwoForwards
from napari_coseg.training.loop import TrainingHooks, train
from napari_coseg.training.losses import Targets
from napari_coseg.training.recipe import Recipe
from test_models import TINY, small_card, small_model

SIZE = 32


def make_batch(step: int, crops: int = 2) -> Batch:
    """Crops labelled for one task each: regions, objects, regions, ..."""
    rng = np.random.default_rng(step)
    instances = np.zeros((crops, SIZE, SIZE), np.int32)
    instances[:, 4:12, 6:14] = 1
    objects = instances > 0
    even = np.arange(crops)[:, None, None] % 2 == 0
    for_regions = np.broadcast_to(even, instances.shape).copy()
    return Batch(
        images=rng.uniform(0, 255, (crops, 3, SIZE, SIZE)).astype(np.float32),
        semantic=objects.astype(np.uint8),
        semantic_known=for_regions,
        instances=instances,
        types=objects.astype(np.uint8) * 2,
        hv=rng.uniform(-1, 1, (crops, 2, SIZE, SIZE)).astype(np.float32) * objects[:, None],
        instances_known=~for_regions,
        types_known=~for_regions,
    )


def draw(step: int) -> list[Batch]:
    return [make_batch(step)]


def tiny_recipe(**changes: object) -> Recipe:
    config = {**TINY, "fusion_dropout": 0.2}
    values = {
        "name": "tiny",
        "steps": 6,
        "precision": "fp32",
        "card": small_card("coseg-plus", config).model_dump(),
        "batches": [{"dataset": "consep", "crop_px": 32, "crops": 1}],
        "optimiser": {"learning_rate": 1e-3, "ema_decay": 0.9, "weight_decay": 0.1},
        "checkpoint_every_steps": 2,
    }
    return Recipe.from_mapping({**values, **changes})


def without_dropout() -> dict[str, Any]:
    return {"card": small_card("coseg-plus", {**TINY, "fusion_dropout": 0.0}).model_dump()}


def trained(
    folder: Path, recipe: Recipe, draw: Any = draw, **hooks: object
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = small_model(config=recipe.card.config)
    return train(model, draw, recipe, folder, TrainingHooks(**hooks), workers=0).state_dict()


def losses_of(folder: Path) -> dict[tuple[int, str], float]:
    """(step, name) -> value, of a training's log."""
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()[1:]]
    return {(int(step), name): float(value) for step, name, value in rows}


def make_targets(images: int = 2) -> Targets:
    semantic = torch.zeros(images, SIZE, SIZE, dtype=torch.long)
    semantic[:, 8:24, 8:24] = 1
    objects = torch.zeros(images, SIZE, SIZE, dtype=torch.bool)
    objects[:, 4:12, 4:12] = True
    for_regions = (torch.arange(images)[:, None, None] % 2 == 0).expand_as(objects)
    return Targets(
        semantic=semantic,
        objects=objects,
        classes=objects.long() * 3,
        hv=torch.rand(images, 2, SIZE, SIZE) * objects[:, None],
        semantic_known=for_regions,
        objects_known=~for_regions,
        classes_known=~for_regions,
        crowded=torch.zeros_like(objects),
    )


def perfect(targets: Targets, confidence: float = 20.0) -> TwoForwards:
    """The output that answers every question rightly."""

    def one_hot(labels: torch.Tensor, channels: int) -> torch.Tensor:
        hot = torch.nn.functional.one_hot(labels, channels).permute(0, 3, 1, 2).float()
        return confidence * (2 * hot - 1)

    coarse = slice(None, None, 4)
    objects = one_hot(targets.objects.long(), 2)[:, 1:]
    regions = one_hot((targets.semantic > 0).long(), 2)[:, 1:]
    flat = torch.zeros(len(objects), 2, 2, 2)
    return TwoForwards(
        FirstForward(regions[..., coarse, coarse], objects[..., coarse, coarse], flat, flat),
        TaskMaps(one_hot(targets.semantic, 2), objects, one_hot(targets.classes, 5), targets.hv),
    )


def make_folder(root: Path, images: int = 3, size: int = 64) -> None:
    """The layout of dataset "folder", regions and typed objects on noise; image 0 is held out."""
    rng = np.random.default_rng(0)
    for kind in ("images", "regions", "objects", "object_classes"):
        (root / kind).mkdir(parents=True)
    objects = np.zeros((size, size), np.uint8)
    for number, corner in enumerate([(4, 4), (30, 8), (10, 40), (44, 44)], 1):
        objects[corner[0] : corner[0] + 12, corner[1] : corner[1] + 12] = number
    for i in range(images):
        pixels = rng.integers(0, 255, (size, size, 3)).astype(np.uint8)
        labels = np.roll(objects, 3 * i, axis=0)
        for kind, array in (
            ("images", pixels),
            ("regions", (np.arange(size)[:, None] + np.zeros(size) > 20 + i).astype(np.uint8)),
            ("objects", labels),
            ("object_classes", (labels > 0) * (1 + labels % 2)),
        ):
            Image.fromarray(array.astype(np.uint8)).save(root / kind / f"s{i}.png")
    classes = small_card("coseg-plus", TINY, regions=1, types=2)
    description = {
        "pixel_size_um": 0.5,
        "semantic_classes": [entry.model_dump() for entry in classes.semantic_classes],
        "instance_classes": [entry.model_dump() for entry in classes.instance_classes],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    (root / "held-out.json").write_text('{"validation": {"folder": ["s0"]}}')


def as_toml(values: dict[str, Any]) -> str:
    """A recipe's file, nested tables written inline."""
    return "\n".join(f"{name} = {_inline(value)}" for name, value in values.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{name} = {_inline(v)}" for name, v in value.items() if v is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)
