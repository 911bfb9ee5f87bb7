"""Encoders by kind. To add one, write ``nn/encoders/<kind>.py`` and add a line."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from napari_coseg.core.errors import SettingsError
from napari_coseg.models.nn.encoders.base import Encoder, EncoderConfig

ENCODERS: dict[str, str] = {
    "hiera": "napari_coseg.models.nn.encoders.hiera:HieraEncoder",
    "compact": "napari_coseg.models.nn.encoders.compact:CompactEncoder",
    "efficientnet-lite": "napari_coseg.models.nn.encoders.efficientnet_lite:EfficientNetLite",
}
UNNAMED_KIND = "hiera"
"""Kind of a config without a kind, as in old cards."""


def encoder_class(kind: str) -> type[Encoder]:
    """The encoder class of a kind.

    Raises
    ------
    SettingsError
        If there is no such kind.
    """
    if kind not in ENCODERS:
        raise SettingsError(
            f"encoder kind {kind!r} is not known; this version knows {', '.join(ENCODERS)}"
        )
    module, name = ENCODERS[kind].split(":")
    found: type[Encoder] = getattr(importlib.import_module(module), name)
    return found


def named_shapes() -> dict[str, EncoderConfig]:
    """All named configs, of all kinds."""
    return {name: c for kind in ENCODERS for name, c in encoder_class(kind).sizes.items()}


def shape_of(encoder: str | Mapping[str, Any] | EncoderConfig) -> EncoderConfig:
    """Resolve a config from its name or from a mapping; a config is returned unchanged.

    Raises
    ------
    SettingsError
        If the name or the kind is not known, or the mapping does not fit its kind.
    """
    if isinstance(encoder, EncoderConfig):
        return encoder
    if isinstance(encoder, str):
        shapes = named_shapes()
        if encoder not in shapes:
            raise SettingsError(f"unknown encoder {encoder!r}; choose one of {', '.join(shapes)}")
        return shapes[encoder]
    kind = encoder_class(str(encoder.get("kind", UNNAMED_KIND)))
    return kind.Config.from_mapping(dict(encoder))


def build_encoder(
    config: EncoderConfig,
    width: int,
    high_resolution_channels: tuple[int, ...],
    adapter_ratio: float,
    adapter_kernel_size: int,
) -> Encoder:
    """An encoder with random weights; the arguments are those of `Encoder`."""
    kind = encoder_class(config.kind_name)
    return kind(config, width, high_resolution_channels, adapter_ratio, adapter_kernel_size)


def _checked(encoder: object) -> EncoderConfig:
    if not isinstance(encoder, str | Mapping | EncoderConfig):
        raise ValueError("name an encoder, or give its config as a table")
    return shape_of(encoder)


EncoderShape = Annotated[
    EncoderConfig,
    BeforeValidator(_checked),
    PlainSerializer(lambda config: config.model_dump(mode="json")),
]
"""The setting ``encoder`` of a family: a name in `named_shapes`, or a config."""
