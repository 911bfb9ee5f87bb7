"""What each step learns from: crops drawn anew, or features kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from napari_coseg.core.errors import SettingsError
from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning.crops import ReviewedCrops
from napari_coseg.finetuning.features import FeatureCache, encode
from napari_coseg.finetuning.stepping import StepCrops
from napari_coseg.models.base import CosegModel

Take = Callable[[int], StepCrops]


@dataclass(frozen=True, eq=False)
class Drawing:
    """The user's crops and, among them, some of the replayed images'.

    Parameters
    ----------
    own, replayed
        None where nothing is replayed.
    replay_fraction
        Of the crops.
    """

    own: ReviewedCrops
    replayed: ReviewedCrops | None
    replay_fraction: float

    def draw(self, step: int, crops: int) -> Batch:
        """The crops of a step."""
        if self.replayed is None:
            return self.own.draw(step, crops)
        again = min(crops - 1, round(self.replay_fraction * crops)) if crops > 1 else 0
        if not again:
            replays = np.random.default_rng([self.own.seed, step]).random() < self.replay_fraction
            return (self.replayed if replays else self.own).draw(step, crops)
        return _joined(self.own.draw(step, crops - again), self.replayed.draw(step, again))


@contextmanager
def drawn_ahead(drawing: Drawing, crops: int, first: int, last: int) -> Iterator[Take]:
    """Within, crops of the next step are drawn while this one is learnt."""
    with ThreadPoolExecutor(1, thread_name_prefix="crops") as pool:
        coming = {step: pool.submit(drawing.draw, step, crops) for step in range(first, last)[:1]}

        def take(step: int) -> StepCrops:
            now = coming.pop(step, None) or pool.submit(drawing.draw, step, crops)
            if step + 1 < last:
                coming[step + 1] = pool.submit(drawing.draw, step + 1, crops)
            return StepCrops(now.result())

        yield take


def fill(
    cache: FeatureCache,
    network: CosegModel,
    drawing: Drawing,
    count: int,
    dtype: torch.dtype | None,
    told: Callable[[int], None],
) -> None:
    """Encode what is missing of `count` crops.

    Parameters
    ----------
    told
        Called with the number of crops that are there, before each; may raise to stop.

    Raises
    ------
    OutOfMemory
        Where one crop does not fit.
    """
    device = next(network.buffers()).device
    network.eval()
    for number in range(count):
        told(number)
        if cache.has(number):
            continue
        batch = drawing.draw(number, 1)
        features = encode(network, batch, device, dtype)
        cache.add(number, features, batch)


def from_cache(
    cache: FeatureCache, count: int, crops: int, seed: int, device: torch.device
) -> Take:
    """Crops of a step, drawn among those kept; a pure function of the step."""
    if count < crops:
        raise SettingsError(f"{count} crops are kept, but a step takes {crops}; take fewer a step")

    def take(step: int) -> StepCrops:
        chosen = np.random.default_rng([seed, step]).choice(count, crops, replace=False)
        features, batch = cache.read(chosen.tolist(), device)
        return StepCrops(batch, features)

    return take


def _joined(one: Batch, other: Batch) -> Batch:
    pairs = {name: (array, getattr(other, name)) for name, array in vars(one).items()}
    return Batch(**{n: np.concatenate(pair) for n, pair in pairs.items() if pair[0] is not None})
