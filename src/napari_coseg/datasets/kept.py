"""Samples to draw crops from: in memory as far as they fit, read again when asked for beyond.

Which ones are kept does not change: the processes that draw crops share them, and each crop comes
from any sample as likely as from any other, so that keeping the last ones read would gain nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np

from napari_coseg.datasets.base import Sample

KEEP_GIB = 4.0
"""A sample takes nine bytes a pixel: some 450 images of 1,000 x 1,000 fit."""


class KeptSamples(Sequence[Sample]):
    """The samples of some names, in their order.

    Parameters
    ----------
    read
        Gives the sample of a name, the same every time.
    names
        Of all samples. The first ones are read here, until `keep_gib` is full.
    keep_gib
        Memory for them in GiB; the arrays of one sample more are in memory while it is used.
    hint
        What to do where many must be read anew; ends the warning that tells of them.
    """

    def __init__(
        self,
        read: Callable[[str], Sample],
        names: Sequence[str],
        keep_gib: float = KEEP_GIB,
        hint: str = "",
    ) -> None:
        self._read, self.names = read, tuple(names)
        self._kept: list[Sample] = []
        left = keep_gib * 2**30
        for name in self.names:
            sample = read(name)
            left -= memory_of(sample)
            if left < 0:
                break
            self._kept.append(sample)
        beyond = len(self.names) - len(self._kept)
        if beyond:
            warnings.warn(
                f"{beyond} of {len(self.names)} images do not fit into the {keep_gib:g} GiB kept "
                f"in memory; they are read anew for each crop{hint and f'. {hint}'}",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self._kept[at] if at < len(self._kept) else self._read(self.names[at])

    def __iter__(self) -> Iterator[Sample]:
        yield from self._kept
        yield from map(self._read, self.names[len(self._kept) :])


def memory_of(sample: Sample) -> int:
    """Bytes of its arrays."""
    return sum(value.nbytes for value in vars(sample).values() if isinstance(value, np.ndarray))
