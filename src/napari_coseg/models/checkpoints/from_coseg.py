"""Import checkpoints of the authors' released Co-Seg code.

They are the state dict of the whole module, named as for Co-Seg++ (`from_coseg_plus`) except for
prompt encoders, decoders and LoRA. An import gets the released code's settings where they differ
from the paper: LoRA that changes half of the queries and values where a stage begins, a mask
reduced in two steps, a spare token, and a normalisation that divides by the channel *means*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints import from_coseg_plus
from napari_coseg.models.checkpoints.conversion import (
    SLIP,
    ImportReport,
    as_vector,
    built,
    convert_entries,
    filled,
    size_of,
)
from napari_coseg.models.checkpoints.from_coseg_plus import recognised_trunk
from napari_coseg.models.checkpoints.safe import named_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.models.coseg.model import Coseg
    from napari_coseg.models.nn.encoders.hiera import HieraConfig

AS_PUMA = ModelCard(
    name="Co-Seg (imported)",
    family="coseg",
    config={},
    semantic_classes=(ClassEntry(id=1, name="tumour", color=(200, 60, 60)),),
    pixel_size_um=0.25,
    tile_size_px=1024,
    halo_px=128,
    training_data="unknown; the class is assumed to be that of PUMA (paper, section 3.1)",
    notes="imported from a checkpoint of the authors' released code",
)
"""Default card of an import; fits 1 and 3 channels, as for PUMA."""


class Imported(NamedTuple):
    """A network with the authors' weights, in evaluation mode, and the import report."""

    model: Coseg
    report: ImportReport


_OURS_ALONE = re.compile(r"(?:module\.)?(?:model\.)?(?:RP_encoder|MP_decoder)_(?:sem|ins)\.")
_WRAPPING = re.compile(r"(?:module\.)?(?:model\.)?")
_LORA = re.compile(r"image_encoder\.trunk\.blocks\.(\d+)\.attn\.edge_w_([ab])_lora_([qv])\.weight")
_LORA_STEPS = {"a": "down", "b": "up"}
_LORA_TARGETS = {"q": "query", "v": "value"}
# SAM's first token is for a single mask, the others for several. The semantic head reads the first,
# the instance head the others; unread tokens only attend (spare) and are last here.
_TOKEN_MLP = re.compile(r"(semantic|instance)_decoder\.token_mlps\.(\d+)(\..+)")
_FIRST_READ = {"semantic": 0, "instance": 1}


def recognises(names: Mapping[str, Any]) -> bool:
    """Whether the names are those of a Co-Seg checkpoint rather than Co-Seg++."""
    return any(_OURS_ALONE.match(name) for name in names)


def rename(name: str) -> str | None:
    """The authors' name of an entry -> ours.

    None for an unused entry. Unknown names are returned unchanged and reported later.
    """
    theirs = _WRAPPING.sub("", name, count=1)
    if lora := _LORA.fullmatch(theirs):
        return f"lora.{lora[1]}.{_LORA_TARGETS[lora[3]]}.{_LORA_STEPS[lora[2]]}.weight"
    shared = theirs.replace("RP_encoder_", "stp_encoder_").replace("MP_decoder_", "mct_decoder_")
    ours = from_coseg_plus.rename(shared)
    if ours == shared:
        return name
    if ours is not None and (mlp := _TOKEN_MLP.fullmatch(ours)):
        return _rename_token_mlp(mlp[1], int(mlp[2]), mlp[3])
    return ours


def convert(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ImportReport]:
    """Rename every entry; (1, C) tables become (C,), spare tokens come last.

    Raises
    ------
    CheckpointError
        If two entries have the same target.
    """
    return convert_entries(state, rename, _reshape)


def import_checkpoint(
    source: str | Path | Mapping[str, Tensor],
    card: ModelCard | None = None,
    encoder: str | HieraConfig | None = None,
) -> Imported:
    """A network with the authors' weights and the released code's settings.

    Parameters
    ----------
    source
        Path of the checkpoint, or its state dict.
    card
        Names, classes and pixel size; default `AS_PUMA`. Family, config and normalisation are
        replaced: sizes follow from the shapes, other settings are those of the released code.
    encoder
        The trunk's size or config, if it is none of SAM2's four: heads, windows and global
        attention cannot be read from shapes.

    Raises
    ------
    CheckpointError
        If entries are unknown, missing, misshapen or not finite (named), or the card's classes do
        not fit the channels.
    """
    from napari_coseg.models.coseg.model import Coseg

    theirs, source_name = named_tensors(source, "the checkpoint")
    state, report = convert(theirs)
    card = card or AS_PUMA
    config = _read_config(state, encoder)
    _check_classes(state, card)
    card = card.model_copy(update={"family": "coseg", "config": config, "normalisation": SLIP})
    model = built(Coseg, card, state, source_name)
    return Imported(filled(model, state, source_name), report)


def _rename_token_mlp(task: str, token: int, rest: str) -> str | None:
    """None for the MLP of a spare token."""
    channel = token - _FIRST_READ[task]
    spare = channel < 0 or (task == "semantic" and channel > 0)
    return None if spare else f"{task}_decoder.token_mlps.{channel}{rest}"


def _reshape(ours: str, value: Tensor) -> Tensor:
    if ours == "instance_decoder.mask_tokens" and value.ndim == 2:
        return value.roll(-_FIRST_READ["instance"], 0)
    return as_vector(ours, value)


def _read_config(state: Mapping[str, Tensor], encoder: str | HieraConfig | None) -> dict[str, Any]:
    """A `CosegConfig` as JSON values: sizes from the shapes, the rest as released."""
    from napari_coseg.models.coseg.config import AS_RELEASED

    trunk = encoder if encoder is not None else recognised_trunk(state)
    return {
        **AS_RELEASED,
        "encoder": trunk if isinstance(trunk, str) else trunk.model_dump(mode="json"),
        "width": _size(state, "semantic_decoder.mask_tokens", 1),
        "upscaling_channels": [
            _size(state, "semantic_decoder.upscaling.0.up.weight", 1),
            _size(state, "semantic_decoder.upscaling.1.up.weight", 1),
        ],
        "decoder_mlp_dim": _size(
            state, "semantic_decoder.transformer.layers.0.mlp.layers.0.weight", 0
        ),
        "fusion_mlp_dim": _size(state, "semantic_prompt.fusion.linear1.weight", 0),
        "lora_rank": _size(state, "lora.0.query.down.weight", 0),
    }


def _check_classes(state: Mapping[str, Tensor], card: ModelCard) -> None:
    from napari_coseg.models.coseg.model import head_channels

    for task, needed in zip(("semantic", "instance"), head_channels(card), strict=True):
        given = _size(state, f"{task}_decoder.mask_tokens", 0) - 1  # one is spare
        if given != needed:
            raise CheckpointError(
                f"the card's {task} classes need {needed} channels, but the checkpoint has "
                f"{given}; name the classes that the network was trained on"
            )


def _size(state: Mapping[str, Tensor], name: str, axis: int) -> int:
    return size_of(state, name, axis, "Co-Seg")
