"""Sample data of napari's menu File > Open Sample > Co-Seg."""

from __future__ import annotations

from typing import Any

from napari_coseg.readers.samples import colon
from napari_coseg.widgets.layers import image_to_layer


def sample_colon() -> list[tuple[Any, dict[str, Any], str]]:
    """A piece of colon as one image layer, with its pixel size."""
    data, keywords = image_to_layer(colon())
    return [(data, keywords, "image")]
