"""SAM2 while it is chosen: loaded with a session, freed with it or when the choice goes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_coseg.core.errors import Cancelled
from napari_coseg.widgets.correct.add_choice import AddChoice
from napari_coseg.widgets.correct.proposals import Proposals
from napari_coseg.widgets.correct.sam import Sam
from napari_coseg.widgets.dock_widget import notify

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_coseg.widgets.correct.work import Work


class SamUse:
    """Keeps the tool Add of a session as a panel's choice says.

    Parameters
    ----------
    say
        Shows a word on how it goes.
    """

    def __init__(self, viewer: Viewer, choice: AddChoice, say: Callable[[str], None]) -> None:
        self._viewer, self._choice, self._say = viewer, choice, say
        self._work: Work | None = None
        self.sam: Sam | None = None
        choice.changed.connect(self._follow_choice)
        choice.cancelled.connect(self._cancel)

    def begin(self, work: Work) -> None:
        """From now on this session's tool."""
        self._work = work
        self._follow_choice()

    def end(self) -> None:
        """Free what it took."""
        self._free()
        self._work = None

    def _follow_choice(self) -> None:
        self._free()
        work, weights = self._work, self._choice.weights
        if work is None or weights is None:
            return
        self.sam = sam = Sam(self._viewer, work.session.objects, weights)
        sam.began.connect(self._choice.follow)
        sam.rested.connect(self._choice.rest)
        work.ask_sam(Proposals(work.corrector, sam))
        self._say(f"Loading {weights.name} …")
        sam.load(lambda name: self._say(f"{name} is ready: take Add (A)"), self._not_loaded)

    def _free(self) -> None:
        sam, self.sam = self.sam, None
        if sam is not None:
            sam.close()
            self._choice.rest()
        if self._work is not None:
            self._work.ask_sam(None)

    def _cancel(self) -> None:
        if self.sam is not None:
            self.sam.cancel()

    def _not_loaded(self, error: Exception) -> None:
        self._choice.go_back()
        if not isinstance(error, Cancelled):
            notify(error)
