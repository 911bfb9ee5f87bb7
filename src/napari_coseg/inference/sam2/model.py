"""Load SAM2 and SAM2.1 checkpoints as sam2's own models.

sam2 builds the network from its configuration file; names and shapes of the entries of the
checkpoint determine version and size. torchvision is not needed, as by sam2's image predictor.
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
"""The largest checkpoint has 0.9 GB, and about three times that with its training state."""

HOW_TO_GET = (
    "give a checkpoint of SAM2 or SAM2.1 (tiny, small, base-plus or large), for example from "
    "`napari-coseg models download sam2.1-tiny`"
)
_LETTERS = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
_ONLY_IN_2_1 = "no_obj_embed_spatial"
_MAX_PARAMETERS = 250_000_000  # SAM2.1 large has 224 million

Shapes = Mapping[str, tuple[int, ...]]


class Sam2Kind(NamedTuple):
    """Version (``sam2`` or ``sam2.1``) and size, as in `HIERA_SIZES`."""

    version: str
    size: str

    def __str__(self) -> str:
        return f"{self.version.upper()} {self.size}"

    @property
    def configuration(self) -> str:
        """Name of sam2's configuration file."""
        return f"configs/{self.version}/{self.version}_hiera_{_LETTERS[self.size]}.yaml"


class LoadedSam2(NamedTuple):
    """A network with its weights, and its name."""

    model: SAM2Base
    name: str


def load_sam2(path: str | Path, device: str = "cpu") -> LoadedSam2:
    """Load a checkpoint of SAM2.

    Parameters
    ----------
    path
        File of ``torch.save`` or safetensors, see `safe.load_state_dict`.
    device
        A torch device.

    Raises
    ------
    CheckpointError
        If the file is missing, too large or no checkpoint of SAM2, if sam2 has no configuration
        for its size, or if numbers are not finite.
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
    # assign=True uses the file's tensors without a second copy.
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return LoadedSam2(model.requires_grad_(False).to(device).eval(), str(kind))


def check_file(path: Path) -> None:
    """Check that a file exists and is not too large, without reading it."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; {HOW_TO_GET}")
    size = path.stat().st_size
    if size > LARGEST_FILE_BYTES:
        raise CheckpointError(
            f"{path} has {size / 1e9:,.1f} GB; SAM2 has at most 0.9 GB; {HOW_TO_GET}"
        )


def recognise(shapes: Shapes, file: str = "the file") -> Sam2Kind:
    """Find version and size of SAM2 from names and shapes of a checkpoint's entries.

    Raises
    ------
    CheckpointError
        If it is no checkpoint of SAM2; the message names `file`.
    """
    try:
        size = trunk_size(shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{file} is no checkpoint of SAM2: {error}; {HOW_TO_GET}") from error
    name = size_name(size)
    if name not in _LETTERS:
        raise CheckpointError(
            f"{file} has a trunk of {size[0]} channels and stages of {size[1]} blocks, which is "
            f"no size of SAM2; {HOW_TO_GET}"
        )
    return Sam2Kind("sam2.1" if _ONLY_IN_2_1 in shapes else "sam2", name)


def build(kind: Sam2Kind) -> SAM2Base:
    """Build sam2's network without initialising its weights."""
    from sam2.build_sam import build_sam2

    from napari_coseg.models.checkpoints.frugal import FrugalBuilding

    with FrugalBuilding(_MAX_PARAMETERS):
        model: SAM2Base = build_sam2(kind.configuration, device="cpu")
    return model


def downloaded() -> list[tuple[RemoteCheckpoint, Path]]:
    """List SAM2's checkpoints in the download folder, SAM2.1 first.

    Files are checked by size; checksums would take seconds.
    """
    files = [(checkpoint, place_of(checkpoint)) for checkpoint in SAM2_CHECKPOINTS.values()]
    return [
        (checkpoint, path)
        for checkpoint, path in files
        if path.is_file() and path.stat().st_size == checkpoint.size_bytes
    ]
