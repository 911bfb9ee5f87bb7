"""Weight interpolation: takes all of the change from the base, or the part of it that scores best.

Weights between the base's and the fine-tuned ones often score better than either, and forget less
of what the base knew (WiSE-FT, Wortsman et al. 2022): a few images pull a model that already knows
their kind too far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

FRACTIONS = (0.75, 0.5, 0.25)
"""Parts of the change that are tried, beside the whole."""
CLEARLY = 0.005
"""How much better than the whole change a part must score: the held-out part is small."""


@torch.no_grad()
def take_fraction(
    trained: Mapping[str, nn.Parameter],
    origin: Mapping[str, Tensor],
    score_of_whole: float,
    score: Callable[[float], float],
) -> float:
    """Move weights to the part of their change that scores best, where it clearly does.

    Parameters
    ----------
    trained
        Fine-tuned, by name; changed in place.
    origin
        Their values before, by the same names.
    score_of_whole
        Of the weights as they are.
    score
        Of the network with a part of the change, which is given.

    Returns
    -------
    float
        The part that was taken, of equal ones the smallest; 1 where none is clearly better.
    """
    whole = {name: p.detach().clone() for name, p in trained.items()}

    def move(fraction: float) -> None:
        for name, parameter in trained.items():
            parameter.copy_(torch.lerp(origin[name], whole[name], fraction))

    best, taken = score_of_whole + CLEARLY, 1.0
    try:
        for fraction in FRACTIONS:
            move(fraction)
            found = score(fraction)
            if found >= best:
                best, taken = found, fraction
    finally:
        move(taken)
    return taken
