"""Mask prompts and attention of the two tasks' decoders (Co-Seg++ section 4.9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.images.intake import RgbSource, crop
from napari_coseg.images.readers.registry import as_image
from napari_coseg.inference.cutting import slicing_for
from napari_coseg.inference.loading import DEFAULT_MODEL, load_model
from napari_coseg.inference.model_grid import keeps_its_grid
from napari_coseg.inference.run import plan_plane, read_for
from napari_coseg.inference.settings import InferenceSettings

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.core.card import ModelCard
    from napari_coseg.inference.plane import TilePlan
    from napari_coseg.models.base import CosegModel


@dataclass(frozen=True, eq=False)
class Guidance:
    """Prompts and attention of one window of a plane, on the image's grid.

    Parameters
    ----------
    region_prompt, object_prompt
        float32 (Y, X) of 0..1: the first forward's masks. The region mask prompts the object
        decoder, the object mask the region decoder.
    region_attention, object_attention
        float32 (Y, X): attention of the class tokens of that task's decoder to each pixel in the
        second forward, mean over heads and tokens; 1 is uniform attention. None for decoders
        without attention.
    rgb
        uint8 (Y, X, 3), the network's input.
    offset
        y and x of the window's corner in the image.
    """

    region_prompt: np.ndarray
    object_prompt: np.ndarray
    region_attention: np.ndarray | None
    object_attention: np.ndarray | None
    rgb: np.ndarray
    offset: tuple[int, int]

    def maps(self) -> dict[str, np.ndarray]:
        """Maps by their display name."""
        named = {
            "region mask, prompts objects": self.region_prompt,
            "object mask, prompts regions": self.object_prompt,
            "attention for regions": self.region_attention,
            "attention for objects": self.object_attention,
        }
        return {name: values for name, values in named.items() if values is not None}


def mutual_guidance(
    image: Any,
    model: str | Path | CosegModel = DEFAULT_MODEL,
    pixel_size_um: float | Sequence[float] | None = None,
    *,
    axes: str | None = None,
    channels: int | Sequence[int] | None = None,
    region: Sequence[tuple[int, int]] | None = None,
    z: int = 0,
) -> Guidance:
    """Predict the central tile of an image or region, with its prompts and attention.

    Parameters
    ----------
    image, model, pixel_size_um, axes, channels
        As for `segment`.
    region
        Half-open bounds for y and x.
    z
        Slice of a stack.

    Raises
    ------
    ImageError
        If the image is not supported, or its slices are not cut across Z.
    """
    from napari_coseg.models.base import CosegModel

    understood = as_image(image, axes, pixel_size_um)
    if not isinstance(model, CosegModel):
        model = load_model(model)
    card = model.card
    slicing = slicing_for(card, understood.axes, understood.geometry)
    if slicing.axis:
        raise ImageError(
            f"slices of this volume are cut across {'ZYX'[slicing.axis]}, so that their pixels are "
            "square; guidance is shown across Z alone: resample the volume"
        )
    source = read_for(card, understood, channels)
    y_um, x_um = (understood.pixel_size_um or (card.pixel_size_um,) * 2)[-2:]
    bounds = region or tuple((0, side) for side in source.plane_shape)
    largest = [_tile_side_on_image(card, size) for size in (y_um, x_um)]
    window = [_centre(part, side) for part, side in zip(bounds, largest, strict=True)]
    part, offset = crop(understood, window)
    source = RgbSource(part, channels, source.intensity)
    settings = InferenceSettings()
    plan = plan_plane(source.plane_shape, (y_um, x_um), card, settings, model.size_multiple)
    return _predict(source, plan, model, z, (offset[-2], offset[-1]))


def _predict(
    source: RgbSource, plan: TilePlan, model: CosegModel, z: int, offset: tuple[int, int]
) -> Guidance:
    import torch

    from napari_coseg.inference.plane import read_tile
    from napari_coseg.models.base import MaskPrompts
    from napari_coseg.models.nn.modes import evaluating

    tile = read_tile(source, plan, z, plan.tiles[0][0])
    device = next(model.buffers()).device
    images = torch.from_numpy(tile).permute(2, 0, 1)[None].contiguous().to(device)
    with evaluating(model), torch.inference_mode(), _recorded_attention(model) as attention:
        features = model.encode(model.normalise(images))
        first = model.first_forward(features)
        prompts = MaskPrompts(first.semantic_mask, first.instance_mask)
        model.second_forward(features, prompts)
    grid = features.embedding.shape[-2:]
    values = [first.semantic_mask[0, 0].sigmoid(), first.instance_mask[0, 0].sigmoid()]
    values += [
        (attention[task] * grid.numel()).unflatten(0, grid)
        for task in ("semantic", "instance")
        if task in attention
    ]
    maps: list[Any] = [_on_image(one, plan) for one in values]
    region_attention, object_attention = maps[2:] if len(maps) == 4 else (None, None)
    height, width = plan.image_shape
    rgb = source.read(z, slice(0, height), slice(0, width))
    shown = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return Guidance(maps[0], maps[1], region_attention, object_attention, shown, offset)


@contextmanager
def _recorded_attention(model: CosegModel) -> Iterator[dict[str, Tensor]]:
    """Record the attention of each decoder's tokens to the image in its last run: (N,) by task.

    sam2's fused attention does not return its weights, so they are computed again from its inputs.
    """
    from sam2.modeling.sam.transformer import TwoWayTransformer

    recorded: dict[str, Tensor] = {}

    def recorder(task: str, tokens: slice) -> Any:
        def record(attention: Any, _: Any, inputs: dict[str, Tensor]) -> None:
            recorded[task] = _attention_to_image(attention, inputs["q"][:, tokens], inputs["k"])

        return record

    hooks = [
        decoder.transformer.final_attn_token_to_image.register_forward_pre_hook(
            recorder("semantic" if "semantic" in name else "instance", decoder.answering),
            with_kwargs=True,
        )
        for name, decoder in model.named_modules()
        if isinstance(getattr(decoder, "transformer", None), TwoWayTransformer)
    ]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _attention_to_image(attention: Any, tokens: Tensor, pixels: Tensor) -> Tensor:
    """Attention (N,) of the first image's tokens to its N pixels, mean over heads and tokens."""
    heads = attention.num_heads
    query = attention.q_proj(tokens[:1]).unflatten(-1, (heads, -1)).transpose(1, 2)
    key = attention.k_proj(pixels[:1]).unflatten(-1, (heads, -1)).transpose(1, 2)
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
    return weights.mean(dim=(0, 1, 2)).float()


def _on_image(values: Tensor, plan: TilePlan) -> np.ndarray:
    """Resample a map of the padded tile, of any resolution, to the image: float32 (Y, X)."""
    import torch.nn.functional as F

    from napari_coseg.labels.tiling.resample import resample_maps

    enlarged = F.interpolate(
        values[None, None].float(), plan.network_shape, mode="bilinear", align_corners=False
    )
    (m_y, m_x), (n_y, n_x) = plan.model_shape, plan.image_shape
    on_model = enlarged[0, :, :m_y, :m_x].cpu().numpy()
    return resample_maps(on_model, plan.model_shape, plan.image_shape, (0, n_y), (0, n_x))[0]


def _tile_side_on_image(card: ModelCard, size_um: float) -> int:
    """Side of a tile in image pixels of this size."""
    factor = size_um / card.pixel_size_um
    return card.tile_size_px if keeps_its_grid(factor) else int(card.tile_size_px / factor)


def _centre(bounds: tuple[int, int], side: int) -> tuple[int, int]:
    start, stop = bounds
    spare = max(0, stop - start - max(1, side))
    return start + spare // 2, stop - (spare - spare // 2)
