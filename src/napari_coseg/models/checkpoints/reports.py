"""What is said of a network's start."""

from __future__ import annotations

from typing import NamedTuple


class StartReport(NamedTuple):
    """Where each part of a network started from.

    source
        The file.
    origin
        Whose weights it holds, as "SAM2".
    size
        Name of the encoder's shape, or its sizes in words.
    filled
        Our parts that the file's weights fill, as ``semantic_decoder.transformer``.
    random
        Our parts that keep their own start.
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
