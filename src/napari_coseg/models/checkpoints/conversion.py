"""Shared steps of importing the authors' checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from napari_coseg.core.card import Normalisation
from napari_coseg.core.errors import CheckpointError, SettingsError
from napari_coseg.models.checkpoints.safe import check_finite, check_shapes

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.core.card import ModelCard
    from napari_coseg.models.base import SegmentationModel

Network = TypeVar("Network", bound="SegmentationModel")

_MEAN = Normalisation().mean
SLIP = Normalisation(mean=_MEAN, std=_MEAN)
"""Both released codes divide by the *means* of the channels; their weights were trained so."""


class ImportReport(NamedTuple):
    """Result of an import.

    used
        Entries that now fill the network.
    ignored
        Names of unused entries.
    """

    used: int
    ignored: tuple[str, ...]


def convert_entries(
    state: Mapping[str, Tensor],
    rename: Callable[[str], str | None],
    reshape: Callable[[str, Tensor], Tensor],
) -> tuple[dict[str, Tensor], ImportReport]:
    """Convert names and shapes of all entries to ours.

    Parameters
    ----------
    rename
        The authors' name of an entry -> ours; None for unused entries.
    reshape
        Our name of an entry and its value -> the value in our shape.

    Raises
    ------
    CheckpointError
        If two entries have the same target, or one is empty.
    """
    converted: dict[str, Tensor] = {}
    ignored = []
    for theirs, value in state.items():
        if not value.numel():  # its other sides could claim a network of any size
            raise CheckpointError(
                f"{theirs} {tuple(value.shape)} is empty; download the checkpoint again"
            )
        ours = rename(theirs)
        if ours is None:
            ignored.append(theirs)
            continue
        if ours in converted:
            raise CheckpointError(f"{theirs} is in the checkpoint twice, for {ours}")
        converted[ours] = reshape(ours, value)
    return converted, ImportReport(len(converted), tuple(ignored))


def as_vector(ours: str, value: Tensor) -> Tensor:
    """Reshape the no-mask vector, a (1, C) table in the authors' files, to (C,)."""
    is_table = ours.endswith("_prompt.no_mask") and value.ndim == 2 and value.shape[0] == 1
    return value[0] if is_table else value


def size_of(state: Mapping[str, Tensor], name: str, axis: int, network: str) -> int:
    """A side of an entry that determines a size of the network.

    Raises
    ------
    CheckpointError
        If there is no such entry or axis; `network` is the expected family.
    """
    shape = tuple(state[name].shape) if name in state else ()
    if axis >= len(shape):
        raise CheckpointError(
            f"the checkpoint is not a {network} of the authors: {name} is missing or has shape "
            f"{shape}; the network's size cannot be determined"
        )
    return shape[axis]


def built(
    network: type[Network], card: ModelCard, state: Mapping[str, Tensor], source_name: str
) -> Network:
    """Build the empty network of `card` for `state`, without a random start.

    Raises
    ------
    CheckpointError
        If the card describes no network, or a larger one than `state`.
    """
    from napari_coseg.models.checkpoints.frugal import FrugalBuilding

    # Entries may share memory, so that a file claims more numbers than it holds.
    storages = {value.untyped_storage().data_ptr(): value for value in state.values()}
    stored = (value.untyped_storage().nbytes() // value.itemsize for value in storages.values())
    try:
        with FrugalBuilding(sum(stored)):
            return network(card)
    except (SettingsError, AssertionError, RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{source_name}: no network of its sizes can be built: {error}"
        ) from error


def filled(model: Network, state: Mapping[str, Tensor], source_name: str) -> Network:
    """Load the entries into the network and set evaluation mode.

    Raises
    ------
    CheckpointError
        If entries are unknown, missing, misshapen or not finite (named).
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_shapes({name: tuple(value.shape) for name, value in state.items()}, expected, source_name)
    check_finite(state, source_name)
    model.load_state_dict(dict(state))
    return model.eval()
