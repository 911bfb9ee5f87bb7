"""The Refine widget: corrections of one task prompt the other; preview, accept, discard."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QPushButton

from napari_coseg.core.errors import EditError
from napari_coseg.widgets import outputs, runs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.tables import row_arrays
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.correct.reading import request_of
from napari_coseg.widgets.dock_widget import notify_errors, sentence
from napari_coseg.widgets.forms import column_of, group, row, text_label
from napari_coseg.widgets.job_bar import in_words
from napari_coseg.widgets.job_widget import JobWidget
from napari_coseg.widgets.layer_choice import LayerBox
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
    "The network takes a region mask as a prompt for objects, and an object mask as a prompt for "
    "regions. Correct one of them, and predict the other again with your mask in place of the "
    "predicted one. What you reviewed or made yourself stays."
)
CHOICES = {
    "regions": ("the regions: predict objects again", "Regions are the prompt; objects change"),
    "objects": ("the objects: predict regions again", "Objects are the prompt; regions change"),
}
LEGEND = " ".join(swatch(entry, entry.name) for entry in refine_preview.KINDS)


class RefineWidget(JobWidget):
    """Dock widget that refines the layers of a run by the user's corrections."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self._run: Run | None = None
        self._proposal: Proposal | None = None
        self._preview: list[Labels] = []
        self.objects_box = LayerBox("Objects that Segment found", optional=False)
        self.corrected = {task: QCheckBox(text) for task, (text, _) in CHOICES.items()}
        self.corrected["regions"].setChecked(True)
        self.accept_button, self.discard_button = QPushButton("Accept"), QPushButton("Discard")
        self.change = text_label()
        self._build()
        events = self._viewer.layers.events
        self.connections.connect(self._list_layers, events.inserted, events.renamed)
        self.connections.connect(self._on_removed, events.removed)
        self.accept_button.clicked.connect(self.accept)
        self.discard_button.clicked.connect(self.discard)
        self._list_layers()
        self._enable()

    def _build(self) -> None:
        self.change.setMinimumHeight(4 * self.change.fontMetrics().lineSpacing())
        self.bar.run_button.setText("Refine")
        self.accept_button.setToolTip("One undo step on each layer that changes")
        self.discard_button.setToolTip("The labels stay as they are")
        for task, box in self.corrected.items():
            box.setToolTip(CHOICES[task][1])
        self.lay_out(
            text_label(ABOUT),
            group("Labels", self.objects_box),
            group("I corrected", *self.corrected.values()),
            group("Preview", column_of(self.change, row(self.accept_button, self.discard_button))),
        )

    # -- a refinement --------------------------------------------------------------------------

    def begin(self) -> None:
        """Refine the chosen layers."""
        self.discard()
        self._run = None
        objects = self.objects_box.currentData()
        if objects is None:
            raise EditError("there is nothing to refine; segment an image first")
        run = runs.run_of(self._viewer, objects)
        prompts = [task for task, box in self.corrected.items() if box.isChecked()]
        if not prompts:
            raise EditError("choose what you corrected: the regions, the objects, or both")
        labels, regions, _, of_labels, _ = request_of(run.objects, run.regions)
        reviewed = refine_preview.reviewed_of(run.objects)
        arrays = {
            "image": run.image,
            "labels": labels,
            "regions": regions,
            **row_arrays(of_labels),
            "reviewed_objects": reviewed.objects.runs,
            "reviewed_regions": reviewed.regions.runs,
            "reviewed_ids": np.array(sorted(reviewed.ids), dtype=np.int64),
        }
        arguments = {"run": run.arguments, "prompt_with": prompts}
        worker = run.worker or self.worker
        runs.hold(run.arguments["key"], worker)
        self.start(refine_tasks.REFINE, arguments, arrays, worker, asked=(run, prompts))

    def first_shown(self) -> None:
        """Start no process: the run's own process does the work while it lives."""

    def receive(self, reply: Reply, seconds: float) -> None:
        self._run, prompts = self.asked
        self.bar.finish("Comparing …")
        find = refine_preview.propose(
            self._run.objects, self._run.regions, tasks.unpack(reply), prompts
        )
        show = partial(self._on_proposal, in_words(seconds))
        run_in_thread(find, done=show, failed=self._on_failed)

    def accept(self) -> None:
        """Apply what is shown, as one undo step on each layer."""
        proposal, layers = self._proposal, self._layers()
        self.discard()
        if proposal is not None and layers:
            with notify_errors():
                refine_preview.accept(proposal, layers)
                self.bar.finish("Accepted.", done=True)

    def discard(self) -> None:
        """Remove the preview; the labels stay as they are."""
        self._proposal = None
        previews, self._preview = self._preview, []
        for layer in previews:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        selection, layers = self._viewer.layers.selection, self._layers()
        if layers and selection.active is None:  # Ctrl-Z acts on the active layer
            selection.active = layers["objects"]
        self.change.clear()
        self._enable()

    def let_go(self) -> None:
        self.discard()

    # ------------------------------------------------------------------------------------------

    def _on_proposal(self, took: str, found: Proposal) -> None:
        layers = self._layers()
        if not layers:
            self.bar.finish("The layers were removed.")
            return
        if found.is_empty:
            self.bar.finish(f"Nothing changes (took {took}).")
            return
        self.bar.finish(f"Refined in {took}.")
        text = sentence(found.summary())
        self._proposal = found
        self._preview = refine_preview.show(self._viewer, found, layers)
        self.change.setText(f"{text}.<br>{LEGEND}")
        self._enable()

    def _layers(self) -> dict[str, Labels]:
        """Layers of the run by task; empty where one was removed."""
        run = self._run
        if run is None or not {run.objects, run.regions} <= set(self._viewer.layers):
            return {}
        return {"objects": run.objects, "regions": run.regions}

    def _list_layers(self, _: Any = None) -> None:
        """List the objects layers of runs, the latest first."""
        ours = [one for one in reversed(self._viewer.layers) if outputs.is_output(one, "objects")]
        self.objects_box.set_layers(ours, ours[:1])

    def _on_removed(self, _: Any = None) -> None:
        self._list_layers()
        if self._preview and not set(self._preview) <= set(self._viewer.layers):
            self.discard()

    def _enable(self) -> None:
        shown = self._proposal is not None
        self.accept_button.setEnabled(shown)
        self.discard_button.setEnabled(shown)
