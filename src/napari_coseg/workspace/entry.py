"""An image's entry: consistent reading of its folder, and folding of its journal."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import EditError, WorkspaceError
from napari_coseg.core.files import sync
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Instances, LabelClass, Prediction
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.workspace import arrays
from napari_coseg.workspace.facts import (
    EntryFacts,
    class_facts,
    geometry_of_labels,
    label_classes,
    read_entry_facts,
    reference,
)
from napari_coseg.workspace.files import read_json, refusals, write_json
from napari_coseg.workspace.image import ImageReference, find_image
from napari_coseg.workspace.journal import DamagedJournal, read_journal
from napari_coseg.workspace.records import Record
from napari_coseg.workspace.replay import InMemory, Replay
from napari_coseg.workspace.saved import (
    Saved,
    read_numbers,
    remeasured,
    table_of,
    write_table,
)

ENTRY, LABELS, REGIONS, IMAGE = "entry.json", "labels.zarr", "regions.zarr", "image.npy"
_JOURNAL = re.compile(r"journal-(\d{6,10})\.bin")
_BY_GENERATION = re.compile(r"(?:journal|objects|reviewed)-(\d{6,10})\.(?:bin|csv|json)")
_TRIES = 5
ABANDONED = "what comes after is left out"


class Entry:
    """An image of a workspace, with what is known of it before its arrays are read.

    Parameters
    ----------
    folder
        Its own folder, in ``entries`` of the workspace.
    workspace
        The folder of the workspace.

    Raises
    ------
    WorkspaceError
        Where `entry.json` is damaged.
    """

    def __init__(self, folder: Path, workspace: Path) -> None:
        self.folder, self.workspace = folder, workspace
        self.facts: EntryFacts = read_entry_facts(folder / ENTRY)
        self.notes: list[str] = []
        """What `load` left out or repaired, in words."""

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def image(self) -> ImageReference:
        return reference(self.facts.image)

    @property
    def name(self) -> str:
        return self.facts.image.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the labels."""
        return self.facts.shape

    @property
    def offset(self) -> tuple[int, ...]:
        """Of the labels' first pixel in the image, along the spatial axes."""
        return self.facts.offset or (0,) * len(self.shape)

    @property
    def pixel_size_um(self) -> tuple[float, ...]:
        return self.facts.pixel_size_um

    @property
    def geometry(self) -> Geometry:
        """Of the labels."""
        return geometry_of_labels(self.facts)

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Of objects, when the journal was last folded; those of `load` are newer."""
        return label_classes(self.facts.classes)

    @property
    def region_classes(self) -> tuple[LabelClass, ...]:
        return label_classes(self.facts.region_classes)

    def find_image(self, also: Iterable[Path] = ()) -> Path:
        """Where the image is now; raises `ImageNotFound`. See `image.find_image`."""
        kept = self.folder / IMAGE
        return find_image(self.image, self.workspace, (*also, *([kept] if kept.exists() else ())))

    def load(self, *, salvage: bool = False) -> Saved:
        """Everything, with the edits of the journal. Nothing is written.

        Parameters
        ----------
        salvage
            Take what comes before a damage of the journal, instead of raising.

        Raises
        ------
        WorkspaceError
            Where the entry is damaged; `DamagedJournal` where only its journal is.
        """
        for _ in range(_TRIES):
            facts = read_entry_facts(self.folder / ENTRY)
            try:
                found, notes = _loaded(self.folder, facts, salvage)
            except WorkspaceError:
                # Somebody who writes may have folded the journal meanwhile: then once more.
                if read_entry_facts(self.folder / ENTRY).generation != facts.generation:
                    continue
                raise
            if read_entry_facts(self.folder / ENTRY).generation == facts.generation:
                self.facts, self.notes = facts, notes
                return found
        raise WorkspaceError(f"{self.folder} is being written all the time; try again")


def _loaded(folder: Path, facts: EntryFacts, salvage: bool) -> tuple[Saved, list[str]]:
    notes: list[str] = []
    labels = arrays.load(folder / LABELS, facts.shape, facts.labels_dtype)
    regions = None
    if facts.regions_dtype is not None:
        regions = arrays.load(folder / REGIONS, facts.shape, facts.regions_dtype)
    # Again: a fold that started meanwhile recorded these before it wrote chunks that were read.
    now = read_entry_facts(folder / ENTRY)
    facts = _folding(facts, now.folding_ids, now.folding_regions)
    replay = Replay(
        facts,
        InMemory(labels),
        None if regions is None else InMemory(regions),
        _numbers(folder, facts),
        _marks(folder, facts),
    )
    for path in journals(folder, facts.generation):
        for record in _until_damage(path, salvage, notes.append):
            replay.take(record)
    ndim = len(facts.shape)
    table = table_of(replay.numbers(), ndim, replay.classes, replay.region_classes)
    offset = {"region_offset": list(facts.offset)} if facts.offset else {}
    prediction = Prediction(
        regions,
        replay.region_classes,
        Instances(labels, table, replay.classes),
        provenance=facts.provenance | offset,
        geometry=geometry_of_labels(facts),
    )
    saved = Saved(prediction, replay.reviewed)
    saved, found = remeasured(saved, replay.stale, everything=replay.regions_are_stale)
    notes += found
    return saved, notes


def _until_damage(path: Path, salvage: bool, note: Callable[[str], None]) -> Iterator[Record]:
    """The records of a journal; with `salvage` damage ends them with a note, not an error."""
    try:
        yield from read_journal(path, note)
    except DamagedJournal as error:
        if not salvage:
            raise
        note(f"{error}; {ABANDONED}")


def fold(folder: Path, upto: int, salvage: bool = False) -> EntryFacts:
    """Bring all journals below number `upto` into arrays, table and marks, and delete them.

    The writer's; a reader may read meanwhile. Killed at any moment, the entry holds the same: only
    the last step, replacing `entry.json`, makes the older journals unneeded.

    Raises
    ------
    WorkspaceError
        Where the entry is damaged.
    OSError
        Where the disk refuses; the next attempt does all of it again.
    """
    facts = read_entry_facts(folder / ENTRY)
    labels, regions = _canvases(folder, facts)
    replay = Replay(facts, labels, regions, _numbers(folder, facts), _marks(folder, facts))
    for path in journals(folder, facts.generation):
        if _number(path) < upto:
            notes: list[str] = []
            for record in _until_damage(path, salvage, notes.append):
                replay.take(record)
            if any(ABANDONED in note for note in notes):
                shutil.copyfile(path, path.with_name(f"damaged-{path.name}"))
    labels.write()
    if regions is not None:
        regions.write()
    folded = facts.model_copy(
        update={
            "generation": upto,
            "classes": class_facts(replay.classes),
            "region_classes": class_facts(replay.region_classes),
            "stale_ids": sorted(replay.stale),
            "regions_are_stale": replay.regions_are_stale,
            "folding_ids": [],
            "folding_regions": False,
        }
    )
    table = table_of(replay.numbers(), len(facts.shape), replay.classes, replay.region_classes)
    write_generation(folder, folded, table, replay.reviewed)
    _forget_below(folder, upto)
    return folded


def _canvases(folder: Path, facts: EntryFacts) -> tuple[arrays.Chunks, arrays.Chunks | None]:
    """Labels and regions to fold into. Before chunks change, `entry.json` lists what gets stale.

    Chunks that hold the new pixels no longer show what changed: not to a reader, and not to the
    next attempt after a crash.
    """
    written = facts

    def tell() -> None:
        nonlocal written
        ids = {value for value in labels.went_and_came if value > 0} | set(facts.folding_ids)
        moved = facts.folding_regions or bool(regions and regions.went_and_came)
        news = _folding(facts, sorted(ids), moved)
        if news != written:
            write_json(folder / ENTRY, news.model_dump(mode="json"))
            written = news

    labels = arrays.Chunks(folder / LABELS, facts.shape, facts.labels_dtype, tell)
    regions = None
    if facts.regions_dtype is not None:
        regions = arrays.Chunks(folder / REGIONS, facts.shape, facts.regions_dtype, tell)
    return labels, regions


def _folding(facts: EntryFacts, ids: list[int], regions: bool) -> EntryFacts:
    return facts.model_copy(update={"folding_ids": ids, "folding_regions": regions})


def write_generation(folder: Path, facts: EntryFacts, table: object, reviewed: Reviewed) -> None:
    """Table and marks of a generation, and then `entry.json`, which makes it count."""
    path = folder / f"objects-{facts.generation:06d}.csv"
    write_table(table, path)
    sync(path)
    write_json(folder / f"reviewed-{facts.generation:06d}.json", reviewed.as_json())
    write_json(folder / ENTRY, facts.model_dump(mode="json"))


def journals(folder: Path, first: int) -> list[Path]:
    """The files of the journal from a number on, in order."""
    with refusals(folder, "read"):
        found = [path for path in folder.iterdir() if _JOURNAL.fullmatch(path.name)]
    return sorted((path for path in found if _number(path) >= first), key=_number)


def journal_path(folder: Path, number: int) -> Path:
    """The file of the journal that has a number."""
    return folder / f"journal-{number:06d}.bin"


def next_journal(folder: Path, facts: EntryFacts) -> int:
    """A number that no file of the journal has."""
    return max([facts.generation - 1, *map(_number, journals(folder, 0))]) + 1


def _number(path: Path) -> int:
    found = _BY_GENERATION.fullmatch(path.name)
    return int(found.group(1)) if found else -1


def _forget_below(folder: Path, generation: int) -> None:
    for path in folder.iterdir():
        if 0 <= _number(path) < generation:
            with suppress(OSError):
                path.unlink()


def _numbers(folder: Path, facts: EntryFacts) -> dict[str, np.ndarray]:
    return read_numbers(folder / f"objects-{facts.generation:06d}.csv", len(facts.shape))


def _marks(folder: Path, facts: EntryFacts) -> Reviewed:
    path = folder / f"reviewed-{facts.generation:06d}.json"
    values = read_json(path, "the reviewed marks")
    try:
        return Reviewed.from_json(values, facts.shape)
    except EditError as error:
        raise WorkspaceError(f"{path} is damaged: {error}") from error
