"""Jobs of the worker process for SAM2, which keeps its weights and embeddings.

Runs in the worker process; knows neither napari nor Qt.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_coseg.core.types import Image
from napari_coseg.widgets.background.process import JobContext, Reply

if TYPE_CHECKING:
    from napari_coseg.images.intake import RgbSource
    from napari_coseg.images.intensity import Intensity
    from napari_coseg.inference.sam2.prompts import SamPrompts

LOAD = "napari_coseg.widgets.correct.sam_tasks:load"
ANSWER = "napari_coseg.widgets.correct.sam_tasks:answer"


class _Kept(NamedTuple):
    file: tuple[str, int]
    name: str
    prompts: SamPrompts
    intensities: dict[str, Intensity]


def load(job: JobContext, *, weights: str) -> Reply:
    """Load the network of a file; ``name`` is its name."""
    return Reply({"name": _loaded(job, weights).name})


def answer(
    job: JobContext,
    *,
    weights: str,
    key: str,
    name: str,
    axes: str,
    channels: list[int] | None,
    pixel_size_um: list[float] | None,
    z: int,
    points: list[list[float]],
    positive: list[bool],
    box: list[float] | None,
    to_image: list[list[float]],
    shape: list[int],
) -> Reply:
    """SAM2's mask for a prompt, on the labels' pixels.

    Array of the job: ``image``. Array of the reply: ``mask``, bool (Y, X); its values: ``corner``,
    ``quality`` and ``at_side`` as in `SamMask`.

    Parameters
    ----------
    key
        Identifies the image.
    pixel_size_um
        Of the image, along y and x.
    points, positive, box
        As in `Prompt`, in pixels of the labels.
    to_image, shape
        As in `on_labels`.
    """
    from napari_coseg.inference.sam2.windows import Prompt, on_labels

    kept = _loaded(job, weights)
    source = _source(job, kept, key, Image(job.arrays["image"], axes, None, name), channels)
    prompt = Prompt(
        tuple((y, x) for y, x in points),
        tuple(positive),
        None if box is None else (box[0], box[1], box[2], box[3]),
    )
    matrix = np.array(to_image, float)
    found = kept.prompts.answer(
        source,
        prompt.mapped(matrix),
        z=z,
        key=key,
        pixel_size_um=pixel_size_um,
        progress=job.progress,
        should_cancel=job.should_cancel,
    )
    mask, corner = on_labels(found, matrix, (shape[0], shape[1]))
    values = {"corner": list(corner), "quality": found.quality, "at_side": found.at_side}
    return Reply(values, {"mask": mask})


def _loaded(job: JobContext, weights: str) -> _Kept:
    """The network of a file; loaded again where the file has changed."""
    from napari_coseg.inference.loading import choose_device
    from napari_coseg.inference.sam2.model import load_sam2
    from napari_coseg.inference.sam2.prompts import SamPrompts

    path = Path(weights).expanduser()
    file = (str(path), path.stat().st_mtime_ns if path.is_file() else 0)
    kept: _Kept | None = job.kept.get("sam2")
    if kept is None or kept.file != file:
        job.kept.pop("sam2", None)  # free its memory first
        job.progress(0.0, f"loading {path.name}")
        found = load_sam2(path, choose_device())
        kept = job.kept["sam2"] = _Kept(file, found.name, SamPrompts(found.model), {})
    return kept


def _source(
    job: JobContext, kept: _Kept, key: str, image: Image, channels: list[int] | None
) -> RgbSource:
    """The image in 8-bit colours; its intensity window is measured once."""
    from napari_coseg.images.intake import RgbSource, understand

    if key not in kept.intensities:
        job.progress(0.1, "measuring the image's brightness")
    source = RgbSource(understand(image), channels, kept.intensities.get(key))
    kept.intensities[key] = source.intensity
    return source
