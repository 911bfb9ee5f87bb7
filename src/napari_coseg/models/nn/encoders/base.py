"""The contract of image encoders: an embedding and finer maps, shared by both tasks.

Families rely on nothing else, so that any encoder fits any family. To add one, write its file here
and add a line to `registry.ENCODERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from napari_coseg.core.settings import Settings

EMBEDDING_STRIDE = 16
"""Stride of the embedding, as in SAM."""


class EncoderConfig(Settings):
    """Config of an encoder; each kind has its own subclass."""

    @property
    def kind_name(self) -> str:
        """Key of `registry.ENCODERS`."""
        raise NotImplementedError(f"{type(self).__name__} must set its kind")


class Encoder(nn.Module, ABC):
    """Base of every encoder.

    A subclass is built with ``(config, width, high_resolution_channels, adapter_ratio,
    adapter_kernel_size)`` and sets the attributes below before its constructor ends.

    Parameters
    ----------
    config
        Shape of the trunk, of the subclass' own kind.
    width
        Channels of the embedding.
    high_resolution_channels
        Channels of the finer maps, from coarse to fine: at strides 8, 4 and, if supported, 2 and
        1.
    adapter_ratio, adapter_kernel_size
        See `napari_coseg.models.nn.adapter.Adapter`. An encoder whose trunk always trains has none.

    Attributes
    ----------
    Config
        The class of its shapes.
    sizes
        Shapes by the names that cards and recipes may use in their place.
    start
        Key of `models.checkpoints.starting.STARTS`: the reader of published weights.
    config
        The shape, in full.
    channels
        Channels of the maps that `forward` gives, by stride.
    size_multiple
        Height and width of the images must be multiples of this.
    """

    Config: ClassVar[type[EncoderConfig]]
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {}
    start: ClassVar[str | None] = None
    config: EncoderConfig
    channels: dict[int, int]
    size_multiple: int = 32

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the maps of `forward`, from fine to coarse; the last is the embedding's."""
        return tuple(sorted(self.channels))

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images (B, 3, Y, X) -> embedding and finer maps.

        Embedding (B, C, Y/16, X/16); finer maps from fine to coarse, (B, C_s, Y/s, X/s).
        """

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part: ``trunk`` (filled by starting weights), ``adapters``, ``neck``."""

    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """Blocks of the trunk in order: units of activation checkpointing and cancellation."""

    def attention_layers(self) -> Sequence[nn.Linear]:
        """``qkv`` layers of the trunk, for LoRA; empty without attention."""
        return ()


def finer_strides(levels: int) -> tuple[int, ...]:
    """Strides of the given number of finer maps, from coarse to fine.

    >>> finer_strides(3)
    (8, 4, 2)
    """
    return tuple(EMBEDDING_STRIDE >> level for level in range(1, levels + 1))
