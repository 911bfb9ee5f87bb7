"""Report on the starting weights of a network."""

from __future__ import annotations

from typing import NamedTuple


class StartReport(NamedTuple):
    """Source of the starting weights of each part of a network.

    source
        The file.
    origin
        Origin of its weights, such as "SAM2".
    size
        Name of the encoder, or its sizes.
    filled
        Parts filled from the file, such as ``semantic_decoder.transformer``.
    random
        Parts with their own random start.
    """

    source: str
    origin: str
    size: str
    filled: tuple[str, ...]
    random: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.source} ({self.origin}, {self.size}) starts {', '.join(self.filled)}; "
            f"not from {self.origin}: {', '.join(self.random)}"
        )
