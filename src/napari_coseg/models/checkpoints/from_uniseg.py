"""Import checkpoints of UniSeg, the authors' network before MedUniSeg.

MedUniSeg adds a modal prompt and tasks in 2D, so UniSeg is MedUniSeg without modal prompts and with
a smaller task prompt. Its licence is non-commercial, and so is that of an imported file.
Normalisation follows UniSeg's prediction: CT is clipped to -325..325 HU and scaled to 0..1, other
scans become z-scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_coseg.core.card import ClassEntry, ModelCard, Normalisation, OutputMap, TaskEntry
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.conversion import (
    ImportReport,
    built,
    convert_entries,
    filled,
    size_of,
)
from napari_coseg.models.checkpoints.safe import named_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.models.meduniseg.model import MedUniSeg

LICENCE = "UniSeg's: non-commercial use only (github.com/yeerwen/UniSeg)"
HU = Normalisation(mean=(-325.0,), std=(650.0,), values="measured", window=(-325.0, 325.0))
CLASSES = (
    *("liver", "liver tumour", "kidney", "kidney tumour", "hepatic vessel", "hepatic tumour"),
    *("pancreas", "pancreas tumour", "colon tumour", "lung tumour", "spleen", "vertebrae"),
    *("prostate", "oedema", "necrosis", "enhancing tumour", "lesion"),
)


def _z_scores(channels: int) -> Normalisation:
    return Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels, values="z-scores")


def _other(
    name: str, classes: tuple[str, ...], channels: tuple[str, ...], spacing_mm: tuple[float, float]
) -> TaskEntry:
    z, y = spacing_mm
    return TaskEntry(
        name=name,
        classes=classes,
        channels=channels,
        normalisation=_z_scores(len(channels)),
        slice_spacing_um=1000 * z,
        pixel_size_um=1000 * y,
    )


TASKS = (
    TaskEntry(name="liver", classes=("liver", "liver tumour")),
    TaskEntry(name="kidney", classes=("kidney", "kidney tumour")),
    TaskEntry(name="hepatic vessels", classes=("hepatic vessel", "hepatic tumour")),
    TaskEntry(name="pancreas", classes=("pancreas", "pancreas tumour")),
    TaskEntry(name="colon", classes=("colon tumour",)),
    TaskEntry(name="lung", classes=("lung tumour",)),
    TaskEntry(name="spleen", classes=("spleen",)),
    TaskEntry(
        name="VerSe20", classes=("vertebrae",), slice_spacing_um=4000.0, pixel_size_um=2000.0
    ),
    _other("prostate", ("prostate",), ("T2",), (3.0, 1.5)),
    _other(
        "BraTS21",
        ("oedema", "necrosis", "enhancing tumour"),
        ("T1", "T1ce", "T2", "FLAIR"),
        (1.0, 1.0),
    ),
    _other("AutoPET22", ("lesion",), ("CT", "PET"), (8.0, 4.0)),
)
"""In the order of UniSeg's task ids."""

AS_UNISEG = ModelCard(
    name="UniSeg (imported)",
    family="meduniseg",
    config={},
    channels=("CT",),
    dimensions=3,
    tasks=TASKS,
    semantic_classes=tuple(
        ClassEntry(
            id=n, name=name, color=(50 + 83 * n % 200, 60 + 131 * n % 190, 40 + 47 * n % 200)
        )
        for n, name in enumerate(CLASSES, start=1)
    ),
    maps=(OutputMap(name="semantic", channels=1 + len(CLASSES), activation="softmax"),),
    pixel_size_um=1500.0,
    slice_spacing_um=3000.0,
    tile_size_px=192,
    tile_slices=64,
    normalisation=HU,
    training_data="11 public datasets of CT, MR and PET (UniSeg, table 1)",
    licence=LICENCE,
    notes="imported from a checkpoint of UniSeg; not for diagnosis",
)
"""Default card of an import: the 11 tasks of the released checkpoint."""


class Imported(NamedTuple):
    """A network with UniSeg's weights, in evaluation mode, and the import report."""

    model: MedUniSeg
    report: ImportReport


_RULES = (
    (r"^module\.", ""),
    (
        r"^conv_blocks_context\.(\d+)\.blocks\.(\d+)\.conv_(\d)\.",
        r"encoder.stages.\1.\2.convolutions.\3.",
    ),
    (r"^conv_blocks_context\.(\d+)\.blocks\.(\d+)\.", r"encoder.stages.\1.\2."),
    (r"^conv_blocks_context\.(\d+)\.(\d+)\.blocks\.0\.", r"encoder.stages.\1.\2."),
    (r"^intermedia_prompt$", "prior.prompt"),
    (r"^fusion_layer\.", "prior."),
    (r"^conv_blocks_localization\.(\d+)\.(\d+)\.blocks\.0\.", r"decoder.\1.blocks.\2."),
    (r"^tu\.(\d+)\.", r"decoder.\1.up."),
    (r"^seg_outputs\.(\d+)\.", r"decoder.\1.head."),
    (r"\.instnorm\.", ".norm."),
)


def recognises(names: Mapping[str, Any]) -> bool:
    """Whether entries of these names are of UniSeg."""
    return any(name.removeprefix("module.").startswith("conv_blocks_context.") for name in names)


def rename(name: str) -> str:
    """UniSeg's name of an entry -> ours; unknown names stay, and are reported later."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def import_checkpoint(
    source: str | Path | Mapping[str, Tensor], card: ModelCard | None = None
) -> Imported:
    """A network with UniSeg's weights.

    Parameters
    ----------
    source
        Path of the checkpoint, or its state dict.
    card
        Tasks, classes and spacing; default `AS_UNISEG`. Its config is replaced: sizes follow from
        the shapes.

    Raises
    ------
    CheckpointError
        If entries are unknown, missing, misshapen or not finite (named), or the card's tasks are
        not as many as the checkpoint's.
    """
    from napari_coseg.models.meduniseg.model import MedUniSeg

    theirs, source_name = named_tensors(source, "the checkpoint")
    state, report = convert_entries(theirs, rename, _without_batch)
    card = card or AS_UNISEG
    tasks = size_of(state, "prior.blocks.2.conv.weight", 0, "UniSeg")
    if tasks != len(card.tasks):
        raise CheckpointError(
            f"{source_name} has {tasks} tasks, but the card lists {len(card.tasks)}; give a card "
            "with its tasks in the order of their ids"
        )
    card = card.model_copy(update={"config": _read_config(state)})
    model = built(MedUniSeg, card, state, source_name)
    return Imported(filled(model, state, source_name), report)


def _without_batch(ours: str, value: Tensor) -> Tensor:
    """The task prompt without its batch axis."""
    return value[0] if ours == "prior.prompt" and value.ndim == 5 and len(value) == 1 else value


def _read_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A `MedUniSegConfig` as JSON values, from the shapes."""

    def size(name: str, axis: int) -> int:
        return size_of(state, name, axis, "UniSeg")

    stem = re.compile(r"encoder\.stages\.0\.0\.convolutions\.(\d)\.weight")
    stages = {int(name.split(".")[2]) for name in state if name.startswith("encoder.stages.")}
    return {
        "widths": [size(f"encoder.stages.{n}.1.conv.weight", 0) for n in sorted(stages)],
        "stems": sorted(int(found[1]) for name in state if (found := stem.fullmatch(name))),
        "modal_prompt": "none",
        "prompt_channels": size("prior.prompt", 0),
        "prompt_grid": [size("prior.prompt", axis) for axis in (1, 2, 3)],
        "head_channels": size("decoder.0.head.weight", 0),
    }
