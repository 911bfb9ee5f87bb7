"""Read and write adapter files: weight differences to a base model, with a card.

One safetensors file. Entries are *differences* to the base with its new classes and LoRA
(`napari_coseg.models.adapted.starting_network`); unchanged entries are left out:

    difference/<name>   float16, added to the start's entry
    rows/<name>         int8, with scale/<name> float32 (rows,): their product is added
    whole/<name>        float16, in place of the start's entry (added LoRA, whose random start
                        differs between versions of torch)

Rows of 8 bits are used if float16 would exceed `LARGEST_FILE_MB`; the error of a weight is then at
most 1/254 of the largest change in its row. The base itself is never written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import CheckpointError, CosegError, SettingsError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.settings import Settings
from napari_coseg.models.checkpoints.safe import check_finite, listed, load_state_dict, read_header

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.models.base import CosegModel

CARD_KEY = "napari_coseg_adapter"
FORMAT_VERSION = 1
LARGEST_FILE_MB = 40
DIFFERENCE, ROWS, SCALE, WHOLE = "difference/", "rows/", "scale/", "whole/"
LORA_PREFIX = "lora."

Origins = tuple[tuple[int, ...], ...]


class AdapterCard(Settings):
    """Description of an adapter, stored as JSON in its file.

    `semantic_origins` and `instance_origins` give the ids of the base classes of each class of
    `model`: none for a new class, several for a merged one.
    """

    format_version: int = FORMAT_VERSION
    name: str = Field(min_length=1)
    base_name: str
    base_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the base's weights file")
    model: ModelCard = Field(description="of the adapted network: its classes, its normalisation")
    semantic_origins: Origins = ()
    instance_origins: Origins = ()
    parts: tuple[str, ...] = Field(description="what was trained")
    lora_rank: int = Field(0, ge=0, le=256, description="of LoRA put in from outside")
    frozen_sha256: str = Field("", description="of all that was not trained, before and after")
    encoding: Literal["float16", "int8"] = "float16"
    date: str = Field("", description="ISO 8601, when the training ended")
    images: int = Field(0, ge=0, description="with reviewed regions")
    objects: int = Field(0, ge=0, description="reviewed ones")
    scores: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    notes: str = ""


def save_adapter(
    path: str | Path, trained: CosegModel, start: CosegModel, card: AdapterCard
) -> AdapterCard:
    """Write the changes from `start` to `trained` atomically; returns the card as written.

    Raises
    ------
    CheckpointError
        If weights are not finite, or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    after = _on_cpu(trained.state_dict())
    check_finite(after, f"{path} is not written: the fine-tuned model")
    changes = _changes(_on_cpu(start.state_dict()), after, card.lora_rank > 0)
    numbers = sum(value.numel() for value in changes.values())
    small = 2 * numbers <= LARGEST_FILE_MB * 1e6
    card = card.model_copy(update={"encoding": "float16" if small else "int8"})
    entries = _encoded(changes, card.encoding)
    check_finite(entries, f"{path} is not written: changes beyond float16 in the model")
    path = Path(path)
    with atomic_write(
        path, overwrite=True, error=CheckpointError, failures=(SafetensorError,)
    ) as partial:
        save_file(entries, partial, metadata={CARD_KEY: card.model_dump_json()})
    return card


def read_adapter_card(path: str | Path) -> AdapterCard:
    """Read the card of an adapter file, without its weights.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or is not an adapter of this version's format.
    """
    metadata = read_header(path).metadata
    if CARD_KEY not in metadata:
        raise CheckpointError(
            f"{path} is not an adapter: it has no adapter card; adapters are written by "
            "`napari-coseg finetune`"
        )
    try:
        values = json.loads(metadata[CARD_KEY])
        version = values.get("format_version") if isinstance(values, dict) else None
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} is an adapter of format {version!r}; this version of napari-coseg reads "
                f"format {FORMAT_VERSION}: update it"
            )
        return AdapterCard.from_mapping(values)
    except (ValueError, RecursionError, SettingsError) as error:
        raise CheckpointError(f"{path}: its adapter card cannot be read: {error}") from error


