"""Schedules as functions of the step and the number of steps."""

from __future__ import annotations

from collections.abc import Sequence


def linear_warmup(step: int, total_steps: int, fraction: float) -> float:
    """0 at step 0, rising linearly to 1 at ``fraction`` of ``total_steps`` and staying there.

    Example:
        >>> [linear_warmup(step, 100, 0.4) for step in (0, 20, 40, 100)]
        [0.0, 0.5, 1.0, 1.0]
    """
    length = fraction * total_steps
    # A minimum, and no branch on the step, so that one graph of torch.compile serves all steps.
    return min(1.0, step / length) if length > 0 else 1.0


def piecewise_constant(step: int, total_steps: int, breaks: Sequence[float], values: Sequence[float]) -> float:
    """``values[k]`` between the k-th and the next of ``breaks``, given as fractions of ``total_steps``.

    Raises:
        ValueError: not exactly one value more than breaks.

    Example:
        >>> [piecewise_constant(step, 100, [0.5], [1.0, 0.1]) for step in (0, 49, 50)]
        [1.0, 1.0, 0.1]
    """
    if len(values) != len(breaks) + 1:
        raise ValueError(f"values: expected {len(breaks) + 1} for {len(breaks)} breaks, got {len(values)}")
    return values[sum(step >= limit * total_steps for limit in breaks)]


def exponential_annealing(step: int, total_steps: int, start: float, end: float, fraction: float) -> float:
    """Falls (or rises) exponentially from ``start`` to ``end`` over ``fraction`` of ``total_steps`` and stays there.

    Example:
        >>> [round(exponential_annealing(step, 100, 1.0, 0.25, 0.5), 6) for step in (0, 25, 50, 100)]
        [1.0, 0.5, 0.25, 0.25]
    """
    return start * (end / start) ** linear_warmup(step, total_steps, fraction)
