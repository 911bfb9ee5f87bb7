"""What the tests of the widgets share: a viewer without a window, a widget with the stub model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cases.stub_models import StubModel
from napari_coseg.models.checkpoints import native


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "discs.safetensors"
    native.save(path, StubModel())
    return path


@pytest.fixture(scope="module")
def worker(qapp: Any) -> Iterator[Any]:
    """One process for all tests of this file: torch takes seconds to import."""
    from napari_coseg.widgets.background.worker import Worker

    worker = Worker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "OMP_NUM_THREADS", "1"
        )  # more threads only wait for each other on a busy machine
        worker.prepare()
    yield worker
    worker.close()


@pytest.fixture
def notes() -> Iterator[list[str]]:
    """Messages of napari's notifications."""
    from napari.utils.notifications import notification_manager

    found: list[str] = []

    def receive(event: Any) -> None:
        found.append(event.message)

    notification_manager.notification_ready.connect(receive)
    yield found
    notification_manager.notification_ready.disconnect(receive)


@pytest.fixture
def viewer() -> Any:
    """All of a viewer but its window."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def make_widget(
    weights: Path, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """A widget on a viewer, with the stub model chosen; `job` stands for the segmentation."""
    from napari_coseg.widgets.background import tasks
    from napari_coseg.widgets.segment import SegmentWidget

    kept = []  # nothing else holds a widget without a window

    def make(viewer: Any, job: str = "segment_discs") -> Any:
        monkeypatch.setattr(tasks, "SEGMENT", f"cases.worker_jobs:{job}")
        widget = SegmentWidget(viewer, worker)
        kept.append(widget)
        widget.model.choose_file(weights)
        return widget

    yield make
    for widget in kept:
        widget.close()
