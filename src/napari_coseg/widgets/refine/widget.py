"""The Refine widget: what was corrected in one task helps the other; preview, accept, discard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton

from napari_coseg.core.errors import EditError
from napari_coseg.core.types import Prediction
from napari_coseg.widgets import layer_box, outputs, runs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.correct.reading import request_of
from napari_coseg.widgets.dock_widget import column_of, group, notify_errors, row
from napari_coseg.widgets.image_choice import narrow_box
from napari_coseg.widgets.job_bar import in_words
from napari_coseg.widgets.job_widget import JobWidget
from napari_coseg.widgets.model_choice import swatch
from napari_coseg.widgets.refine import preview as refine_preview
from napari_coseg.widgets.refine import tasks as refine_tasks
from napari_coseg.widgets.refine.preview import Proposal
from napari_coseg.widgets.run_in_thread import run_in_thread
from napari_coseg.widgets.runs import Run

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

ABOUT = (
    "The network takes a mask of regions as a hint for objects, and a mask of objects as a hint "
    "for regions. Correct one of them, and have the other found anew with your mask in place of "
    "the predicted one. What you reviewed or made yourself stays."
)
CHOICES = {
    "regions": ("the regions: find objects anew", "Your regions are the hint; objects change"),
    "objects": ("the objects: find regions anew", "Your objects are the hint; regions change"),
}
LEGEND = " ".join(swatch(entry, entry.name) for entry in refine_preview.KINDS)


class RefineWidget(JobWidget):
    """Dock widget that refines the layers of a run by what a person corrected."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self._run: Run | None = None
        self._prompting: list[str] = []
        self._proposal: Proposal | None = None
        self._preview: list[Labels] = []
        self._seconds = 0.0
        self.objects_box = narrow_box("Objects that Segment has found")
        self.corrected = {task: QCheckBox(text) for task, (text, _) in CHOICES.items()}
        self.corrected["regions"].setChecked(True)
        self.accept_button, self.discard_button = QPushButton("Accept"), QPushButton("Discard")
        self.change = QLabel()
        self._build()
        events = self._viewer.layers.events
        events.inserted.connect(self._list_layers)
        events.renamed.connect(self._list_layers)
        events.removed.connect(self._on_removed)
        self.accept_button.clicked.connect(self.accept)
        self.discard_button.clicked.connect(self.discard)
        self._list_layers()
        self._enable()

    def _build(self) -> None:
        about = QLabel(ABOUT)
        for label in (about, self.change):
            label.setWordWrap(True)
        self.change.setMinimumHeight(4 * self.change.fontMetrics().lineSpacing())
        self.bar.run_button.setText("Refine")
        self.accept_button.setToolTip("One step of undo on each layer that changes")
        self.discard_button.setToolTip("The labels stay as they are")
        for task, box in self.corrected.items():
            box.setToolTip(CHOICES[task][1])
        self.lay_out(
            about,
            group("Labels", self.objects_box),
            group("I corrected", column_of(*self.corrected.values())),
            group("Preview", column_of(self.change, row(self.accept_button, self.discard_button))),
        )

    # -- a refinement ----------------------------------------------------------------------------

    def run(self) -> None:
        """Refine the chosen layers; a `CosegError` becomes a notification."""
        if self.bar.is_busy:
            return
        self.discard()
        with notify_errors():
            self._run = run = runs.run_of(self._viewer, self._chosen())
            self._prompting = [task for task, box in self.corrected.items() if box.isChecked()]
            if not self._prompting:
                raise EditError("say what you corrected: the regions, the objects, or both")
            labels, regions, _, of_labels, _ = request_of(run.objects, run.regions)
            reviewed = refine_preview.reviewed_of(run.objects)
            arrays = {
                "image": run.image,
                "labels": labels,
                "regions": regions,
                "ids": of_labels.ids,
                "class_ids": of_labels.class_ids,
                "probabilities": of_labels.probabilities,
                "reviewed_objects": reviewed.objects.runs,
                "reviewed_regions": reviewed.regions.runs,
                "reviewed_ids": np.array(sorted(reviewed.ids), dtype=np.int64),
            }
            arguments = {"run": run.arguments, "prompt_with": self._prompting}
            worker = run.worker or self.worker
            runs.hold(run.arguments["key"], worker)
            self.start(refine_tasks.REFINE, arguments, arrays, worker=worker)

    def first_shown(self) -> None:
        """Start no process: that of the run does the work, as long as it lives."""

    def receive(self, reply: Reply, seconds: float) -> None:
        if self._run is None:
            return
        self._seconds = seconds
        self.bar.finish("Comparing …")
        self._compare(tasks.unpack(reply))

    def failed(self) -> None:
        self._run = None

    def accept(self) -> None:
        """Make what is shown, one undo step on each layer."""
        proposal, layers = self._proposal, self._layers()
        self.discard()
        if proposal is not None and layers:
            with notify_errors():
                refine_preview.accept(proposal, layers)
                self.bar.finish("Accepted.", done=True)

    def discard(self) -> None:
        """Show it no longer; the labels stay as they are."""
        self._proposal = None
        layers, self._preview = self._preview, []
        for layer in layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._go_back()
        self.change.clear()
        self._enable()

    def let_go(self) -> None:
        self.discard()
        events = self._viewer.layers.events
        events.inserted.disconnect(self._list_layers)
        events.renamed.disconnect(self._list_layers)
        events.removed.disconnect(self._on_removed)

    # ------------------------------------------------------------------------------------------

    def _compare(self, prediction: Prediction) -> None:
        """Every pixel is looked at: in a thread, or the window would stand still."""
        run = self._run
        if run is None:
            return
        find = refine_preview.propose(run.objects, run.regions, prediction, self._prompting)
        run_in_thread(find, done=self._on_proposal, failed=self._on_failed)

    def _on_proposal(self, found: Proposal) -> None:
        if self._run is None:
            return
        layers = self._layers()
        if not layers:
            self.bar.finish("The layers are gone.")
            return
        told_as = found.told()
        took = in_words(self._seconds)
        if found.is_empty:
            self.bar.finish(f"Nothing changes (looked for {took}).")
            return
        self.bar.finish(f"Refined in {took}.")
        self._proposal = found
        self._preview = refine_preview.show(self._viewer, found, layers)
        self.change.setText(f"{told_as[:1].upper() + told_as[1:]}.<br>{LEGEND}")
        self._enable()

    def _go_back(self) -> None:
        """Without the preview nothing would be active, and Ctrl-Z would do nothing."""
        selection, layers = self._viewer.layers.selection, self._layers()
        if layers and selection.active is None:
            selection.active = layers["objects"]

    def _layers(self) -> dict[str, Labels]:
        """Those of the run by task; nothing where one is gone."""
        run = self._run
        if run is None or run.objects not in self._viewer.layers:
            return {}
        if run.regions not in self._viewer.layers:
            return {}
        return {"objects": run.objects, "regions": run.regions}

    def _chosen(self) -> Labels:
        layer = self.objects_box.currentData()
        if layer is None:
            raise EditError("there is nothing to refine; segment an image first")
        return layer

    def _list_layers(self, _: Any = None) -> None:
        """The objects that a run made, the latest first; the choice stays where it can."""
        ours = [one for one in reversed(self._viewer.layers) if outputs.is_output(one, "objects")]
        layer_box.fill(self.objects_box, ours, ours[:1], none=False)

    def _on_removed(self, _: Any = None) -> None:
        self._list_layers()
        if self._preview and not all(layer in self._viewer.layers for layer in self._preview):
            self.discard()

    def _enable(self) -> None:
        shown = self._proposal is not None
        self.accept_button.setEnabled(shown)
        self.discard_button.setEnabled(shown)
