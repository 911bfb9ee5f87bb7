"""The Adapters page of the Fine-tune dock: use, export, import and delete adapters."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import OutputError
from napari_coseg.core.words import counted
from napari_coseg.finetuning.request import free_output
from napari_coseg.models.checkpoints.adapter_library import (
    SUFFIX,
    adapters_folder,
    adapters_in,
    copy_adapter,
)
from napari_coseg.models.checkpoints.adapters import AdapterCard, check_base, read_adapter_card
from napari_coseg.widgets.dock_widget import notify, notify_errors
from napari_coseg.widgets.finetune.model_library import base_sha256, model_library
from napari_coseg.widgets.forms import row
from napari_coseg.widgets.run_in_thread import run_in_thread

FILES = f"Adapters (*{SUFFIX})"
SHOWN_SCORES = {"object_f1": "F1", "object_pq": "PQ", "mean_region_dice": "Dice"}
Base = Callable[[], tuple[str, ModelCard | None]]


class AdaptersPanel(QWidget):
    """The list of adapters of one base, and actions on them.

    Parameters
    ----------
    base
        Gives the source of the chosen base and its card.

    Signals
    -------
    import_asked(str, str)
        A file that is to be loaded on the base, and where it is to be copied.
    happened(str)
        A message that says what was done.
    """

    import_asked = Signal(str, str)
    happened = Signal(str)

    def __init__(self, base: Base) -> None:
        super().__init__()
        self._base = base
        self.adapters = QListWidget()
        self.use_button = QPushButton("Use")
        self.export_button = QPushButton("Export …")
        self.import_button = QPushButton("Import …")
        self.delete_button = QPushButton("Delete")
        self.about = QLabel()
        self._build()
        self.use_button.clicked.connect(self._on_use)
        self.adapters.itemDoubleClicked.connect(lambda _: self._on_use())
        self.adapters.currentRowChanged.connect(lambda _: self._describe())
        self.export_button.clicked.connect(self._on_export)
        self.import_button.clicked.connect(self._on_import)
        self.delete_button.clicked.connect(self._on_delete)
        model_library().changed.connect(self.refresh)
        self.refresh()

    def _build(self) -> None:
        self.adapters.setMinimumHeight(220)
        self.adapters.setWordWrap(True)
        self.adapters.setAlternatingRowColors(True)
        self.about.setWordWrap(True)
        self.about.setTextFormat(Qt.TextFormat.RichText)
        self.use_button.setToolTip("Segment with it from now on, in all docks of this window")
        self.export_button.setToolTip("One file, for the same base on another machine")
        self.import_button.setToolTip("A file from another machine, made for this base")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.adapters, 1)
        column.addWidget(row(self.use_button, self.delete_button))
        column.addWidget(row(self.export_button, self.import_button))
        column.addWidget(self.about)

    def refresh(self) -> None:
        """Read the folder again; the choice stays where it can."""
        source, card = self._base()
        chosen = self.chosen()
        used, sha256 = model_library().in_use(source), model_library().sha256(source)
        self.adapters.clear()
        name = card.name if card else source
        self._add(f"{'● ' if not used else '○ '}no adapter: {name} as it is", "", True)
        for path, entry in adapters_in():
            is_ours = entry.base_sha256 == sha256
            mark = "● " if str(path) == used else "○ "
            self._add(mark + in_lines(path, entry), str(path), is_ours)
        paths = [self._path(at) for at in range(self.adapters.count())]
        self.adapters.setCurrentRow(paths.index(chosen) if chosen in paths else 0)

    def chosen(self) -> str:
        """Path of the chosen one; "" for none."""
        at = self.adapters.currentRow()
        return "" if at < 0 else self._path(at)

    def choose(self, path: str | Path) -> None:
        """Choose the adapter of this file."""
        paths = [self._path(at) for at in range(self.adapters.count())]
        if str(path) in paths:
            self.adapters.setCurrentRow(paths.index(str(path)))

    def use(self, path: str) -> None:
        """Use it with its base from now on.

        Raises
        ------
        CheckpointError
            Where it is of another base.
        """
        source, card = self._base()
        sha256 = base_sha256(source)
        if path:
            check_base(read_adapter_card(path), sha256, card.name if card else source, path)
        model_library().use(sha256, path)
        used = Path(path).stem if path else "no adapter"
        self.happened.emit(f"Segment uses {used} from now on.")

    def export_to(self, adapter: str, output: Path) -> None:
        """Copy it, in a thread.

        Parameters
        ----------
        output
            As a dialog gave it, which has asked before replacing it. Where it has no suffix, this
            adds it, and asks.
        """
        overwrite = True
        if output.suffix != SUFFIX:
            output = output.with_name(output.name + SUFFIX)
            overwrite = output.exists()
            if overwrite and not self._confirms(f"{output} already exists. Replace it?"):
                return

        def copied(_: Any) -> None:
            self.happened.emit(f"Exported to {output.name}.")

        run_in_thread(_export, Path(adapter), output, overwrite, done=copied, failed=notify)

    def import_from(self, path: str) -> None:
        """Refuse an adapter of another base; else have it loaded and copied.

        Raises
        ------
        CheckpointError
            Where it is no adapter, or of another base.
        """
        source, card = self._base()
        entry = read_adapter_card(path)
        check_base(entry, base_sha256(source), card.name if card else source, path)
        self.import_asked.emit(path, str(free_output(adapters_folder(), Path(path).stem)))

    # ------------------------------------------------------------------------------------------

    def _add(self, text: str, path: str, is_ours: bool) -> None:
        item = QListWidgetItem(text)
        item.setData(Qt.ItemDataRole.UserRole, path)
        item.setToolTip(path if is_ours else f"{path}\nMade for another base than the chosen one")
        if not is_ours:
            item.setForeground(Qt.GlobalColor.gray)
        self.adapters.addItem(item)

    def _path(self, at: int) -> str:
        return str(self.adapters.item(at).data(Qt.ItemDataRole.UserRole))

    def _describe(self) -> None:
        path = self.chosen()
        self.export_button.setEnabled(bool(path))
        self.delete_button.setEnabled(bool(path))
        self.about.clear()
        if path and Path(path).is_file():
            with notify_errors():
                self.about.setText(in_full(read_adapter_card(path)))

    def _on_use(self) -> None:
        with notify_errors():
            self.use(self.chosen())

    def _on_export(self) -> None:
        path = self.chosen()
        chosen, _ = QFileDialog.getSaveFileName(self, "Export", Path(path).name, FILES)
        if chosen:
            self.export_to(path, Path(chosen))

    def _on_import(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Import an adapter", "", FILES)
        if chosen:
            with notify_errors():
                self.import_from(chosen)

    def _on_delete(self) -> None:
        path = self.chosen()
        text = f"Delete the adapter {Path(path).stem}? This cannot be undone."
        if self._confirms(text):
            with notify_errors():
                self.delete(path)

    def _confirms(self, text: str) -> bool:
        answer = QMessageBox.question(self, "Co-Seg", text)
        return bool(answer == QMessageBox.StandardButton.Yes)

    def delete(self, path: str) -> None:
        """Delete its file; where it was in use, no adapter is from now on.

        Raises
        ------
        OutputError
            Where the disk refuses.
        """
        entry = read_adapter_card(path)
        try:
            Path(path).unlink()
        except OSError as error:
            raise OutputError(f"{path} cannot be deleted: {error}") from error
        source, _ = self._base()
        if (
            model_library().in_use(source) in ("", path)
            and model_library().sha256(source) == entry.base_sha256
        ):
            model_library().use(entry.base_sha256, None)
        self.refresh()


def in_lines(path: Path, card: AdapterCard) -> str:
    """Name, date, base, scores and size, in short lines."""
    before, after = card.scores.get("before", {}), card.scores.get("after", {})
    scores = [
        f"{words} {before[name]:.2f} → {after[name]:.2f}" if name in before else
        f"{words} {after[name]:.2f}"
        for name, words in SHOWN_SCORES.items()
        if name in after
    ]  # fmt: skip
    day = card.date[:16].replace("T", " ")
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    lines = [card.name, f"    {day}, {size}, on {card.base_name}"]
    return "\n".join([*lines, *([f"    {', '.join(scores)}"] if scores else [])])


def in_full(card: AdapterCard) -> str:
    """The rest of its card, as HTML."""
    settings: Mapping[str, Any] = card.settings
    lines = [
        f"Trained on {counted(card.images, 'image')}, {counted(card.objects, 'object')}",
        f"Trained: {', '.join(card.parts)}; {settings.get('steps_taken', '?')} steps",
        f"Base: {html.escape(card.base_name)}, {card.base_sha256[:12]}…",
    ]
    if card.notes:
        lines.append(html.escape(card.notes))
    return "<small>" + "<br>".join(lines) + "</small>"


def _export(adapter: Path, output: Path, overwrite: bool) -> None:
    read_adapter_card(adapter)
    copy_adapter(adapter, output, overwrite=overwrite)
