"""Weight interpolation: all of the way from the base to what was learnt, or a part of it.

Weights between the base's and the fine-tuned ones often serve better than either, and forget less
of what the base knew (WiSE-FT, Wortsman et al. 2022): a few images pull a model that knows their
kind already too far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

FRACTIONS = (0.75, 0.5, 0.25)
"""Parts of the way that are tried, beside the whole."""
CLEARLY = 0.005
"""How much more than the whole change a part must be worth: what is held back is small."""


@torch.no_grad()
def take_fraction(
    trained: Mapping[str, nn.Parameter],
    origin: Mapping[str, Tensor],
    worth_of_whole: float,
    worth: Callable[[float], float],
) -> float:
    """Move weights to the part of their way that is worth most, where it clearly is.

    Parameters
    ----------
    trained
        Fine-tuned, by name; changed in place.
    origin
        Where they began, by the same names.
    worth_of_whole
        Of the weights as they are.
    worth
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

    best, taken = worth_of_whole + CLEARLY, 1.0
    try:
        for fraction in FRACTIONS:
            move(fraction)
            found = worth(fraction)
            if found >= best:
                best, taken = found, fraction
    finally:
        move(taken)
    return taken
