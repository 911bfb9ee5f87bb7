"""Predict masks from points and boxes with SAM2, encoding each window of an image once.

    prompt -> window around it -> 8-bit RGB, resized to SAM2's input -> embedding (cached)
    embedding, prompt -> mask in the window, quality predicted by SAM2

Gives the same masks as sam2's image predictor, which needs torchvision.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_coseg.core.errors import Cancelled, EditError
from napari_coseg.inference.sam2.windows import (
    Prompt,
    SamMask,
    Window,
    field_px,
    is_reusable,
    window_around,
)

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base
    from torch import Tensor

    from napari_coseg.images.intake import RgbSource

CACHED_WINDOWS = 4
"""Number of embeddings in the cache; 16 MB each."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of SAM2's training
_POSITIVE, _NEGATIVE, _FIRST_CORNER, _LAST_CORNER = 1, 0, 2, 3  # SAM2's labels of points


class _Key(NamedTuple):
    """Image, slice, and half-open rows and columns of an encoded window."""

    key: Hashable
    z: int
    rows: tuple[int, int]
    columns: tuple[int, int]


class _Encoded(NamedTuple):
    embedding: Tensor
    fine: list[Tensor]


class SamPrompts:
    """Predicts masks from prompts with a model from `load_sam2`; caches the last embeddings."""

    def __init__(self, model: SAM2Base) -> None:
        self.model = model
        self._cache: OrderedDict[_Key, _Encoded] = OrderedDict()

    def answer(
        self,
        source: RgbSource,
        prompt: Prompt,
        *,
        z: int = 0,
        key: Hashable = None,
        pixel_size_um: Sequence[float] | None = None,
        progress: Callable[[float, str], None] = lambda fraction, message: None,
        should_cancel: Callable[[], bool] = lambda: False,
    ) -> SamMask:
        """Predict the mask of a prompted object.

        Parameters
        ----------
        z
            Slice of a stack.
        key
            Identifies the image in the cache.
        pixel_size_um
            Along y and x; None if unknown.

        Raises
        ------
        EditError
            If the prompt is outside the image or too large, or the mask is empty.
        Cancelled
            If `should_cancel` returned True; a finished embedding stays in the cache.
        """
        prompt = prompt.inside(source.plane_shape)
        field = field_px(pixel_size_um)
        window = self._window(prompt, source.plane_shape, field, (key, z))
        rows, columns = ((part.start, part.stop) for part in window)
        entry = _Key(key, z, rows, columns)
        if entry not in self._cache:
            progress(0.2, "SAM2 encodes the image")
            _stop_if(should_cancel)
            self._cache[entry] = self._encode(source.read(z, *window))
            while len(self._cache) > CACHED_WINDOWS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(entry)
        _stop_if(should_cancel)
        progress(0.9, "SAM2 predicts the mask")
        logits, quality = self._decode(self._cache[entry], prompt, window)
        return _cut_out(logits > 0, quality, window, source.plane_shape)

    def _window(
        self, prompt: Prompt, shape: tuple[int, int], field: int, plane: tuple[Hashable, int]
    ) -> Window:
        """The latest reusable window in the cache, or a new one."""
        new = window_around(prompt, shape, field)
        for entry in reversed(self._cache):
            window = (slice(*entry.rows), slice(*entry.columns))
            if entry[:2] == plane and is_reusable(window, new, prompt, shape):
                return window
        return new

    def _encode(self, rgb: np.ndarray) -> _Encoded:
        """Encode float32 (Y, X, 3) of 0..255, rounded to 8 bits as in SAM2's training."""
        import torch
        import torch.nn.functional as F

        side = self.model.image_size
        with torch.inference_mode():
            image = torch.from_numpy(np.rint(rgb)).to(self.model.device).permute(2, 0, 1)[None]
            square = F.interpolate(
                image / 255, (side, side), mode="bilinear", align_corners=False, antialias=True
            )
            mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
            try:
                found = self.model.forward_image((square - mean) / std)
            except torch.OutOfMemoryError as error:
                raise EditError(
                    f"there is not enough memory on {self.model.device} for SAM2; close other "
                    "programs, or choose a smaller size"
                ) from error
            *fine, embedding = found["backbone_fpn"]
            if self.model.directly_add_no_mem_embed:  # as for the first frame of a video
                embedding = embedding + self.model.no_mem_embed.view(1, -1, 1, 1)
        return _Encoded(embedding, fine)

    def _decode(
        self, encoded: _Encoded, prompt: Prompt, window: Window
    ) -> tuple[np.ndarray, float]:
        """Predict logits (Y, X) on the window's grid, and their quality."""
        import torch
        import torch.nn.functional as F

        size = tuple(part.stop - part.start for part in window)
        with torch.inference_mode():
            sparse, dense = self.model.sam_prompt_encoder(
                points=self._points(prompt, window), boxes=None, masks=None
            )
            masks, qualities, _, _ = self.model.sam_mask_decoder(
                image_embeddings=encoded.embedding,
                image_pe=self.model.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=prompt.is_ambiguous,
                repeat_image=False,
                high_res_features=encoded.fine,
            )
            best = int(qualities[0].argmax())
            logits = F.interpolate(
                masks[:, best : best + 1].float(), size, mode="bilinear", align_corners=False
            )
        return logits[0, 0].cpu().numpy(), float(qualities[0, best])

    def _points(self, prompt: Prompt, window: Window) -> tuple[Tensor, Tensor]:
        """Coordinates x, y (1, n, 2) in SAM2's input and labels (1, n); a box is two corners."""
        import torch

        points, labels = list(prompt.points), []
        if prompt.box is not None:
            points[:0] = [prompt.box[:2], prompt.box[2:]]
            labels += [_FIRST_CORNER, _LAST_CORNER]
        labels += [_POSITIVE if one else _NEGATIVE for one in prompt.positive]
        corner = [part.start for part in window]
        size = [part.stop - part.start for part in window]
        scaled = (np.array(points, dtype=float) - corner) / size * self.model.image_size
        device = self.model.device
        coordinates = torch.tensor(scaled[None, :, ::-1].copy(), dtype=torch.float, device=device)
        return coordinates, torch.tensor([labels], dtype=torch.int, device=device)


def _cut_out(mask: np.ndarray, quality: float, window: Window, shape: tuple[int, int]) -> SamMask:
    if not mask.any():
        raise EditError("SAM2 found no object there; draw a box around it, or its outline")
    spans = [np.flatnonzero(mask.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    at_side = any(
        (first == 0 and part.start > 0) or (last == size - 1 and part.stop < length)
        for (first, last), size, part, length in zip(spans, mask.shape, window, shape, strict=True)
    )
    cut = tuple(slice(int(first), int(last) + 1) for first, last in spans)
    corner = (window[0].start + cut[0].start, window[1].start + cut[1].start)
    return SamMask(mask[cut], corner, quality, bool(at_side))


def _stop_if(should_cancel: Callable[[], bool]) -> None:
    if should_cancel():
        raise Cancelled("SAM2 was cancelled; no labels were changed")
