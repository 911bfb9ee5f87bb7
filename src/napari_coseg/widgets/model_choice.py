"""Which model, what it finds, and where it runs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QLabel, QWidget

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import CosegError
from napari_coseg.core.types import LabelClass
from napari_coseg.core.words import counted
from napari_coseg.inference.loading import DEFAULT_MODEL, weights_path
from napari_coseg.models.checkpoints.adapters import AdapterCard, check_base, read_adapter_card
from napari_coseg.models.checkpoints.native import read_card
from napari_coseg.widgets.finetune.model_library import base_sha256, model_library
from napari_coseg.widgets.image_choice import narrow_box

CHOOSE = "Choose a file…"
NO_ADAPTER = "none: the model as it is"
DEVICE_WORDS = {"auto": "automatic", "cpu": "CPU", "mps": "Apple GPU (mps)"}


class ModelChoice(QWidget):
    """A list of models, adapters of the chosen one, what its card says, and the device.

    Parameters
    ----------
    adapters
        Whether an adapter can be put on the model.

    Signals
    -------
    changed()
        Another model, or adapter; `card` is its card.
    """

    changed = Signal()

    def __init__(self, adapters: bool = True) -> None:
        super().__init__()
        self.card: ModelCard | None = None
        self.model_box = narrow_box("The model that comes with the package, or a weights file")
        self.adapter_box = narrow_box("What was fine-tuned from this model; see Fine-tune")
        self._offers_adapters = adapters
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.about.setTextFormat(Qt.TextFormat.RichText)
        self.device_box = narrow_box("Where the model runs; automatic takes a GPU if there is one")
        self.set_devices(["auto", "cpu"])
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Weights", self.model_box)
        if adapters:
            form.addRow("Adapter", self.adapter_box)
        form.addRow(self.about)
        form.addRow("Device", self.device_box)
        self.model_box.addItem("default", DEFAULT_MODEL)
        self.model_box.addItem(CHOOSE, None)
        for path in model_library().weights:
            self._list_weights(path)
        self._former = 0
        self.model_box.currentIndexChanged.connect(self._on_chosen)
        self._list_adapters()
        self._read_card()
        self.adapter_box.activated.connect(self._on_adapter)
        model_library().changed.connect(self._on_library_changed)
        model_library().used.connect(self._on_used)
        model_library().listed.connect(self._list_weights)

    def arguments(self) -> dict[str, Any]:
        """What a job of the worker process is told of it."""
        told = {"model": self.source, "device": self.device}
        return told | ({"adapter": self.adapter} if self.adapter else {})

    @property
    def source(self) -> str:
        """The path of a weights file, or "default"."""
        return str(self.model_box.currentData())

    @property
    def adapter(self) -> str:
        """The path of an adapter's file, or "" for none."""
        return str(self.adapter_box.currentData() or "") if self._offers_adapters else ""

    @property
    def device(self) -> str:
        return str(self.device_box.currentData())

    def set_devices(self, names: Sequence[str]) -> None:
        """Offer these; the one that is chosen stays so where it is among them."""
        chosen = self.device_box.currentData()
        self.device_box.clear()
        for name in names:
            self.device_box.addItem(DEVICE_WORDS.get(name, name), name)
        self.device_box.setCurrentIndex(max(0, self.device_box.findData(chosen)))

    def choose_file(self, path: str | Path) -> None:
        """Add a weights file to the lists of all docks, and choose it here."""
        model_library().list_weights(path)
        self._list_weights(str(path))
        self.model_box.setCurrentIndex(self.model_box.findData(str(path)))

    def _list_weights(self, path: str) -> None:
        if self.model_box.findData(path) < 0:
            at = self.model_box.count() - 1
            self.model_box.insertItem(at, Path(path).name, path)
            self.model_box.setItemData(at, path, Qt.ItemDataRole.ToolTipRole)

    def _on_chosen(self, index: int) -> None:
        if self.model_box.itemText(index) != CHOOSE:
            self._former = index
            self._list_adapters()
            self._read_card()
            return
        self.model_box.setCurrentIndex(self._former)
        path, _ = QFileDialog.getOpenFileName(
            self, "Weights of a model", "", "Weights (*.safetensors)"
        )
        if path:
            self.choose_file(path)

    def choose_adapter(self, path: str | Path) -> None:
        """Put an adapter on the model; "" for none. One that is not listed becomes so."""
        at = self.adapter_box.findData(str(path))
        if at < 0:
            self.adapter_box.addItem(Path(path).stem, str(path))
            at = self.adapter_box.count() - 1
        self.adapter_box.setCurrentIndex(at)
        self._read_card()

    def _list_adapters(self, chosen: str | None = None) -> None:
        """List those of the model; `chosen`, or the one in use, is chosen where it is there."""
        if not self._offers_adapters:
            return
        chosen = model_library().in_use(self.source) if chosen is None else chosen
        self.adapter_box.clear()
        self.adapter_box.addItem(NO_ADAPTER, "")
        for path, card in model_library().of_base(self.source):
            self.adapter_box.addItem(f"{card.name}, {card.date[:10]}", str(path))
            last = self.adapter_box.count() - 1
            self.adapter_box.setItemData(last, str(path), Qt.ItemDataRole.ToolTipRole)
        if chosen and self.adapter_box.findData(chosen) < 0 and Path(chosen).is_file():
            self.adapter_box.addItem(Path(chosen).stem, chosen)
        self.adapter_box.setCurrentIndex(max(0, self.adapter_box.findData(chosen)))

    def _on_adapter(self, _: int) -> None:
        sha256 = model_library().sha256(self.source)
        if sha256:  # other docks follow, this one as well
            model_library().use(sha256, self.adapter)
        else:
            self._read_card()

    def _on_library_changed(self) -> None:
        before = self.adapter
        self._list_adapters(before or None)
        if self.adapter != before:
            self._read_card()

    def _on_used(self, sha256: str, path: str) -> None:
        if self._offers_adapters and sha256 == model_library().sha256(self.source):
            self.choose_adapter(path)

    def _read_card(self) -> None:
        try:
            self.card = read_card(weights_path(self.source))
            told = describe(self.card)
            if self.adapter:
                adapter = read_adapter_card(self.adapter)
                check_base(adapter, base_sha256(self.source), self.card.name, self.adapter)
                self.card = adapter.model
                told = f"{describe(self.card)}<br>{adapter_words(adapter)}"
            self.about.setText(told)
        except CosegError as error:
            self.card = None
            self.about.setText(f"⚠ {html.escape(str(error))}")
        self.changed.emit()


def adapter_words(card: AdapterCard) -> str:
    """Where an adapter comes from, in one line."""
    day = f", {card.date[:10]}" if card.date else ""
    learnt = counted(card.images, "image")
    return html.escape(f"Fine-tuned from {card.base_name} on {learnt}{day}")


def describe(card: ModelCard) -> str:
    """A card in a few lines of HTML: name, classes in their colours, pixel size, licence."""
    parts = [f"<b>{html.escape(card.name)}</b>, at {card.pixel_size_um:g} µm a pixel"]
    for title, classes in (
        ("Regions", card.semantic_label_classes),
        ("Objects", card.instance_label_classes),
    ):
        if classes:
            parts.append(f"{title}: " + " ".join(swatch(entry) for entry in classes))
    if card.licence:
        parts.append(f"Licence: {html.escape(card.licence)}")
    return "<br>".join(parts)


def swatch(entry: LabelClass, text: str | None = None) -> str:
    """A square in the colour of the class and its name, that no line break parts."""
    color = "#{:02x}{:02x}{:02x}".format(*entry.color)
    name = html.escape(text or entry.name).replace(" ", "&nbsp;")
    return f'<span style="color:{color}">■</span>&nbsp;{name}'
