"""What imports of the authors' checkpoints share, whichever of their networks wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from napari_coseg.core.card import Normalisation
from napari_coseg.core.errors import CheckpointError, SettingsError
from napari_coseg.models.checkpoints.safe import check_finite, check_shapes

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.core.card import ModelCard
    from napari_coseg.models.base import CosegModel

Network = TypeVar("Network", bound="CosegModel")

_MEAN = Normalisation().mean
SLIP = Normalisation(mean=_MEAN, std=_MEAN)
"""Both released codes divide by the *means* of the channels: the standard deviation is set from the
mean, a slip that the weights are trained with."""


class ImportReport(NamedTuple):
    """What an import did.

    used
        Entries that now fill the network.
    ignored
        Names of entries that the network never uses.
    """

    used: int
    ignored: tuple[str, ...]


def convert_entries(
    state: Mapping[str, Tensor],
    rename: Callable[[str], str | None],
    reshape: Callable[[str, Tensor], Tensor],
) -> tuple[dict[str, Tensor], ImportReport]:
    """Every entry under our name, in our shape.

    Parameters
    ----------
    rename
        The authors' name of an entry -> ours; None where the network never uses it.
    reshape
        Our name of an entry and its value -> the value as our network has it.

    Raises
    ------
    CheckpointError
        If two entries would fill the same place, or one holds no numbers.
    """
    converted: dict[str, Tensor] = {}
    ignored = []
    for theirs, value in state.items():
        if not value.numel():  # its other sides could tell any size of a network
            raise CheckpointError(
                f"{theirs} {tuple(value.shape)} holds no numbers; fetch the checkpoint anew"
            )
        ours = rename(theirs)
        if ours is None:
            ignored.append(theirs)
            continue
        if ours in converted:
            raise CheckpointError(f"{theirs} stands twice in the checkpoint, for {ours}")
        converted[ours] = reshape(ours, value)
    return converted, ImportReport(len(converted), tuple(ignored))


def as_vector(ours: str, value: Tensor) -> Tensor:
    """The vector that stands for no mask, which the authors keep as a (1, C) table, as (C,)."""
    is_table = ours.endswith("_prompt.no_mask") and value.ndim == 2 and value.shape[0] == 1
    return value[0] if is_table else value


def size_of(state: Mapping[str, Tensor], name: str, axis: int, network: str) -> int:
    """One side of an entry, from which the network's size is told.

    Raises
    ------
    CheckpointError
        Where there is no such entry or axis; `network` is what the checkpoint was taken for.
    """
    shape = tuple(state[name].shape) if name in state else ()
    if axis >= len(shape):
        raise CheckpointError(
            f"the checkpoint is no {network} of the authors: {name} is missing or has shape "
            f"{shape}; it cannot tell the network's size"
        )
    return shape[axis]


def built(
    network: type[Network], card: ModelCard, state: Mapping[str, Tensor], told: str
) -> Network:
    """The network of `card`, to be filled with `state`: no random start, and no larger than that.

    Raises
    ------
    CheckpointError
        If no network can be built of the card, or only one too large; `told` is the source.
    """
    from napari_coseg.models.checkpoints.frugal import FrugalBuilding

    # Entries may share memory, so that a file claims more numbers than it has.
    storages = {value.untyped_storage().data_ptr(): value for value in state.values()}
    stored = (value.untyped_storage().nbytes() // value.itemsize for value in storages.values())
    try:
        with FrugalBuilding(sum(stored)):
            return network(card)
    except (SettingsError, AssertionError, RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{told}: no network of its sizes can be built: {error}") from error


def filled(model: Network, state: Mapping[str, Tensor], told: str) -> Network:
    """The network with these entries, in evaluation mode.

    Raises
    ------
    CheckpointError
        If entries are unknown, missing, misshapen or not finite (named); `told` is the source.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_shapes({name: tuple(value.shape) for name, value in state.items()}, expected, told)
    check_finite(state, told)
    model.load_state_dict(dict(state))
    return model.eval()
