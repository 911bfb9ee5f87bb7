"""Start a Co-Seg++ or Co-Seg network from a SAM2 or SAM2.1 checkpoint.

    SAM2's part                                       starts
    image_encoder.trunk, image_encoder.neck           trunk and neck; required
    sam_mask_decoder.conv_s0, conv_s1                 the projections of the fine features
    sam_mask_decoder.transformer, output_upscaling    the same parts of both decoders
    sam_prompt_encoder.mask_downscaling,              mask branch (Co-Seg's has another shape),
        no_mask_embed, pe_layer                       no-mask vector and positions of both prompt
                                                      encoders

Tokens, their MLPs, the scan branch, the fusion, the consistency maps, the adapters and LoRA have no
counterpart in SAM2. The released code of Co-Seg++ loads only trunk and neck; here every part that
fits starts from SAM2, and the report lists the parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.reports import StartReport
from napari_coseg.models.checkpoints.safe import check_finite, check_shapes, named_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.models.base import CosegModel

Size = tuple[int, tuple[int, ...]]
"""Channels of a trunk's first stage, and the number of blocks of each stage."""

TRUNK = "image_encoder.trunk."
REQUIRED = ("encoder.trunk", "encoder.neck")
ADAPTERS = "encoder adapters"
LORA = "encoder LoRA"

_DECODERS = r"(?:semantic|instance)_decoder\."
_PROMPTS = r"(?:semantic|instance)_prompt\."

# Our entries -> SAM2's. The first pattern that matches the start of a name applies.
_COUNTERPARTS = (
    (r"encoder\.(trunk|neck)\.", r"image_encoder.\1."),
    (r"encoder\.project_f([01])\.", r"sam_mask_decoder.conv_s\1."),
    (rf"{_DECODERS}transformer\.", "sam_mask_decoder.transformer."),
    (rf"{_DECODERS}upscaling\.0\.up\.", "sam_mask_decoder.output_upscaling.0."),
    (
        r"(?:semantic|instance)_decoder\.upscaling\.0\.norm\.",
        "sam_mask_decoder.output_upscaling.1.",
    ),
    (rf"{_DECODERS}upscaling\.1\.up\.", "sam_mask_decoder.output_upscaling.3."),
    (rf"{_PROMPTS}mask_branch\.", "sam_prompt_encoder.mask_downscaling."),
    (rf"{_PROMPTS}no_mask$", "sam_prompt_encoder.no_mask_embed.weight"),
    (rf"{_PROMPTS}position\.", "sam_prompt_encoder.pe_layer."),
)


def counterpart(name: str) -> str | None:
    """The SAM2 entry for our entry `name`; None without a counterpart."""
    if ".mlp.adapter." in name:
        return None
    plain = name.replace(".mlp.mlp.", ".mlp.")  # adapters wrap the trunk's MLPs
    for pattern, replacement in _COUNTERPARTS:
        renamed, found = re.subn(f"^{pattern}", replacement, plain)
        if found:
            return renamed
    return None


def initialise_encoder(
    model: CosegModel, source: str | Path | Mapping[str, Tensor], encoder_only: bool = False
) -> StartReport:
    """Fill trunk and neck, and other parts that fit, with SAM2's weights.

    Parameters
    ----------
    model
        Changed in place.
    source
        Path of a SAM2 or SAM2.1 checkpoint, or its state dict.
    encoder_only
        Do not fill decoders and prompt encoders.

    Raises
    ------
    CheckpointError
        If the trunk is of another size (both named), or entries of trunk or neck are missing,
        unknown, misshapen or not finite.
    """
    theirs, source_name = named_tensors(source, "the SAM2 checkpoint")
    size = _check_size(model, theirs, source_name)
    ours = model.state_dict()
    _check_required(ours, theirs, source_name)
    taken: dict[str, Tensor] = {}
    parts: dict[bool, list[str]] = {True: [], False: []}
    for part, names in _by_part(ours).items():
        wanted = part in REQUIRED or not encoder_only or part.startswith("encoder.project")
        found = _matching(names, ours, theirs) if wanted else {}
        taken |= found
        parts[bool(found)].append(part)
    check_finite(taken, source_name)
    model.load_state_dict(taken, strict=False)
    return StartReport(source_name, "SAM2", size, tuple(parts[True]), tuple(parts[False]))