def with_adapter(base: CosegModel, base_sha256: str, path: str | Path) -> CosegModel:
    """Apply an adapter to a copy of its base; `base` is unchanged.

    Parameters
    ----------
    base_sha256
        SHA-256 of the file of `base`.

    Raises
    ------
    CheckpointError
        If the adapter was made for another base, or is broken.
    """
    import torch

    card = read_adapter_card(path)
    check_base(card, base_sha256, base.card.name, path)
    try:
        network = start_of(base, card)
    except CheckpointError as error:
        raise CheckpointError(f"{path} does not fit its base: {error}") from error
    entries = load_state_dict(path)
    check_finite(entries, str(path))
    state = network.state_dict()
    with torch.no_grad():
        for name, change in _decoded(entries, state, str(path)).items():
            whole = f"{WHOLE}{name}" in entries
            value = state[name]  # shares memory with the network
            value.copy_(change.to(value)) if whole else value.add_(change.to(value))
    return network.eval()


def start_of(base: CosegModel, card: AdapterCard) -> CosegModel:
    """The starting network of the adapter of `card`: base weights, the adapter's classes."""
    from napari_coseg.models.adapted import starting_network

    return starting_network(
        base,
        card.model,
        card.semantic_origins,
        card.instance_origins,
        card.lora_rank,
        lambda grown: _build_quietly(base, grown),
    )


def check_base(card: AdapterCard, base_sha256: str, base_name: str, path: str | Path) -> None:
    """Refuse any base but the adapter's own."""
    if card.base_sha256 == base_sha256:
        return
    raise CheckpointError(
        f"{path} adapts {card.base_name!r} with the hash {card.base_sha256[:12]}..., but the model "
        f"is {base_name!r} with {base_sha256[:12]}...: its changes do not apply there; load the "
        "adapter on its own base, or fine-tune this model again"
    )


def fingerprint(state: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """SHA-256 of names, shapes, types and bits of the entries, in the order of names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(names):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _changes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], own_lora: bool
) -> dict[str, Tensor]:
    import torch

    changes = {}
    for name, value in after.items():
        if own_lora and name.startswith(LORA_PREFIX):
            changes[f"{WHOLE}{name}"] = value
        elif not torch.equal(value, before[name]):
            changes[f"{DIFFERENCE}{name}"] = value - before[name]
    return changes


def _encoded(changes: Mapping[str, Tensor], encoding: str) -> dict[str, Tensor]:
    import torch

    entries = {}
    for key, value in changes.items():
        name = key.removeprefix(DIFFERENCE)
        if encoding == "int8" and key.startswith(DIFFERENCE) and value.ndim > 1:
            flat = value.float().flatten(1)
            scale = flat.abs().amax(1) / 127
            rounded = (flat / scale.clamp(min=1e-30)[:, None]).round()
            entries[f"{ROWS}{name}"] = rounded.to(torch.int8).view(value.shape)
            entries[f"{SCALE}{name}"] = scale
        else:
            entries[key] = value.to(torch.float16)
    return {key: value.contiguous() for key, value in entries.items()}


def _decoded(
    entries: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Read the changes by entry name, checked against the network."""
    changes: dict[str, Tensor] = {}
    unexpected = []
    for key, value in entries.items():
        kind, _, name = key.partition("/")
        if f"{kind}/" == SCALE and f"{ROWS}{name}" in entries:
            continue
        known = f"{kind}/" in (DIFFERENCE, ROWS, WHOLE) and name in state and name not in changes
        if not known or value.shape != state[name].shape:
            unexpected.append(f"{key} {tuple(value.shape)}")
            continue
        changes[name] = value.float()
        if f"{kind}/" == ROWS:
            scale = entries.get(f"{SCALE}{name}")
            if scale is None or scale.shape != value.shape[:1]:
                unexpected.append(f"{key} without a scale for each row")
                continue
            changes[name] *= scale.view(-1, *(1,) * (value.ndim - 1))
    if unexpected:
        raise CheckpointError(f"{source} does not fit its base; unexpected: {listed(unexpected)}")
    return changes


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in state.items()}


def _build_quietly(base: CosegModel, card: ModelCard) -> CosegModel:
    """Build without a random start, limited to the size of the base and its new classes."""
    from napari_coseg.models.checkpoints.frugal import FrugalBuilding
    from napari_coseg.models.registry import build_two_task

    numbers = sum(value.numel() for value in base.state_dict().values())
    try:
        with FrugalBuilding(numbers):
            return build_two_task(card)
    except CosegError:
        raise
    except (AssertionError, RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"no network can be built from the adapter's card: {error}"
        ) from error
