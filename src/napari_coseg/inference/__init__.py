"""From an image to regions and objects: tile, predict, decode, stitch, measure.

`segment` and `load_model` are the way in; importing them loads no torch yet.
"""

from napari_coseg.images.intake import understand
from napari_coseg.inference.loading import load_model
from napari_coseg.inference.run import segment
from napari_coseg.inference.settings import InferenceSettings

__all__ = ["InferenceSettings", "load_model", "segment", "understand"]
