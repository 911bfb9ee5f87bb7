"""Checkpoints that the authors' released Co-Seg++ code wrote.

They are the state dict of its whole module: SAM2 with the two prompt encoders and decoders, and
layers that SAM2 has for video and clicks, which Co-Seg++ never calls. An import gets the released
code's settings where they differ from the paper's: SiLU after the convolution of the scan branch,
no LayerNorm after the scan, and a normalisation that divides by the *means* of the channels (the
standard deviation is set from the mean, a slip the weights are trained with).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.conversion import (
    SLIP,
    ImportReport,
    as_vector,
    built,
    convert_entries,
    filled,
    size_of,
)
from napari_coseg.models.checkpoints.from_sam2 import size_name, trunk_size
from napari_coseg.models.checkpoints.safe import named_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.models.coseg_plus.model import CosegPlus
    from napari_coseg.models.nn.encoders.hiera import HieraConfig

AS_PUMA = ModelCard(
    name="Co-Seg++ (imported)",
    family="coseg-plus",
    config={},
    semantic_classes=(
        ClassEntry(id=1, name="tumour", color=(200, 60, 60)),
        ClassEntry(id=2, name="stroma", color=(80, 160, 90)),
    ),
    instance_classes=(
        ClassEntry(id=1, name="tumour cell", color=(230, 80, 60)),
        ClassEntry(id=2, name="lymphocyte", color=(70, 120, 230)),
        ClassEntry(id=3, name="other cell", color=(240, 200, 70)),
    ),
    pixel_size_um=0.25,
    tile_size_px=1024,
    halo_px=128,
    training_data="unknown; the classes are assumed to be those of PUMA (paper, section 4.1)",
    notes="imported from a checkpoint of the authors' released code",
)
"""The card of an import whose caller names no classes; fits 4 and 8 channels, as for PUMA."""


class Imported(NamedTuple):
    """A network with the authors' weights, in evaluation mode, and how it came to be."""

    model: CosegPlus
    report: ImportReport


# Layers that SAM2 has for video, clicks and mask quality, and each decoder's own copy of the
# convolutions for the high-resolution features: the copy beside the encoder is the one called.
_NEVER_USED = re.compile(
    r"no_obj_ptr|obj_ptr_proj\..+|mask_downsample\..+|"
    r"stp_encoder_(sem|ins)\.(point_embeddings\.\d+|not_a_point_embed)\.weight|"
    r"mct_decoder_(sem|ins)\.iou_prediction_head\..+|"
    r"mct_decoder_(sem|ins)\.conv_s[01]\.(weight|bias)"
)

# Applied one after the other to the part after the task; the first column is a pattern.
_ENCODER = (
    (r"^image_encoder\.", "encoder."),
    (r"^conv_s", "encoder.project_f"),
    (r"(blocks\.\d+)\.mlp\.", r"\1.mlp.mlp."),
    (r"(blocks\.\d+)\.train_edge\.D_fc1\.", r"\1.mlp.adapter.down."),
    (r"(blocks\.\d+)\.train_edge\.D_fc2\.", r"\1.mlp.adapter.up."),
)
_PROMPT = (
    (r"^pe_layer\.", "position."),
    (r"^no_mask_embed\.weight$", "no_mask"),
    (r"^mask_downscaling\.", "mask_branch."),
    (r"^cross_att\.", "fusion."),
    (r"^mixer\.A_log$", "sequence_branch.log_decay"),
    (r"^mixer\.D$", "sequence_branch.skip"),
    (r"^mixer\.in_proj\.", "sequence_branch.project_in."),
    (r"^mixer\.conv1d_x\.", "sequence_branch.convolution."),
    (r"^mixer\.x_proj\.", "sequence_branch.project_scan."),
    (r"^mixer\.dt_proj\.", "sequence_branch.project_step."),
    (r"^mixer\.out_proj\.", "sequence_branch.project_out."),
)
_DECODER = (
    (r"^mask_tokens\.weight$", "mask_tokens"),
    (r"^spatial_cons\.", "consistency."),
    (r"^output_upscaling\.0\.", "upscaling.0.up."),
    (r"^output_upscaling\.1\.", "upscaling.0.norm."),
    (r"^output_upscaling\.3\.", "upscaling.1.up."),
    (r"^output_hypernetworks_mlps\.", "token_mlps."),
)
_TASKS = {"sem": "semantic", "ins": "instance"}
_PARTS = {"stp_encoder": ("prompt", _PROMPT), "mct_decoder": ("decoder", _DECODER)}
_OF_A_TASK = re.compile(r"(stp_encoder|mct_decoder)_(sem|ins)\.(.+)")


