"""Read and write native weights: one safetensors file with the `ModelCard` as JSON metadata.

Weights may be stored as float16 to halve the file; the network computes in float32.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import CheckpointError, SettingsError
from napari_coseg.core.files import atomic_write
from napari_coseg.models.checkpoints.safe import (
    check_finite,
    check_shapes,
    load_state_dict,
    read_header,
)

if TYPE_CHECKING:
    import torch

    from napari_coseg.models.base import SegmentationModel

CARD_KEY = "napari_coseg"
FORMAT_VERSION = 1


def save(
    path: str | Path,
    model: SegmentationModel,
    card: ModelCard | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model's weights and card atomically.

    Parameters
    ----------
    path
        Usually ends in ``.safetensors``. An existing file is replaced.
    model
        Its `state_dict` is written.
    card
        Default: the model's own card.
    dtype
        Floating-point type of stored weights, such as ``torch.float16``; None keeps theirs.
        Buffers are not converted: variances may exceed float16.

    Raises
    ------
    CheckpointError
        If weights are not finite (float16 ends at 65,504), or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    card = model.card if card is None else card
    _check_card(card, str(path))
    weights = {name for name, _ in model.named_parameters()}
    state = {
        name: value.detach().to("cpu", dtype if name in weights else None).contiguous()
        for name, value in model.state_dict().items()
    }
    check_finite(state, f"{path} is not written: the model")
    path = Path(path)
    if not path.parent.is_dir():
        raise CheckpointError(f"cannot write {path}: there is no folder {path.parent}")
    with atomic_write(
        path, overwrite=True, error=CheckpointError, failures=(SafetensorError,)
    ) as partial:
        save_file(state, partial, metadata={CARD_KEY: card.model_dump_json()})


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a native file, without its weights.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or has no card of this version's format.
    """
    return _card_of(read_header(path).metadata, path)


def load(path: str | Path, device: str | torch.device = "cpu") -> SegmentationModel:
    """Load the network of a native file, float32, in evaluation mode.

    Raises
    ------
    CheckpointError
        If the file is not native, or its entries are missing, unknown, misshapen or not finite.
    """
    header = read_header(path)
    card = _card_of(header.metadata, path)
    model = _build_to_be_filled(card, header.shapes, path)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_shapes(header.shapes, expected, str(path))
    state = load_state_dict(path)
    check_finite(state, str(path))
    model.load_state_dict(state)  # copies into float32
    return model.to(device).eval()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, as lower-case hexadecimal digits."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def _card_of(metadata: dict[str, str], path: str | Path) -> ModelCard:
    if CARD_KEY not in metadata:
        raise CheckpointError(
            f"{path} has no model card, so it is not a native weights file; convert checkpoints of "
            f"other programs with `napari-coseg models import`"
        )
    try:
        values = json.loads(metadata[CARD_KEY])
        if not isinstance(values, dict):
            raise CheckpointError(f"{path}: its model card is not a JSON object")
        version = values.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} is of format {version!r}; this version of napari-coseg reads format "
                f"{FORMAT_VERSION}: update it"
            )
        card = ModelCard.from_mapping(values)
    except (ValueError, RecursionError, SettingsError) as error:
        raise CheckpointError(f"{path}: its model card cannot be read: {error}") from error
    _check_card(card, str(path))
    return card


def _check_card(card: ModelCard, source: str) -> None:
    """Check that class ids are consecutive from 1, like the network's channels."""
    tasks: dict[str, Sequence[ClassEntry]] = {
        "semantic": card.semantic_classes,
        "instance": card.instance_classes,
    }
    for task, classes in tasks.items():
        ids = [entry.id for entry in classes]
        if ids != list(range(1, len(ids) + 1)):
            raise CheckpointError(
                f"{source}: the {task} classes of its card have ids {ids}; they must run from 1 "
                f"without holes, in the order of the network's channels"
            )


def _build_to_be_filled(
    card: ModelCard, shapes: dict[str, tuple[int, ...]], path: str | Path
) -> SegmentationModel:
    """Build without a random start, limited to the size of the file's weights."""
    from napari_coseg.models.checkpoints.frugal import FrugalBuilding
    from napari_coseg.models.registry import build

    numbers = sum(math.prod(shape) for shape in shapes.values())
    try:
        with FrugalBuilding(numbers):
            return build(card)
    except (SettingsError, AssertionError, RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: no network for its weights can be built from its card: {error}; it is "
            f"broken, or of a newer version of napari-coseg"
        ) from error
