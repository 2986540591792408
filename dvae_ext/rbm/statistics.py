"""Averages of exponentials and their error bars."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def delete_group_jackknife(estimate: Callable[[Tensor], Tensor], groups: int) -> tuple[Tensor, Tensor]:
    """Bias-corrected value and standard error of ``estimate``, leaving out one independent group at a time.

    ``estimate`` maps weights ``[groups]`` of the groups (1 or 0) to the estimate made from them; the result may have
    any shape. Returns ``(value, std_error)`` of that shape. See Efron and Stein,
    The jackknife estimate of variance (1981).
    """
    full = estimate(torch.ones(groups, dtype=torch.float64))
    kept = torch.ones(groups, groups, dtype=torch.float64) - torch.eye(groups, dtype=torch.float64)
    without = torch.stack([estimate(row) for row in kept])
    mean = without.mean(0)
    variance = (groups - 1) / groups * ((without - mean) ** 2).sum(0)
    return groups * full - (groups - 1) * mean, variance.sqrt()
