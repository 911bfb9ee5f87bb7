"""Regions and objects of an image in one run, each helping the other.

>>> import napari_coseg
>>> prediction = napari_coseg.segment(image, pixel_size_um=0.5)  # doctest: +SKIP

Importing this package imports neither torch nor napari; the names below come when first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_coseg.core.errors import CosegError
    from napari_coseg.core.types import Image, Prediction
    from napari_coseg.images.intake import understand
    from napari_coseg.images.readers.registry import read_image
    from napari_coseg.inference.loading import load_model
    from napari_coseg.inference.run import segment
    from napari_coseg.inference.settings import InferenceSettings

try:
    __version__ = version("napari-coseg")
except PackageNotFoundError:
    __version__ = "0+unknown"

_PLACES = {
    "CosegError": "napari_coseg.core.errors",
    "Image": "napari_coseg.core.types",
    "InferenceSettings": "napari_coseg.inference.settings",
    "Prediction": "napari_coseg.core.types",
    "load_model": "napari_coseg.inference.loading",
    "read_image": "napari_coseg.images.readers.registry",
    "segment": "napari_coseg.inference.run",
    "understand": "napari_coseg.images.intake",
}

__all__ = [
    "CosegError",
    "Image",
    "InferenceSettings",
    "Prediction",
    "__version__",
    "load_model",
    "read_image",
    "segment",
    "understand",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
