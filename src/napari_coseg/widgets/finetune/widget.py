"""The Fine-tune dock: trains an adapter on reviewed labels and shows the progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QPushButton, QTabWidget, QVBoxLayout, QWidget

from napari_coseg.core.errors import Cancelled, CosegError
from napari_coseg.finetuning.request import FinetuneRequest, free_output
from napari_coseg.models.checkpoints.adapter_library import adapters_folder
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Job, Worker
from napari_coseg.widgets.dock_widget import notify, notify_errors
from napari_coseg.widgets.finetune import tasks as finetune_tasks
from napari_coseg.widgets.finetune.adapters import AdaptersPanel
from napari_coseg.widgets.finetune.model_library import model_library
from napari_coseg.widgets.finetune.progress import ProgressPanel
from napari_coseg.widgets.finetune.setup import NOTHING_YET, SetupPanel
from napari_coseg.widgets.finetune.unfinished import UnfinishedPart
from napari_coseg.widgets.forms import ScrollColumn
from napari_coseg.widgets.job_bar import in_words
from napari_coseg.widgets.job_widget import JobWidget
from napari_coseg.widgets.run_in_thread import run_in_thread
from napari_coseg.widgets.workspace.controller import controller_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

CANCEL_GRACE_MS = 1800
"""Time for a training to save its state; then its process is ended, and the last one is kept."""
ESTIMATE_AFTER_MS = 800
IDLE_MS = 30_000
"""How long the process waits for another estimate before its memory is freed."""
COUNTING, ESTIMATING = "Counting …", "Measuring a step, to estimate time and memory …"
RESUMES = "what was trained is kept: Resume continues from there"


class FinetuneWidget(JobWidget):
    """Dock widget that fine-tunes in its own process, which ends with the training."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        own = worker or Worker(cancel_grace_ms=CANCEL_GRACE_MS)
        super().__init__(napari_viewer, own)
        if worker is None:  # the one above is this widget's own
            self._owns_worker = True
            self.destroyed.connect(own.close)
        self.controller = controller_of(napari_viewer)
        self._request: FinetuneRequest | None = None
        self._how: dict[str, Any] = {}
        self._asks = False
        self._job: Job | None = None
        self._looks = 0
        self._estimating = self._stale = self._knows_devices = False
        self._result: dict[str, Any] = {}
        self.setup = SetupPanel()
        self.progress = ProgressPanel()
        self.adapters = AdaptersPanel(lambda: (self.setup.model.source, self.setup.model.card))
        self.pause_button = QPushButton("Pause")
        self.left = UnfinishedPart()
        self.tabs = QTabWidget()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(ESTIMATE_AFTER_MS)
        self._timer.timeout.connect(self._estimate)
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.setInterval(IDLE_MS)
        self._idle.timeout.connect(self._release)
        self._build()
        self._connect()
        self._follow_theme()
        self._on_controller()

    def _build(self) -> None:
        self.bar.run_button.setText("Start")
        self.bar.tells_time_left = False  # the training shows it
        self.bar.buttons.insertWidget(1, self.pause_button, 1)
        self.bar.run_button.setToolTip("napari stays usable meanwhile; the base is never changed")
        self.pause_button.setToolTip("Frees the processor, but not the memory")
        self.bar.cancel_button.setToolTip("Stops within two seconds and keeps what was trained")
        self.pause_button.setEnabled(False)
        self.pause_button.setCheckable(True)
        for title, page in (
            ("Set up", _page(self.left, self.setup)),
            ("Progress", _page(self.progress)),
            ("Adapters", _page(self.adapters)),
        ):
            self.tabs.addTab(page, title)
        self.tabs.setDocumentMode(True)
        # Pages that scroll by themselves: tabs do not notice that a page has become higher.
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 8)
        outer.addWidget(self.tabs, 1)
        outer.addWidget(self.bar)

    def _connect(self) -> None:
        self.setup.sources_changed.connect(self.look)
        self.setup.changed.connect(self._timer.start)
        self.setup.model.changed.connect(self.adapters.refresh)
        self.progress.decided.connect(self._on_decided)
        self.adapters.import_asked.connect(self._on_import)
        self.adapters.happened.connect(self._on_happened)
        self.pause_button.toggled.connect(self._on_pause)
        self.left.asked.connect(self.resume)
        self.controller.changed.connect(self._on_controller)
        self._viewer.events.theme.connect(self._follow_theme)

    def let_go(self) -> None:
        self._timer.stop()
        self._idle.stop()
        self.controller.changed.disconnect(self._on_controller)
        self._viewer.events.theme.disconnect(self._follow_theme)

    # -- labels and estimate ------------------------------------------------------------------

    def first_shown(self) -> None:
        """Ask for the devices, which starts the process."""
        if self._knows_devices:
            return
        job = self.submit(tasks.DEVICES)
        job.done.connect(self._on_devices)
        job.failed.connect(notify)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        if not self.bar.is_busy:
            self.left.refresh()
            self.look()

    def look(self) -> None:
        """Count what is reviewed, then estimate."""
        if self.bar.is_busy:
            return
        self._looks += 1
        if not self.setup.paths():
            self.setup.counted.setText(NOTHING_YET)
            self.setup.estimate.setText("")
            return
        self.setup.counted.setText(COUNTING)
        look = self._looks
        self._saved(
            lambda: self._count(look),
            lambda error: self._on_error(look, self.setup.counted, error),
        )

    def _saved(self, then: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Write the changes of the open workspace to the disk, then continue."""
        workspace = self.controller.workspace
        if workspace is None or str(workspace.path) not in self.setup.paths():
            then()
            return
        run_in_thread(workspace.flush, done=lambda _: then(), failed=failed)

    def _count(self, look: int) -> None:
        if look != self._looks or self.bar.is_busy:
            return
        job = self.submit(finetune_tasks.REVIEWS, {"paths": list(self.setup.paths())})
        job.done.connect(lambda reply: self._on_counted(look, reply))
        job.failed.connect(lambda error: self._on_error(look, self.setup.counted, error))

    def _on_counted(self, look: int, reply: Reply) -> None:
        if look == self._looks:
            self.setup.show_reviews(reply.values)
            self.setup.propose_base(reply.values["found_by"])
            self._estimate()

    def _estimate(self) -> None:
        """Measure a step of what is chosen; again at the end where that changed meanwhile."""
        self._timer.stop()
        if self.bar.is_busy or not self.setup.paths() or not self.isVisible():
            return
        if self._estimating:
            self._stale = True
            return
        try:
            request = self.setup.request(adapters_folder() / "adapter.safetensors")
        except CosegError as error:
            self.setup.show_error(self.setup.estimate, error)
            return
        self.setup.estimate.setText(ESTIMATING)
        self._estimating, self._stale = True, False
        propose = self.setup.proposes_speed
        asked = {"request": request.model_dump(mode="json"), "propose": propose}
        job = self.submit(finetune_tasks.ESTIMATE, asked)
        job.done.connect(self._on_estimated)
        job.failed.connect(lambda error: self._on_estimate_failed(error))

    def _on_estimated(self, reply: Reply) -> None:
        self._estimating = False
        self._idle.start()
        self.setup.show_estimate(reply.values)
        if self._stale:
            self._estimate()

    def _on_estimate_failed(self, error: Exception) -> None:
        self._estimating = False
        self._idle.start()
        self._on_error(self._looks, self.setup.estimate, error)
        if self._stale:
            self._estimate()

    def _on_error(self, look: int, label: QLabel, error: Exception) -> None:
        if look != self._looks:
            return
        self.setup.show_error(label, error)
        if label is self.setup.counted:
            self.setup.estimate.setText("")
        if not isinstance(error, CosegError):
            raise error

    def _on_devices(self, reply: Reply) -> None:
        self._knows_devices = True
        self._idle.start()
        self.setup.model.set_devices(reply.values["devices"])

    def _on_controller(self) -> None:
        workspace = self.controller.workspace
        if self.setup.set_workspace(None if workspace is None else workspace.path):
            self.setup.sources_changed.emit()

    # -- a training ----------------------------------------------------------------------------

    def run(self) -> None:
        """Start what is chosen; a `CosegError` becomes a notification."""
        if self.bar.is_busy:
            return
        with notify_errors():
            name = self.setup.name_edit.text().strip() or "adapter"
            output = free_output(adapters_folder(), name)
            self._start(self.setup.request(output))

    def resume(self, request: FinetuneRequest, how: dict[str, Any]) -> None:
        """Resume one that was stopped, or that a crash ended; `how` are arguments of the job."""
        if not self.bar.is_busy:
            self._start(request, how)

    def _start(self, request: FinetuneRequest, how: dict[str, Any] | None = None) -> None:
        self._request, self._how, self._asks = request, how or {}, False
        self._looks += 1  # ignore the result of a count that still runs
        self.progress.clear()
        self.left.hide()
        self.tabs.setCurrentIndex(1)
        self.bar.run_button.setEnabled(False)
        self._saved(self._submit, self._on_failed)

    def _submit(self) -> None:
        if self._request is None or self.bar.is_busy:
            return
        asked = {"request": self._request.model_dump(mode="json"), **self._how}
        self._job = self.start(finetune_tasks.TRAIN, asked, {})
        self._job.reported.connect(self._on_reported)
        self.pause_button.setEnabled(True)

    def receive(self, reply: Reply, seconds: float) -> None:
        self._result = reply.values
        self._ended()
        self.bar.finish(f"Done in {in_words(seconds)}.", done=True)
        self.progress.show_result(reply.values)
        model_library().changed.emit()
        self.adapters.choose(reply.values["adapter"])

    def _on_reported(self, kind: str, values: dict[str, Any]) -> None:
        if kind == "differs" and self._request is not None:
            self._asks = True
            self.left.differs(self._request, values["message"])
        else:
            self.progress.show_event(kind, values)

    def _on_failed(self, error: Exception) -> None:
        self._ended()
        kept = self.left.keeps(self._request)
        if self._asks:  # no error: the user is asked how to continue
            self.bar.finish("Other labels are reviewed now: choose how to continue.")
            self.tabs.setCurrentIndex(0)
            return
        what = "Stopped" if isinstance(error, Cancelled) else "Failed"
        self.bar.finish(f"{what}; {RESUMES}." if kept else f"{what}.")
        if isinstance(error, Cancelled):
            self.progress.caption.setText(self.bar.text.text())
            return
        if isinstance(error, CosegError) and not kept:
            self.setup.show_error(self.setup.estimate, error)
            self.tabs.setCurrentIndex(0)
        notify(error)

    def _ended(self) -> None:
        """End its process, which frees all memory."""
        self._job = None
        self.pause_button.setChecked(False)
        self.pause_button.setEnabled(False)
        self._release()

    def _release(self) -> None:
        """End the process where it is this widget's own and idle."""
        if self._owns_worker:
            self.worker.release()

    def _on_pause(self, on: bool) -> None:
        self.pause_button.setText("Continue" if on else "Pause")
        if self._job is not None:
            self._job.pause(on)

    def _on_decided(self, use: bool) -> None:
        path = self._result.get("adapter", "")
        with notify_errors():
            if use:
                model_library().use(self._result["base_sha256"], path)
                self.progress.close_result("In use: Segment again to see the difference.")
            else:
                model_library().use(self._result["base_sha256"], None)
                self.progress.close_result(
                    "Not in use: Segment uses the base as it is. The adapter stays in the list."
                )

    # -- adapters ------------------------------------------------------------------------------

    def _on_import(self, path: str, output: str) -> None:
        if self.bar.is_busy:
            self._on_happened("Wait until the training has ended, then import.")
            return
        asked = {"adapter": path, "base": self.setup.model.source, "output": output}
        self._on_happened("Loading the adapter on its base …")
        job = self.submit(finetune_tasks.TAKE_IN, asked)
        job.done.connect(lambda reply: self._on_imported(reply.values["adapter"]))
        job.failed.connect(self._on_import_failed)

    def _on_imported(self, path: str) -> None:
        model_library().changed.emit()
        self.adapters.choose(path)
        self._on_happened("Imported.")

    def _on_import_failed(self, error: Exception) -> None:
        self._on_happened("Not imported.")
        notify(error)

    def _on_happened(self, words: str) -> None:
        if not self.bar.is_busy:
            self.bar.text.setText(words)

    def _follow_theme(self, _: Any = None) -> None:
        from napari.utils.theme import get_theme

        self.progress.set_text_color(get_theme(self._viewer.theme).text.as_hex())


def _page(*widgets: QWidget) -> QWidget:
    page = QWidget()
    column = QVBoxLayout(page)
    column.setContentsMargins(2, 8, 8, 4)
    for widget in widgets:
        column.addWidget(widget)
    column.addStretch(1)
    return ScrollColumn(page)
