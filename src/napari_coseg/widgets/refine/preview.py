"""What a refinement would change: found in a thread, shown as colours, applied on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.rerun import merge_prediction, merge_regions
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.widgets import outputs
from napari_coseg.widgets.correct.reading import editor_of, request_of
from napari_coseg.widgets.correct.session import CorrectionSession, marks_kept, session_of
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.geometry import placed_like
from napari_coseg.widgets.refine.rows import apply_with_rows

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_coseg.core.types import Prediction
    from napari_coseg.labels.editing.label_editor import LabelEditor

ADDED, REMOVED, CHANGED = 1, 2, 3
KINDS = (
    LabelClass(ADDED, "added", (0, 220, 90)),
    LabelClass(REMOVED, "removed", (230, 0, 90)),
    LabelClass(CHANGED, "changed", (255, 200, 0)),
)
OPACITY = 0.6


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a refinement would change: at most one edit of objects and one of regions."""

    editor: LabelEditor
    session: CorrectionSession | None
    edits: tuple[Edit, ...]

    @property
    def is_empty(self) -> bool:
        return all(edit.is_empty for edit in self.edits)

    def summary(self) -> str:
        """The changes in one line."""
        parts = []
        for edit in self.edits:
            if edit.target == "objects":
                counts = len(edit.added), len(edit.removed), len(_reclassified(edit))
                text = "objects: {:,} added, {:,} removed, {:,} reclassified".format(*counts)
                parts.append(text if any(counts) else _small_change(edit))
            else:
                parts.append(f"regions: {len(edit.new_values):,} pixels change")
        return "; ".join(parts)


def _small_change(edit: Edit) -> str:
    """Where no object is added, removed or reclassified."""
    pixels = len(edit.new_values)
    what = f"outlines change by {pixels:,} px" if pixels else "only probabilities change"
    return f"objects: all stay with their classes, {what}"


def reviewed_of(objects: Labels) -> Reviewed:
    """Review marks of a layer: of its open session, or as the last session left them."""
    session = session_of(objects)
    return marks_kept(objects) if session is None else session.reviewed


def propose(
    objects: Labels, regions: Labels, prediction: Prediction, prompted_by: Sequence[str]
) -> Callable[[], Proposal]:
    """A function that finds the `Proposal`; it may be called in a thread.

    Parameters
    ----------
    prompted_by
        "regions" replace the objects, "objects" the regions.
    """
    session, reviewed = session_of(objects), reviewed_of(objects)
    request = None if session is not None else request_of(objects, regions)

    def find() -> Proposal:
        editor = session.editor if session is not None else editor_of(*request)  # type: ignore[misc]
        edits = []
        if "regions" in prompted_by:
            found = prediction.instances
            edits.append(merge_prediction(editor, found.labels, found.table, reviewed))
        if "objects" in prompted_by:
            edits.append(merge_regions(editor, prediction.semantic, reviewed))
        return Proposal(editor, session, tuple(edits))

    return find


def show(viewer: Viewer, proposal: Proposal, layers: dict[str, Labels]) -> list[Labels]:
    """Add one layer per edit, over the layer that it would change."""
    return [
        viewer.add_labels(
            _kinds_of_change(edit, proposal.editor),
            name=f"preview of {layers[edit.target].name}",
            opacity=OPACITY,
            colormap=outputs.region_colormap(KINDS),
            features=outputs.region_features(KINDS),
            metadata={METADATA_KEY: {"kind": "preview"}},
            **placed_like(layers[edit.target]),
        )
        for edit in proposal.edits
        if not edit.is_empty
    ]


def accept(proposal: Proposal, layers: dict[str, Labels]) -> None:
    """Apply the edits, one undo step each.

    A correction session of the layers applies them itself, so that table and review marks follow.
    Without a session only the table rows do.

    Raises
    ------
    EditError
        Where the labels have changed since, or a correction session was started or finished.
    """
    if session_of(layers["objects"]) is not proposal.session:
        raise EditError("correcting was started or finished in the meantime; refine again")
    for edit in proposal.edits:
        if edit.is_empty:
            continue
        if proposal.session is not None:
            proposal.session.do(edit)
            continue
        layer = layers[edit.target]
        if not np.array_equal(layer.data[edit.indices], edit.old_values):
            raise EditError("the labels have changed since; refine again")
        apply_with_rows(layer, edit)


def _reclassified(edit: Edit) -> list[int]:
    """Objects that stay and get another class."""
    both = edit.old_rows.merge(edit.new_rows, on="id", suffixes=("_old", "_new"))
    changed = both["class_id_old"] != both["class_id_new"]
    return [int(i) for i in both["id"][changed]]


def _kinds_of_change(edit: Edit, editor: LabelEditor) -> np.ndarray:
    """Each pixel that changes, and all pixels of reclassified objects."""
    kinds = np.zeros(editor.labels.shape, np.uint8)
    if edit.target == "objects":
        for i in _reclassified(edit):
            box = editor.index.box(i)
            kinds[box][editor.labels[box] == i] = CHANGED
    kinds[edit.indices] = np.where(
        edit.old_values == 0, ADDED, np.where(edit.new_values == 0, REMOVED, CHANGED)
    )
    return kinds
