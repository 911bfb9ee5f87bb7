"""Choice of the model, an adapter of it, and the device."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QWidget

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import CosegError
from napari_coseg.core.types import LabelClass
from napari_coseg.core.words import counted
from napari_coseg.inference.loading import SHIPPED, weights_path
from napari_coseg.models.checkpoints.adapters import AdapterCard, check_base, read_adapter_card
from napari_coseg.models.checkpoints.native import read_card
from napari_coseg.widgets.finetune.model_library import base_sha256, model_library
from napari_coseg.widgets.forms import ChoiceBox, FileBox, form, text_label

NO_ADAPTER = "none (base model)"
DEVICE_NAMES = {"auto": "automatic", "cpu": "CPU", "mps": "Apple GPU (mps)"}


class ModelChoice(QWidget):
    """Lists of models, of adapters of the chosen one, and of devices; what the model's card says.

    Parameters
    ----------
    adapters
        Whether an adapter can be chosen.

    Signals
    -------
    changed()
        Another model or adapter; `card` is its card.
    """

    changed = Signal()

    def __init__(self, adapters: bool = True) -> None:
        super().__init__()
        self.card: ModelCard | None = None
        self.model_box = FileBox(
            "A model that comes with the plugin, or a weights file",
            [(name, name) for name in SHIPPED],
            "Choose a file…",
            "Weights of a model",
            "Weights (*.safetensors)",
        )
        self.adapter_box = ChoiceBox("Adapter that was fine-tuned from this model; see Fine-tune")
        self._offers_adapters = adapters
        self.about = text_label(rich=True)
        self.device_box = ChoiceBox("Device to run on; automatic uses a GPU where there is one")
        self.set_devices(["auto", "cpu"])
        form(
            ("Weights", self.model_box),
            *([("Adapter", self.adapter_box)] if adapters else []),
            self.about,
            ("Device", self.device_box),
            parent=self,
        )
        library = model_library()
        for path in library.weights:
            self.model_box.add_file(path)
        self.model_box.file_added.connect(library.list_weights)
        self.model_box.entry_chosen.connect(self._on_model)
        self.adapter_box.activated.connect(self._on_adapter)
        library.changed.connect(self._on_library_changed)
        library.used.connect(self._on_used)
        library.listed.connect(self.model_box.add_file)
        self._list_adapters()
        self._read_card()

    def arguments(self) -> dict[str, Any]:
        """Arguments of a job of the worker process."""
        adapter = {"adapter": self.adapter} if self.adapter else {}
        return {"model": self.source, "device": self.device, **adapter}

    @property
    def source(self) -> str:
        """Path of a weights file, or the name of a shipped model."""
        return str(self.model_box.currentData())

    @property
    def adapter(self) -> str:
        """Path of an adapter's file, or "" for none."""
        return str(self.adapter_box.currentData() or "") if self._offers_adapters else ""

    @property
    def device(self) -> str:
        return str(self.device_box.currentData())

    def set_devices(self, names: Sequence[str]) -> None:
        """Offer these devices; the choice stays where it is among them."""
        entries = [(DEVICE_NAMES.get(name, name), name) for name in names]
        self.device_box.set_entries(entries, self.device_box.currentData())

    def choose_file(self, path: str | Path) -> None:
        """Add a weights file to the lists of all docks, and choose it here."""
        self.model_box.choose_file(path)

    def choose_adapter(self, path: str | Path) -> None:
        """Use an adapter, listed or not; "" for none."""
        if self.adapter_box.index_of(str(path)) < 0:
            self.adapter_box.addItem(Path(path).stem, str(path))
        self.adapter_box.choose(str(path))
        self._read_card()

    def _list_adapters(self, chosen: str | None = None) -> None:
        """List those of the model; choose `chosen` or, where it is None, the one in use."""
        if not self._offers_adapters:
            return
        chosen = model_library().in_use(self.source) if chosen is None else chosen
        found = model_library().of_base(self.source)
        entries = [(NO_ADAPTER, "")]
        entries += [(f"{card.name}, {card.date[:10]}", str(path)) for path, card in found]
        if chosen and chosen not in dict(entries).values() and Path(chosen).is_file():
            entries.append((Path(chosen).stem, chosen))
        self.adapter_box.set_entries(entries, chosen)
        for at, (_, path) in enumerate(entries):
            self.adapter_box.setItemData(at, path, Qt.ItemDataRole.ToolTipRole)

    def _on_model(self) -> None:
        self._list_adapters()
        self._read_card()

    def _on_adapter(self, _: int) -> None:
        sha256 = model_library().sha256(self.source)
        if sha256:  # `used` follows, for this dock as well
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
            lines = [describe(self.card)]
            if self.adapter:
                adapter = read_adapter_card(self.adapter)
                check_base(adapter, base_sha256(self.source), self.card.name, self.adapter)
                self.card = adapter.model
                lines = [describe(self.card), describe_adapter(adapter)]
            self.about.setText("<br>".join(lines))
        except CosegError as error:
            self.card = None
            self.about.setText(f"⚠ {html.escape(str(error))}")
        self.changed.emit()


def describe_adapter(card: AdapterCard) -> str:
    """Where an adapter comes from, in one line of HTML."""
    day = f", {card.date[:10]}" if card.date else ""
    return html.escape(f"Fine-tuned from {card.base_name} on {counted(card.images, 'image')}{day}")


def describe(card: ModelCard) -> str:
    """A card in a few lines of HTML: name, classes in their colours, pixel size, licence."""
    parts = [f"<b>{html.escape(card.name)}</b>, {card.pixel_size_um:g} µm per pixel"]
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
    """A square in the colour of the class and its name, as HTML without a line break."""
    color = "#{:02x}{:02x}{:02x}".format(*entry.color)
    name = html.escape(text or entry.name).replace(" ", "&nbsp;")
    return f'<span style="color:{color}">■</span>&nbsp;{name}'
