"""Objects that SAM2 proposes for a click or a box, refined by more clicks.

A proposal is an object like any other, made by one undo step. Refining it undoes that step and
makes another in its place, so that one undo removes it however many clicks it took.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from napari_coseg.core.errors import Cancelled, EditError
from napari_coseg.inference.sam2.windows import Prompt, SamMask
from napari_coseg.labels.editing.add_mask import add_mask, check_free
from napari_coseg.widgets.dock_widget import notify, notify_errors

if TYPE_CHECKING:
    from napari_coseg.widgets.correct.actions import Corrector
    from napari_coseg.widgets.correct.gesture import Gesture
    from napari_coseg.widgets.correct.session import Step

HINT = (
    "Click an object, or drag a box around it. Then refine it: ⇧-click what does not belong to it, "
    "Ctrl-click what does. ⇧-drag draws an outline by hand."
).replace("-", "\u2011")  # non-breaking hyphens


class Segmenter(Protocol):
    """Gives a mask for a prompt, now or later: SAM2."""

    @property
    def is_busy(self) -> bool: ...

    def ask(
        self,
        prompt: Prompt,
        z: int | None,
        done: Callable[[SamMask], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Call `done` or `failed` once, in the GUI thread.

        Prompt and mask are in pixels of the labels, in slice `z` of a stack (None in 2D).
        """


@dataclass(frozen=True, eq=False)
class _Proposal:
    prompt: Prompt
    z: int | None
    step: Step
    class_id: int


class Proposals:
    """An `ObjectProposer` whose gestures are prompts of a segmenter."""

    hint, takes_boxes = HINT, True

    def __init__(self, corrector: Corrector, segmenter: Segmenter) -> None:
        self._corrector, self._segmenter = corrector, segmenter
        self._last: _Proposal | None = None
        self._is_closed = False

    def close(self) -> None:
        """Ignore answers that arrive from now on."""
        self._is_closed = True

    def use(self, gesture: Gesture) -> None:
        """Propose an object for a click or a box; refine the last one on a Shift or Ctrl-click.

        Raises
        ------
        EditError
            On an object or a reviewed region, or where there is nothing to refine.
        """
        session = self._corrector.session
        if gesture.is_click and (gesture.shift or gesture.control):
            self._refine(gesture, positive=gesture.control and not gesture.shift)
            return
        if gesture.is_click:
            check_free(session.editor, gesture.point, session.reviewed)
            y, x = gesture.point[-2:]
            prompt = Prompt(((y, x),), (True,))
        else:
            corners = gesture.points[[0, -1]]
            top, left = corners.min(axis=0).tolist()
            bottom, right = corners.max(axis=0).tolist()
            prompt = Prompt(box=(top, left, bottom, right))
        self._ask(prompt, gesture.z, None)

    def _refine(self, gesture: Gesture, positive: bool) -> None:
        last = self._last
        if self._segmenter.is_busy:
            raise EditError("SAM2 is still working on the last click; wait for it")
        if last is None or self._corrector.session.last_step is not last.step:
            raise EditError(
                "the last step was not an object that SAM2 proposed; click an object first, or "
                "undo what came after it"
            )
        if gesture.z != last.z:
            raise EditError(f"the last proposal is in slice {last.z}; click there")
        y, x = gesture.point[-2:]
        self._ask(last.prompt.with_point((y, x), positive), gesture.z, last)

    def _ask(self, prompt: Prompt, z: int | None, replaced: _Proposal | None) -> None:
        class_id = self._corrector.object_class if replaced is None else replaced.class_id
        self._corrector.message.emit("SAM2 is segmenting …")
        self._segmenter.ask(
            prompt, z, lambda found: self._add(prompt, z, class_id, replaced, found), self._failed
        )

    def _add(
        self,
        prompt: Prompt,
        z: int | None,
        class_id: int,
        replaced: _Proposal | None,
        found: SamMask,
    ) -> None:
        """Add an answer; called a while after the gesture, so errors are shown here."""
        if self._is_closed:
            return
        corrector, session = self._corrector, self._corrector.session
        corrector.message.emit("")
        with notify_errors():
            if replaced is not None:
                if session.last_step is not replaced.step:
                    raise EditError("another step was made in the meantime; click again")
                session.undo()
            try:
                if prompt.box is None:  # an object may have been added there in the meantime
                    click = prompt.points[0] if z is None else (z, *prompt.points[0])
                    check_free(session.editor, click, session.reviewed)
                edit = add_mask(
                    session.editor,
                    found.mask,
                    found.corner,
                    clicks=[p for p, on in zip(prompt.points, prompt.positive, strict=True) if on],
                    z=z,
                    class_id=class_id,
                    reviewed=session.reviewed,
                )
                corrector.added(edit, confidence(found))
            except EditError:
                if replaced is not None:
                    session.redo()
                raise
            step = session.last_step
            self._last = None if step is None else _Proposal(prompt, z, step, class_id)

    def _failed(self, error: Exception) -> None:
        if self._is_closed:
            return
        is_cancelled = isinstance(error, Cancelled)
        self._corrector.message.emit("SAM2 was cancelled" if is_cancelled else "")
        if not is_cancelled:
            notify(error)


def confidence(found: SamMask) -> str:
    """End of the status message: how sure SAM2 is, and whether it saw the whole object."""
    text = f" · SAM2's confidence {found.quality:.0%}"
    if found.at_side:
        text += ", but it did not see the whole object: drag a box around it"
    return text
