"""Where the temperatures of a ladder lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TARGET_REJECTION = 0.3
MIN_LEVELS = 4
MAX_LEVELS = 512


def first_ladder(levels: int) -> Tensor:
    """Equal steps from 0 to 1, before anything is known."""
    return torch.linspace(0, 1, levels, dtype=torch.float64, device="cpu")


def levels_for(rejection: Tensor) -> int:
    """How many levels bring the rejections of neighbours to about 0.3.

    The barrier Λ is the sum of the rejections, whatever the number of levels is, as long as none comes near one (Syed,
    Bouchard-Côté, Deligiannidis and Doucet, Non-reversible parallel tempering, 2022). Where one does, the sum is too
    small, and the ladder grows by half before the next look.
    """
    wanted = math.ceil(rejection.sum().item() / TARGET_REJECTION) + 1
    if rejection.max().item() > 0.9:
        wanted = max(wanted, math.ceil(1.5 * (len(rejection) + 1)))
    return min(max(wanted, MIN_LEVELS), MAX_LEVELS)


def equalise(betas: Tensor, rejection: Tensor, levels: int) -> Tensor:
    """The ladder of ``levels`` levels on which each pair would meet the same share of the barrier.

    The barrier from 0 to each of ``betas`` is the cumulative rejection; it is interpolated and cut into equal parts.
    """
    barrier = torch.cat([rejection.new_zeros(1), (rejection.clamp(min=0) + 1e-4).cumsum(0)])
    return interpolate(first_ladder(levels) * barrier[-1], barrier, betas)


def interpolate(x: Tensor, known_x: Tensor, known_y: Tensor) -> Tensor:
    """Piecewise linear; the ends are exact."""
    right = torch.searchsorted(known_x.contiguous(), x.contiguous()).clamp(1, len(known_x) - 1)
    left = right - 1
    share = ((x - known_x[left]) / (known_x[right] - known_x[left]).clamp(min=1e-300)).clamp(0, 1)
    result = known_y[left] + share * (known_y[right] - known_y[left])
    result[0], result[-1] = known_y[0], known_y[-1]
    return result
