"""Import checkpoints of the authors' released Co-Seg++ code.

They are the state dict of the whole module: SAM2 with two prompt encoders and decoders, and unused
layers of SAM2 for video and clicks. An import gets the released code's settings where they differ
from the paper: SiLU after the convolution of the scan branch, no LayerNorm after the scan, and a
normalisation that divides by the *means* of the channels (a mistake that the weights rely on).
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
"""Default card of an import; fits 4 and 8 channels, as for PUMA."""


class Imported(NamedTuple):
    """A network with the authors' weights, in evaluation mode, and the import report."""

    model: CosegPlus
    report: ImportReport


# SAM2's layers for video, clicks and mask quality, and each decoder's copy of the convolutions for
# the high-resolution features, of which only the encoder's copy is called.
_NEVER_USED = re.compile(
    r"no_obj_ptr|obj_ptr_proj\..+|mask_downsample\..+|"
    r"stp_encoder_(sem|ins)\.(point_embeddings\.\d+|not_a_point_embed)\.weight|"
    r"mct_decoder_(sem|ins)\.iou_prediction_head\..+|"
    r"mct_decoder_(sem|ins)\.conv_s[01]\.(weight|bias)"
)

# Patterns and replacements, applied in order to the part after the task.
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

    None for an unused entry. Unknown names are returned unchanged and reported later.
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
    """Rename every entry; (1, C) tables become (C,).

    Raises
    ------
    CheckpointError
        If two entries have the same target.
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
        Path of the checkpoint, or its state dict.
    card
        Names, classes and pixel size; default `AS_PUMA`. Config and normalisation are replaced:
        sizes follow from the shapes, other settings are those of the released code.
    encoder
        The trunk's size or config, if it is none of SAM2's four: heads, windows and global
        attention cannot be read from shapes.

    Raises
    ------
    CheckpointError
        If entries are unknown, missing, misshapen or not finite (named), or the card's classes do
        not fit the channels.
    """
    from napari_coseg.models.coseg_plus.model import CosegPlus

    theirs, source_name = named_tensors(source, "the checkpoint")
    state, report = convert(theirs)
    card = card or AS_PUMA
    config = _read_config(state, encoder)
    card = card.model_copy(update={"config": config, "normalisation": SLIP})
    model = built(CosegPlus, card, state, source_name)
    return Imported(filled(model, state, source_name), report)


def _apply(rules: tuple[tuple[str, str], ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _read_config(state: Mapping[str, Tensor], encoder: str | HieraConfig | None) -> dict[str, Any]:
    """A `CosegPlusConfig` as JSON values: sizes from the shapes, the rest as released."""
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
    """Name of the SAM2 trunk with these shapes."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    size = trunk_size(shapes, prefix="encoder.trunk.")
    name = size_name(size)
    if name is None:
        raise CheckpointError(
            f"the trunk has {size[0]} channels and stages of {size[1]} blocks, which is none of "
            f"SAM2's sizes; give its HieraConfig as `encoder`"
        )
    return name
