"""Fine-tune docks with a tiny base and a few small steps: name this file in `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cases.finetuning_cases import DOCK_STEPS, base_file
from napari_coseg.models.checkpoints.adapter_library import FOLDER_VARIABLE


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return base_file(tmp_path)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where adapters are kept."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "adapters"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "adapters"


@pytest.fixture
def make_dock(alone: None, controllers: Any, shelf: Path, base: Path, qtbot: Any) -> Iterator[Any]:
    """A Fine-tune dock with the tiny base and a few small steps chosen."""
    from napari_coseg.widgets.finetune.widget import FinetuneWidget

    made = []

    def make(viewer: Any, widget: Any = None) -> Any:
        controllers(viewer)
        dock = widget or FinetuneWidget(viewer)
        made.append(dock)
        small(dock, base)
        return dock

    yield make
    for dock in made:
        dock.close()


@pytest.fixture
def dock(
    alone: None, controllers: Any, shelf: Path, viewer: Any, worker: Any, base: Path
) -> Iterator[Any]:
    """One without a window; its process is shared with the other tests."""
    from napari_coseg.widgets.finetune.widget import FinetuneWidget

    controllers(viewer)
    dock = FinetuneWidget(viewer, worker)
    small(dock, base, steps=2, validations=1)
    yield dock
    dock.close()


def small(dock: Any, base: Path, steps: int = DOCK_STEPS, validations: int = 3) -> None:
    setup = dock.setup
    setup.model.choose_file(base)
    chosen = {"steps": steps, "crops": 2, "crop_px": 64, "validations": validations}
    for name, value in chosen.items():
        setup.more.boxes[name].setValue(value)
    setup.more.boxes["match_input"].setChecked(False)
