"""Import checkpoints of the authors' released code: Co-Seg, Co-Seg++ and UniSeg."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.models.checkpoints import from_coseg, from_coseg_plus, from_uniseg
from napari_coseg.models.checkpoints.safe import load_state_dict

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.core.card import ModelCard
    from napari_coseg.models.nn.encoders.hiera import HieraConfig


def import_released(
    source: str | Path | Mapping[str, Tensor],
    card: ModelCard | None = None,
    encoder: str | HieraConfig | None = None,
) -> from_coseg.Imported | from_coseg_plus.Imported | from_uniseg.Imported:
    """Import a checkpoint of Co-Seg, Co-Seg++ or UniSeg, detected by the names of its entries.

    Parameters, result and errors are those of `from_coseg_plus.import_checkpoint`.
    """
    state = source if isinstance(source, Mapping) else load_state_dict(source)
    if from_coseg.recognises(state):
        return from_coseg.import_checkpoint(state, card, encoder)
    if from_uniseg.recognises(state):
        return from_uniseg.import_checkpoint(state, card)
    return from_coseg_plus.import_checkpoint(state, card, encoder)
