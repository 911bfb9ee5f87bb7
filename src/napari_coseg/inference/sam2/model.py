"""A SAM2 or SAM2.1 checkpoint as sam2's own model, for its prompts of points and boxes.

The network is what sam2 builds from its own configuration file; version and size are told by the
names and shapes of the file's entries. torchvision, which sam2's image predictor asks for, is not
needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.download import SAM2_CHECKPOINTS, RemoteCheckpoint, place_of
from napari_coseg.models.checkpoints.from_sam2 import size_name, trunk_size
from napari_coseg.models.checkpoints.safe import check_finite, check_shapes, load_state_dict

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

LARGEST_FILE_BYTES = 4 * 10**9
"""The largest of SAM2's files has 0.9 GB; one with the state of its training has about thrice."""

HOW_TO_GET = (
    "give one of SAM2's or SAM2.1's files (tiny, small, base-plus or large), as "
    "`napari-coseg models download sam2.1-tiny` fetches it"
)
_LETTERS = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
_ONLY_IN_2_1 = "no_obj_embed_spatial"
_MOST_NUMBERS = 250_000_000  # SAM2.1 large has 224 millions

Shapes = Mapping[str, tuple[int, ...]]


class Sam2Kind(NamedTuple):
    """Which of SAM2's networks: ``sam2`` or ``sam2.1``, and a size as in `HIERA_SIZES`."""

    version: str
    size: str

    def __str__(self) -> str:
        return f"{self.version.upper()} {self.size}"

    @property
    def configuration(self) -> str:
        """The name of sam2's own configuration file."""
        return f"configs/{self.version}/{self.version}_hiera_{_LETTERS[self.size]}.yaml"


class LoadedSam2(NamedTuple):
    """A network with its weights, and what it is called."""

    model: SAM2Base
    name: str


def load_sam2(path: str | Path, device: str = "cpu") -> LoadedSam2:
    """SAM2's network with the weights of a file, ready to answer.

    Parameters
    ----------
    path
        A file of ``torch.save`` or safetensors, read as `safe.load_state_dict` does.
    device
        A name that torch knows.

    Raises
    ------
    CheckpointError
        Where the file is missing, too large, no checkpoint of SAM2, of a size that sam2 has no
        configuration for, or holds numbers that are not finite.
    """
    path = Path(path).expanduser()
    check_file(path)
    state = load_state_dict(path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    kind = recognise(shapes, str(path))
    model = build(kind)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_shapes(shapes, expected, str(path))
    check_finite(state, str(path))
    # The file's own tensors, so that there are never two copies of them.
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return LoadedSam2(model.requires_grad_(False).to(device).eval(), str(kind))


def check_file(path: Path) -> None:
    """There is such a file, of a size that SAM2's may have; nothing of it is read."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; {HOW_TO_GET}")
    size = path.stat().st_size
    if size > LARGEST_FILE_BYTES:
        raise CheckpointError(
            f"{path} has {size / 1e9:,.1f} GB, too much for SAM2 (at most 0.9 GB); {HOW_TO_GET}"
        )


def recognise(shapes: Shapes, told: str = "the file") -> Sam2Kind:
    """Which of SAM2's networks has entries of these names and shapes.

    Raises
    ------
    CheckpointError
        If none has.
    """
    try:
        size = trunk_size(shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{told} is no checkpoint of SAM2: {error}; {HOW_TO_GET}") from error
    name = size_name(size)
    if name not in _LETTERS:
        raise CheckpointError(
            f"{told} has a trunk of {size[0]} channels and stages of {size[1]} blocks, which is "
            f"none of SAM2's; {HOW_TO_GET}"
        )
    return Sam2Kind("sam2.1" if _ONLY_IN_2_1 in shapes else "sam2", name)


def build(kind: Sam2Kind) -> SAM2Base:
    """sam2's own network; its weights hold any numbers, and reserve memory but do not fill it."""
    from sam2.build_sam import build_sam2

    from napari_coseg.models.checkpoints.frugal import FrugalBuilding

    with FrugalBuilding(_MOST_NUMBERS):
        model: SAM2Base = build_sam2(kind.configuration, device="cpu")
    return model


def at_hand() -> list[tuple[RemoteCheckpoint, Path]]:
    """SAM2's files that lie in the folder of downloads, whole by their size, SAM2.1 first.

    Their checksums are not looked at: that takes seconds.
    """
    places = [(checkpoint, place_of(checkpoint)) for checkpoint in SAM2_CHECKPOINTS.values()]
    return [
        (checkpoint, path)
        for checkpoint, path in places
        if path.is_file() and path.stat().st_size == checkpoint.size_bytes
    ]