def trunk_size(shapes: Mapping[str, tuple[int, ...]], prefix: str = TRUNK) -> Size:
    """Channels and stages of a Hiera trunk, from the shapes of its entries.

    Raises
    ------
    CheckpointError
        If there is no such trunk among the entries.
    """
    first = shapes.get(f"{prefix}patch_embed.proj.weight", ())
    blocks = {match[1] for name in shapes if (match := _block(prefix, name))}
    if not first or not blocks:
        raise CheckpointError(
            f"no Hiera trunk found: entries that begin with {prefix!r} were expected"
        )
    # A block that changes the number of channels has a projection, and opens a stage.
    opening = [i for i in map(int, blocks) if f"{prefix}blocks.{i}.proj.weight" in shapes]
    edges = [0, *sorted(opening), max(map(int, blocks)) + 1]
    return first[0], tuple(b - a for a, b in pairwise(edges))


def size_name(size: Size) -> str | None:
    """Name of a trunk of that size in `HIERA_SIZES`; None for other sizes."""
    from napari_coseg.models.nn.encoders.hiera import HIERA_SIZES

    for name, config in HIERA_SIZES.items():
        if (config.embed_dim, config.stages) == size:
            return name
    return None


def _block(prefix: str, name: str) -> re.Match[str] | None:
    return re.match(rf"{re.escape(prefix)}blocks\.(\d+)\.", name)


def _in_words(size: Size) -> str:
    words = f"{size[0]} channels and stages of {size[1]} blocks"
    name = size_name(size)
    return f"{name}, {words}" if name else words


def _check_size(model: CosegModel, theirs: Mapping[str, Tensor], source_name: str) -> str:
    from napari_coseg.models.nn.encoders.hiera import HieraEncoder

    found = trunk_size({name: tuple(value.shape) for name, value in theirs.items()})
    encoder = model.image_encoder
    if not isinstance(encoder, HieraEncoder):
        raise CheckpointError(f"{model.card.name!r} has no Hiera trunk to start from {source_name}")
    expected: Size = (encoder.config.embed_dim, encoder.config.stages)
    if found != expected:
        raise CheckpointError(
            f"{source_name} looks like SAM2 of another size ({_in_words(found)}); the network's "
            f"encoder is {_in_words(expected)}; choose the checkpoint of that size"
        )
    return size_name(found) or _in_words(found)


def _check_required(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], source_name: str
) -> None:
    expected = {
        renamed: tuple(value.shape)
        for name, value in ours.items()
        if _part(name) in REQUIRED and (renamed := counterpart(name))
    }
    found = {
        name: tuple(value.shape)
        for name, value in theirs.items()
        if name.startswith("image_encoder.")
    }
    check_shapes(found, expected, source_name)


def _part(name: str) -> str:
    """``semantic_decoder.transformer.layers.0...`` -> ``semantic_decoder.transformer``."""
    if name.startswith("lora."):
        return LORA
    return ADAPTERS if ".mlp.adapter." in name else ".".join(name.split(".")[:2])


def _by_part(names: Iterable[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(_part(name), []).append(name)
    return parts


def _matching(
    names: Iterable[str], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """SAM2's values for all of `names`, or none if any does not fit."""
    values: dict[str, Tensor] = {}
    for name in names:
        value = theirs.get(counterpart(name) or "")
        if value is not None and name.endswith(".no_mask") and value.shape[:1] == (1,):
            value = value[0]
        if value is None or value.shape != ours[name].shape:
            return {}
        values[name] = value
    return values
