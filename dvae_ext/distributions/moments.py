"""Moments of the exponential truncated to [0, 1], density β exp(−βζ) / (1 − exp(−β))."""

from __future__ import annotations

import torch
from torch import Tensor

# Below this β the closed forms subtract nearly equal numbers; the Taylor series are exact to float64's last digits.
_SERIES_BELOW = 0.2


def exponential_mean(beta: Tensor) -> Tensor:
    """Mean 1/β − 1/(exp(β) − 1), elementwise for β > 0; the mirrored exponential has one minus it.

    Example:
        >>> exponential_mean(torch.tensor(1e-9)).item()
        0.5
    """
    small, large = _arms(beta)
    square = small * small
    series = 0.5 - small / 12 * (1 - square / 60 * (1 - square / 42 * (1 - square / 40)))
    closed = 1 / large + torch.exp(-large) / torch.expm1(-large)
    return torch.where(beta < _SERIES_BELOW, series, closed)


def exponential_variance(beta: Tensor) -> Tensor:
    """Variance 1/β² − 1/(4 sinh²(β/2)), elementwise for β > 0.

    Example:
        >>> round(1 / exponential_variance(torch.tensor(1e-9, dtype=torch.float64)).item(), 9)
        12.0
    """
    small, large = _arms(beta)
    square = small * small
    series = (1 - square / 20 * (1 - 5 * square / 126 * (1 - 7 * square / 200))) / 12
    # exp(−β) where the textbook has exp(β), which overflows. The division comes before the square, which would.
    closed = (1 / large) ** 2 - torch.exp(-large) / torch.expm1(-large) ** 2
    return torch.where(beta < _SERIES_BELOW, series, closed)


def _arms(beta: Tensor) -> tuple[Tensor, Tensor]:
    """β for the series and for the closed form, each held where the other is taken: no NaN enters the gradient."""
    series = beta < _SERIES_BELOW
    held = torch.full_like(beta, _SERIES_BELOW)
    return torch.where(series, beta, held), torch.where(series, held, beta)
