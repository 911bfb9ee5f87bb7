"""Finds changes of a layer's array that did not go through the editor, by a digest of each chunk.

Napari's brush, other plugins and scripts change the array without notice. A digest takes 16 bytes
per chunk, and comparing takes a second per gigabyte; a copy of the image would double its memory.
"""

from __future__ import annotations

import hashlib

import numpy as np

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.labels.editing.edit import Box
from napari_coseg.workspace.arrays import boxes


class Watch:
    """Digests of the chunks of an image as the writer knows it.

    Parameters
    ----------
    image
        As it is saved. Looked at once, and not kept.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.shape, self.dtype = image.shape, image.dtype
        self._digests = {_key(box): _digest(image[box]) for box in boxes(image.shape)}

    def differing(self, image: np.ndarray) -> list[Box]:
        """Chunks that are other than the writer knows. Only looks: fit for a thread.

        Raises
        ------
        WorkspaceError
            For an image of another shape or type, which is another image.
        """
        self.check(image)
        return [box for box in boxes(self.shape) if _digest(image[box]) != self._digests[_key(box)]]

    def record(self, box: Box, values: np.ndarray) -> None:
        """The writer has received this content of a chunk."""
        self._digests[_key(box)] = _digest(values)

    def check(self, image: np.ndarray) -> None:
        """See that an image is of this shape and type; raises `WorkspaceError`."""
        if image.shape != self.shape or image.dtype != self.dtype:
            raise WorkspaceError(
                f"the layer holds {image.dtype} of shape {image.shape} now, the workspace "
                f"{self.dtype} of {self.shape}; add the layer to the workspace again"
            )


def _key(box: Box) -> tuple[int, ...]:
    return tuple(part.start for part in box)


def _digest(values: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()
