"""Segment regions and objects of an image in one run, each task helping the other.

>>> import napari_coseg
>>> prediction = napari_coseg.segment("slide.tif", pixel_size_um=0.5)  # doctest: +SKIP

The names in ``__all__`` are the public interface, which semantic versioning covers: a release of
the same major version keeps their meaning and arguments (before 1.0, the same minor version). All
modules below this one are internal and may change in any release.

Importing this package imports neither torch nor napari: a name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_coseg.core.card import ModelCard as ModelCard
    from napari_coseg.core.errors import CosegError as CosegError
    from napari_coseg.core.geometry import Geometry as Geometry
    from napari_coseg.core.types import Image as Image
    from napari_coseg.core.types import Instances as Instances
    from napari_coseg.core.types import LabelClass as LabelClass
    from napari_coseg.core.types import Prediction as Prediction
    from napari_coseg.datasets.base import Dataset as Dataset
    from napari_coseg.datasets.registry import open_dataset as open_dataset
    from napari_coseg.evaluation.run import evaluate as evaluate
    from napari_coseg.evaluation.train import train as train
    from napari_coseg.finetuning.reviewed import ReviewedImage as ReviewedImage
    from napari_coseg.finetuning.reviewed import ReviewedSet as ReviewedSet
    from napari_coseg.finetuning.run import FinetuneResult as FinetuneResult
    from napari_coseg.finetuning.run import finetune as finetune
    from napari_coseg.finetuning.settings import FinetuneSettings as FinetuneSettings
    from napari_coseg.finetuning.sources import read_reviewed as read_reviewed
    from napari_coseg.formats.read_geojson import read_geojson as read_geojson
    from napari_coseg.formats.read_ome_zarr import read_ome_zarr as read_ome_zarr
    from napari_coseg.formats.registry import export as export
    from napari_coseg.images.intake import understand as understand
    from napari_coseg.images.readers.registry import read_image as read_image
    from napari_coseg.inference.loading import list_models as list_models
    from napari_coseg.inference.loading import load_model as load_model
    from napari_coseg.inference.refine import refine as refine
    from napari_coseg.inference.run import segment as segment
    from napari_coseg.inference.run_state import RunState as RunState
    from napari_coseg.inference.settings import InferenceSettings as InferenceSettings
    from napari_coseg.labels import editing as editing
    from napari_coseg.labels.measure.run import Measurements as Measurements
    from napari_coseg.labels.measure.run import MeasureSettings as MeasureSettings
    from napari_coseg.labels.measure.run import measure as measure
    from napari_coseg.training.recipe import Recipe as Recipe
    from napari_coseg.training.recipe import read_recipe as read_recipe
    from napari_coseg.workspace.folder import open_workspace as open_workspace

try:
    __version__ = version("napari-coseg")
except PackageNotFoundError:
    __version__ = "0+unknown"

# Module: the public names in it, as in the imports above.
_PUBLIC = {
    "core.card": "ModelCard",
    "core.errors": "CosegError",
    "core.geometry": "Geometry",
    "core.types": "Image Instances LabelClass Prediction",
    "datasets.base": "Dataset",
    "datasets.registry": "open_dataset",
    "evaluation.run": "evaluate",
    "evaluation.train": "train",
    "finetuning.reviewed": "ReviewedImage ReviewedSet",
    "finetuning.run": "FinetuneResult finetune",
    "finetuning.settings": "FinetuneSettings",
    "finetuning.sources": "read_reviewed",
    "formats.read_geojson": "read_geojson",
    "formats.read_ome_zarr": "read_ome_zarr",
    "formats.registry": "export",
    "images.intake": "understand",
    "images.readers.registry": "read_image",
    "inference.loading": "list_models load_model",
    "inference.refine": "refine",
    "inference.run": "segment",
    "inference.run_state": "RunState",
    "inference.settings": "InferenceSettings",
    "labels.measure.run": "MeasureSettings Measurements measure",
    "training.recipe": "Recipe read_recipe",
    "workspace.folder": "open_workspace",
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = ["__version__", "editing", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name == "editing":
        return importlib.import_module(f"{__name__}.labels.editing")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
