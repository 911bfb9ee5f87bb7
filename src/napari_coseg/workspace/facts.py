"""The content of `entry.json` and `workspace.json`, checked before it is used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from napari_coseg.core.errors import ImageError, SettingsError, WorkspaceError
from napari_coseg.core.geometry import ONLY_SIZE, Geometry
from napari_coseg.core.provenance import checked_provenance
from napari_coseg.core.settings import Settings
from napari_coseg.core.types import LabelClass
from napari_coseg.workspace.files import read_json
from napari_coseg.workspace.image import ContentHash, ImageReference

FORMAT_VERSION = 1
MOST_PIXELS = 2**33
"""Of one label image: 92,000 x 92,000. More is taken for damage before memory is asked for."""
LABEL_DTYPES = ("uint8", "uint16", "int32", "uint32", "int64")

Side = Annotated[int, Field(ge=1, le=2**31)]
Name = Annotated[str, Field(max_length=1000)]
Micrometres = Annotated[float, Field(gt=0, lt=1e9, allow_inf_nan=False)]
Channel = Annotated[int, Field(ge=0, le=255)]
DtypeName = Literal["uint8", "uint16", "int32", "uint32", "int64"]


def _checked_geometry(values: dict[str, Any]) -> dict[str, Any]:
    try:
        return Geometry.from_json(values).as_json()
    except ImageError as error:
        raise ValueError(str(error)) from error


GeometryJson = Annotated[dict[str, Any], AfterValidator(_checked_geometry)]
"""As `Geometry.as_json` gives it; None in workspaces that are older than geometries."""


class ClassFacts(Settings):
    """A `LabelClass`."""

    id: Annotated[int, Field(ge=1, le=2**31 - 1)]
    name: Name
    color: tuple[Channel, Channel, Channel]


class HashFacts(Settings):
    """A `ContentHash`."""

    method: Name
    size: Annotated[int, Field(ge=0)]
    digest: Name


class ImageFacts(Settings):
    """An `ImageReference`."""

    name: Name
    path: Annotated[str, Field(max_length=4096)] | None
    file_name: Annotated[str, Field(min_length=1, max_length=1000)]
    axes: Literal["YX", "YXC", "CYX", "ZYX", "ZYXC", "ZCYX"]
    shape: Annotated[tuple[Side, ...], Field(min_length=2, max_length=4)]
    pixel_size_um: tuple[Micrometres, ...] | None
    content: HashFacts | None
    geometry: GeometryJson | None = None


class EntryFacts(Settings):
    """One image's entry; `generation` names the files that hold its table, marks and journal."""

    format: Literal["napari-coseg entry"] = "napari-coseg entry"
    version: Literal[1] = 1
    generation: Annotated[int, Field(ge=1, le=10**9)] = 1
    image: ImageFacts
    shape: Annotated[tuple[Side, ...], Field(min_length=2, max_length=3)]
    offset: tuple[Annotated[int, Field(ge=0, le=2**31)], ...] = ()
    labels_dtype: DtypeName
    regions_dtype: DtypeName | None
    pixel_size_um: tuple[Micrometres, ...]
    geometry: GeometryJson | None = None
    classes: Annotated[tuple[ClassFacts, ...], Field(max_length=10_000)] = ()
    region_classes: Annotated[tuple[ClassFacts, ...], Field(max_length=10_000)] = ()
    provenance: Annotated[dict[str, Any], AfterValidator(checked_provenance)] = {}
    stale_ids: list[int] = []
    """Objects whose pixels changed without their rows; measured again when the entry is loaded."""
    regions_are_stale: bool = False
    """Regions changed without a word on which objects lie in them; then all are."""
    folding_ids: list[int] = []
    """As `stale_ids`, during a fold: recorded before chunks hold what the journal says."""
    folding_regions: bool = False
    """As `regions_are_stale`, while a fold is under way."""


class WorkspaceFacts(Settings):
    """What says that a folder is a workspace."""

    format: Literal["napari-coseg workspace"] = "napari-coseg workspace"
    version: Literal[1] = 1
    made_by: Name = ""


def read_entry_facts(path: Path) -> EntryFacts:
    """`entry.json`, checked.

    Raises
    ------
    WorkspaceError
    """
    facts = _understood(EntryFacts, path, "the description of an entry")
    if len(facts.pixel_size_um) != len(facts.shape) or len(facts.offset) not in (
        0,
        len(facts.shape),
    ):
        raise WorkspaceError(f"{path} is damaged: pixel size and offset do not fit the shape")
    if math.prod(facts.shape) > MOST_PIXELS:
        raise WorkspaceError(
            f"{path} tells of labels of {facts.shape} pixels, more than {MOST_PIXELS:,}; it is "
            "damaged or was not made by napari-coseg"
        )
    reference(facts.image)  # its paths are checked there
    if geometry_of_labels(facts).ndim != len(facts.shape):
        raise WorkspaceError(f"{path} is damaged: the geometry does not fit the shape")
    return facts


def geometry_of_labels(facts: EntryFacts) -> Geometry:
    """As it was kept; of an older workspace, from the size of a pixel and the offset."""
    if facts.geometry is not None:
        return Geometry.from_json(facts.geometry)
    size, offset = facts.pixel_size_um, facts.offset or (0,) * len(facts.shape)
    unplaced = Geometry.unknown(len(size)).crop(offset)
    return unplaced.with_pixel_size(size, assumed=ONLY_SIZE)


def read_workspace_facts(path: Path) -> WorkspaceFacts:
    """`workspace.json`, checked; raises `WorkspaceError`."""
    return _understood(WorkspaceFacts, path, "the description of a workspace")


def _understood(kind: type[Any], path: Path, what: str) -> Any:
    values = read_json(path, what)
    version = values.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise WorkspaceError(
            f"{path} is of version {version}, this napari-coseg reads {FORMAT_VERSION}; install a "
            "newer one"
        )
    try:
        return kind.from_mapping(values)
    except SettingsError as error:
        raise WorkspaceError(f"{path} is damaged or no {what[4:]}: {error}") from error


def reference(facts: ImageFacts) -> ImageReference:
    """The value for the facts."""
    values = {key: getattr(facts, key) for key in ImageFacts.model_fields}
    content = facts.content and ContentHash(**facts.content.model_dump())
    geometry = facts.geometry and Geometry.from_json(facts.geometry)
    return ImageReference(**(values | {"content": content, "geometry": geometry}))


def image_facts(image: ImageReference) -> ImageFacts:
    """The facts for the value."""
    content = image.content and HashFacts(
        method=image.content.method, size=image.content.size, digest=image.content.digest
    )
    values = {key: getattr(image, key) for key in ImageFacts.model_fields}
    geometry = image.geometry and image.geometry.as_json()
    return ImageFacts(**(values | {"content": content, "geometry": geometry}))


def class_facts(classes: tuple[LabelClass, ...]) -> tuple[ClassFacts, ...]:
    """The facts for the values."""
    return tuple(ClassFacts(id=one.id, name=one.name, color=one.color) for one in classes)


def label_classes(facts: tuple[ClassFacts, ...]) -> tuple[LabelClass, ...]:
    """The values for the facts."""
    return tuple(LabelClass(one.id, one.name, one.color) for one in facts)
