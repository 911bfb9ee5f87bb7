"""Sample data of napari's menu File > Open Sample > Co-Seg."""

from __future__ import annotations

from typing import Any

from napari_coseg.images.readers.samples import colon, fluorescence, synthetic_cbct
from napari_coseg.widgets.layers import image_to_layer

SampleLayer = tuple[Any, dict[str, Any], str]


def sample_colon() -> list[SampleLayer]:
    """A piece of colon as one image layer with its pixel size."""
    data, keywords = image_to_layer(colon())
    return [(data, keywords, "image")]


def sample_fluorescence() -> list[SampleLayer]:
    """Nuclei in fluorescence, and a labels layer of manually drawn nuclei."""
    image, nuclei = fluorescence()
    data, keywords = image_to_layer(image)
    place = {key: keywords[key] for key in ("scale", "units")}
    drawn = {**place, "name": f"{image.name} nuclei, drawn"}
    return [(data, keywords, "image"), (nuclei, drawn, "labels")]


def sample_synthetic_cbct() -> list[SampleLayer]:
    """A generated cone-beam CT of jaws and teeth as one image layer in mm."""
    data, keywords = image_to_layer(synthetic_cbct())
    return [(data, keywords, "image")]
