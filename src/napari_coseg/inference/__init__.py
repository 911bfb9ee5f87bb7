"""Inference: images to regions and objects; refinement; prompted objects."""

from napari_coseg.images.intake import understand
from napari_coseg.inference.loading import load_model
from napari_coseg.inference.run import segment
from napari_coseg.inference.settings import InferenceSettings

__all__ = ["InferenceSettings", "load_model", "segment", "understand"]