def rename(name: str) -> str | None:
    """The authors' name of an entry -> ours.

    None for an entry that the network never uses. A name of neither kind comes back as it is, to be
    told as unknown.
    """
    theirs = name.removeprefix("module.").removeprefix("model.")
    if _NEVER_USED.fullmatch(theirs):
        return None
    of_a_task = _OF_A_TASK.fullmatch(theirs)
    if of_a_task:
        part, rules = _PARTS[of_a_task[1]]
        return f"{_TASKS[of_a_task[2]]}_{part}.{_apply(rules, of_a_task[3])}"
    ours = _apply(_ENCODER, theirs)
    return ours if ours.startswith("encoder.") else name


def convert(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ImportReport]:
    """Rename every entry; vectors that they keep as (1, C) tables become (C,).

    Raises
    ------
    CheckpointError
        If two entries would fill the same place.
    """
    return convert_entries(state, rename, as_vector)


def import_checkpoint(
    source: str | Path | Mapping[str, Tensor],
    card: ModelCard | None = None,
    encoder: str | HieraConfig | None = None,
) -> Imported:
    """A network with the authors' weights and the released code's settings.

    Parameters
    ----------
    source
        The checkpoint's path, or its state dict.
    card
        Names, classes and pixel size; `AS_PUMA` where None. Its config and normalisation are
        replaced: sizes are read off the shapes, the rest is as the released code has it.
    encoder
        The trunk's size or shape, where its shapes are none of SAM2's four: heads, windows and
        global attention leave no trace in them.

    Raises
    ------
    CheckpointError
        If entries are unknown, missing, misshapen or not finite (named), or the card's classes do
        not fit the channels.
    """
    from napari_coseg.models.coseg_plus.model import CosegPlus

    theirs, told = named_tensors(source, "the checkpoint")
    state, report = convert(theirs)
    card = card or AS_PUMA
    config = _read_config(state, encoder)
    card = card.model_copy(update={"config": config, "normalisation": SLIP})
    model = built(CosegPlus, card, state, told)
    return Imported(filled(model, state, told), report)


def _apply(rules: tuple[tuple[str, str], ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _read_config(state: Mapping[str, Tensor], encoder: str | HieraConfig | None) -> dict[str, Any]:
    """A `CosegPlusConfig` as plain JSON values: sizes off the shapes, the rest as released."""
    from napari_coseg.models.coseg_plus.config import AS_RELEASED

    def size(name: str, axis: int) -> int:
        return size_of(state, name, axis, "Co-Seg++")

    branch = "semantic_prompt.sequence_branch"
    trunk = encoder if encoder is not None else recognised_trunk(state)
    return {
        **AS_RELEASED,
        "encoder": trunk if isinstance(trunk, str) else trunk.model_dump(mode="json"),
        "width": size(f"{branch}.project_in.weight", 0),
        "upscaling_channels": [
            size("semantic_decoder.upscaling.0.up.weight", 1),
            size("semantic_decoder.upscaling.1.up.weight", 1),
        ],
        "decoder_mlp_dim": size("semantic_decoder.transformer.layers.0.mlp.layers.0.weight", 0),
        "fusion_mlp_dim": size("semantic_prompt.fusion.linear1.weight", 0),
        "scan_state": size(f"{branch}.log_decay", 1),
        "scan_rank": size(f"{branch}.project_step.weight", 1),
        "semantic_channels": size("semantic_decoder.mask_tokens", 0) - 1,
        "instance_channels": size("instance_decoder.mask_tokens", 0) - 1,
    }


def recognised_trunk(state: Mapping[str, Tensor]) -> str:
    """The name of the SAM2 trunk that has these shapes."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    size = trunk_size(shapes, prefix="encoder.trunk.")
    name = size_name(size)
    if name is None:
        raise CheckpointError(
            f"the trunk has {size[0]} channels and stages of {size[1]} blocks, which is none of "
            f"SAM2's sizes; give its HieraConfig as `encoder`"
        )
    return name
