"""Objects that SAM2 proposes: one for a click or a box, mended by clicks on and beside it.

A proposal is an object like any other, made by one undo step. Mending it takes that step back and
makes another in its place, so that one undo is enough for it however many clicks it took.
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
    "Click an object, or drag a box around it. Then mend it: ⇧-click what does not belong to it, "
    "Ctrl-click what does. ⇧-drag draws an outline by hand."
).replace("-", "\u2011")  # which lets no line break there


class Asker(Protocol):
    """Who knows what a prompt means; calls exactly one of the two in the GUI thread."""

    @property
    def is_busy(self) -> bool: ...

    def ask(
        self,
        prompt: Prompt,
        z: int | None,
        done: Callable[[SamMask], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Prompt and mask in pixels of the labels, in slice `z` of a stack."""


@dataclass(frozen=True, eq=False)
class _Proposal:
    prompt: Prompt
    z: int | None
    step: Step
    class_id: int


class Proposals:
    """Gestures of the tool Add, answered by SAM2.

    Parameters
    ----------
    corrector
        Which makes the edits, and says what came of them.
    """

    def __init__(self, corrector: Corrector, asker: Asker) -> None:
        self._corrector, self._asker = corrector, asker
        self._last: _Proposal | None = None
        self._is_closed = False

    def close(self) -> None:
        """Take no answers that are still to come."""
        self._is_closed = True

    def use(self, gesture: Gesture) -> None:
        """A click or a box proposes; a click with Shift or Control mends the last proposal.

        Raises
        ------
        EditError
            On an object or a reviewed region, or where there is nothing to mend.
        """
        if gesture.is_click and (gesture.shift or gesture.control):
            self._mend(gesture, positive=gesture.control and not gesture.shift)
            return
        if gesture.is_click:
            check_free(
                self._corrector.session.editor, gesture.point, self._corrector.session.reviewed
            )
            y, x = gesture.point[-2:]
            prompt = Prompt(((y, x),), (True,))
        else:
            corners = gesture.points[[0, -1]]  # a drag from corner to corner
            top, left = corners.min(axis=0).tolist()
            bottom, right = corners.max(axis=0).tolist()
            prompt = Prompt(box=(top, left, bottom, right))
        self._ask(prompt, gesture.z, None)

    def _mend(self, gesture: Gesture, positive: bool) -> None:
        last = self._last
        if self._asker.is_busy:
            raise EditError("SAM2 is still at work on the last click; wait for it")
        if last is None or self._corrector.session.last_step is not last.step:
            raise EditError(
                "the last step was no object that SAM2 proposed; click an object first, or undo "
                "what came after it"
            )
        if gesture.z != last.z:
            raise EditError(f"the last proposal is in slice {last.z}; click there")
        y, x = gesture.point[-2:]
        self._ask(last.prompt.with_point((y, x), positive), gesture.z, last)

    def _ask(self, prompt: Prompt, z: int | None, instead: _Proposal | None) -> None:
        corrector = self._corrector
        class_id = corrector.object_class if instead is None else instead.class_id
        corrector.said.emit("SAM2 looks at it …")
        self._asker.ask(
            prompt, z, lambda found: self._take(prompt, z, class_id, instead, found), self._failed
        )

    def _take(
        self,
        prompt: Prompt,
        z: int | None,
        class_id: int,
        instead: _Proposal | None,
        found: SamMask,
    ) -> None:
        """May come a while after the gesture: errors are told here."""
        if self._is_closed:
            return
        corrector, session = self._corrector, self._corrector.session
        corrector.said.emit("")
        with notify_errors():
            if instead is not None:
                if session.last_step is not instead.step:
                    raise EditError("something else was done meanwhile; click again")
                session.undo()
            try:
                if prompt.box is None:  # what was added meanwhile may lie there
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
                corrector.added(edit, _in_words(found))
            except EditError:
                if instead is not None:
                    session.redo()
                raise
            step = session.last_step
            self._last = None if step is None else _Proposal(prompt, z, step, class_id)

    def _failed(self, error: Exception) -> None:
        if self._is_closed:
            return
        self._corrector.said.emit("SAM2 was stopped" if isinstance(error, Cancelled) else "")
        if not isinstance(error, Cancelled):
            notify(error)


def _in_words(found: SamMask) -> str:
    words = f" · SAM2 is {found.quality:.0%} sure"
    if found.at_side:
        words += ", but was not shown all of it: drag a box around it"
    return words
