"""Estimates of free-energy differences from streamed sums, and their error bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of the statistics that rbm_temper_ streams.
LOG_FORWARD, LOG_REVERSE, BRIDGE_FORWARD, BRIDGE_REVERSE, ACCEPTANCE = range(5)
INCREMENT, INCREMENT_SQUARE, BATCH_SQUARE, ROUND_TRIPS = range(5, 9)
ROWS = 9


def empty_statistics(ladders: int, levels: int, device: torch.device | str = "cpu") -> Tensor:
    """``[ladders, 9, levels]`` as :func:`dvae_ext.ops.rbm_temper_` expects it before the first sweep."""
    statistics = torch.zeros(ladders, ROWS, levels, dtype=torch.float64, device=device)
    statistics[:, : LOG_REVERSE + 1] = -torch.inf
    return statistics


def delete_group_jackknife(estimate: Callable[[Tensor], Tensor], groups: int) -> tuple[Tensor, Tensor]:
    """Bias-corrected value and standard error of ``estimate``, leaving out one independent group at a time.

    ``estimate`` maps rows of weights ``[n, groups]`` of the groups (1 or 0) to the ``[n, ...]`` estimates made from
    them. Returns ``(value, std_error)`` of the shape of one estimate. See Efron and Stein, The jackknife estimate of
    variance (1981). The standard error is widened by Student's factor, so that two of them hold 95.4 % in spite of few
    groups; it is NaN for a single group.
    """
    everything = torch.ones(1, groups, dtype=torch.float64, device="cpu")
    estimates = estimate(torch.cat([everything, everything.T - torch.eye(groups, dtype=torch.float64, device="cpu")]))
    full, without = estimates[0], estimates[1:]
    if groups < 2:
        return full, torch.full_like(full, torch.nan)
    mean = without.mean(0)
    variance = (groups - 1) / groups * ((without - mean) ** 2).sum(0)
    return groups * full - (groups - 1) * mean, student_factor(groups - 1) * variance.sqrt()


def student_factor(degrees: int) -> float:
    """Student's two-sided 95.4 % quantile over the normal's, which is 2 (expansion of Cornish and Fisher)."""
    return 1 + 1.25 / degrees + 1.53125 / degrees**2


@dataclass(frozen=True)
class PathEstimate:
    """log Z of the model over log Z of the reference, and what the statistics say beside it."""

    value: float
    std_error: float
    forward: float  # stepping stones up the path; on average at most the truth
    reverse: float  # stepping stones down the path; on average at least the truth
    width_std_error: float  # of reverse - forward
    increments: Tensor  # log Z_{l+1} - log Z_l of each pair
    rejection: Tensor  # of each pair
    barrier: float
    barrier_std_error: float
    round_trips: float  # per ladder
    effective_sample_size: Tensor  # of each level, all ladders together


def estimate_path(statistics: Tensor, shifts: Tensor, sweeps: int, batch: int) -> PathEstimate:
    """What statistics ``[ladders, 9, levels]`` of ``sweeps`` sweeps say.

    The value is the bridge sampling of Bennett (1976), between neighbours and with the constant fixed beforehand at
    ``shifts``: log Z_{l+1} - log Z_l = shift + log of the mean of sigmoid(forward - shift) over that of
    sigmoid(reverse + shift).
    """
    ladders, _, levels = statistics.shape
    pairs = levels - 1
    log_forward, log_reverse = statistics[:, LOG_FORWARD, :pairs], statistics[:, LOG_REVERSE, :pairs]
    sums = statistics[:, BRIDGE_FORWARD : ACCEPTANCE + 1, :pairs].flatten(1)

    def quantities(kept: Tensor) -> Tensor:
        samples = kept.sum(1) * sweeps

        def log_mean(rows: Tensor) -> Tensor:
            return torch.logsumexp(rows + kept.log()[..., None], 1) - samples.log()[:, None]

        bridge_forward, bridge_reverse, accepted = (kept @ sums).unflatten(1, (3, pairs)).unbind(1)
        value = (shifts + torch.log(bridge_forward / bridge_reverse)).sum(1)
        up, down = log_mean(log_forward).sum(1), -log_mean(log_reverse).sum(1)
        return torch.stack([value, up, down, down - up, pairs - accepted.sum(1) / samples], 1)

    values, errors = delete_group_jackknife(quantities, ladders)
    plain = quantities(shifts.new_ones(1, ladders))[0]  # no bias correction of the bounds
    return PathEstimate(
        value=values[0].item(),
        std_error=errors[0].item(),
        forward=plain[1].item(),
        reverse=plain[2].item(),
        width_std_error=errors[3].item(),
        increments=increments(statistics, shifts),
        rejection=rejection(statistics, sweeps),
        barrier=plain[4].item(),
        barrier_std_error=errors[4].item(),
        round_trips=statistics[:, ROUND_TRIPS].sum().item() / ladders,
        effective_sample_size=_effective_sample_size(statistics, sweeps, batch),
    )


def increments(statistics: Tensor, shifts: Tensor) -> Tensor:
    """log Z_{l+1} - log Z_l of each pair, from all ladders.

    Bridge sampling centred thousands of nats away sums to zero; the mean of the two stepping stones is taken there.
    """
    rows = statistics[:, : BRIDGE_REVERSE + 1, : len(shifts)]
    forward, reverse = rows[:, BRIDGE_FORWARD].sum(0), rows[:, BRIDGE_REVERSE].sum(0)
    stones = 0.5 * (rows[:, LOG_FORWARD].logsumexp(0) - rows[:, LOG_REVERSE].logsumexp(0))
    return torch.where((forward > 0) & (reverse > 0), shifts + torch.log(forward / reverse), stones)


def rejection(statistics: Tensor, sweeps: int) -> Tensor:
    """How often each pair declines to swap."""
    return 1 - statistics[:, ACCEPTANCE, :-1].mean(0) / sweeps


def _effective_sample_size(statistics: Tensor, sweeps: int, batch: int) -> Tensor:
    """Samples over the correlation time of the increments, from the variance of means over batches."""
    samples = statistics.shape[0] * sweeps
    mean = statistics[:, INCREMENT].sum(0) / samples
    variance = statistics[:, INCREMENT_SQUARE].sum(0) / samples - mean**2
    of_batches = statistics[:, BATCH_SQUARE].sum(0) / samples - batch * mean**2  # batch times the variance of a mean
    time = torch.where(variance > 1e-12, of_batches / variance.clamp(min=1e-300), torch.ones_like(mean))
    return samples / time.clamp(min=1.0)


def log_mean_exp(log_weights: Tensor, groups: int) -> tuple[float, float]:
    """log of the mean of exponentials of independent numbers, and its standard error from groups of them."""
    groups = min(groups, log_weights.numel())
    parts = log_weights.double().cpu().tensor_split(groups)
    sums = torch.stack([torch.logsumexp(part, 0) for part in parts])
    counts = torch.tensor([part.numel() for part in parts], dtype=torch.float64, device="cpu")

    def estimate(kept: Tensor) -> Tensor:
        return torch.logsumexp(sums + kept.log(), 1) - torch.log(kept @ counts)

    value, std_error = delete_group_jackknife(estimate, groups)
    return value.item(), std_error.item()
