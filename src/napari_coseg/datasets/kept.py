"""Keep samples in memory up to a limit and read the others on demand.

The set of samples in memory is fixed: processes share it, and since crops are drawn uniformly, a
cache of recent samples would gain nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np

from napari_coseg.datasets.base import Sample

KEEP_GIB = 4.0
"""At nine bytes per pixel about 450 images of 1,000 x 1,000 fit."""


class KeptSamples(Sequence[Sample]):
    """The samples of the given names, in their order.

    Parameters
    ----------
    read
        Returns the sample of a name; deterministic.
    names
        Of all samples. The first ones are read at construction, up to `keep_gib`.
    keep_gib
        Memory limit in GiB; one further sample is in memory while it is used.
    hint
        Advice that ends the warning about samples beyond the limit.
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
                f"in memory; they are read again for each crop{hint and f'. {hint}'}",
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
    """Bytes of the arrays of a sample."""
    return sum(value.nbytes for value in vars(sample).values() if isinstance(value, np.ndarray))
