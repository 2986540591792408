"""The regulariser of MAE for any model with a Gaussian posterior."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from dvae_ext import ops


def mutual_divergence_penalty(
    mean: Tensor, logvar: Tensor, eta: float, gamma: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """η L_diverse + γ L_smooth of a batch of posteriors (MAE eq. 7), and what to report beside the bound.

    Under torch.distributed the posteriors of all ranks form one batch.

    Args:
        mean: ``[B, K]``, B ≥ 2 over all ranks, of the base Gaussian: a flow after it does not change KL divergences.
        logvar: ``[B, K]``, logarithms of its variances.
        eta: weight η ≥ 0 of the diversity.
        gamma: weight γ ≥ 0 of the smoothness.

    Returns:
        The penalty to add to the loss, and detached scalars: "mpd" (eq. 4), "mpd_std" (eq. 6) and "diverse" (eq. 5).

    Raises:
        ValueError: a negative weight, or a batch without pairs.

    Example:
        >>> import torch
        >>> penalty, metrics = mutual_divergence_penalty(torch.zeros(4, 2), torch.zeros(4, 2), eta=1.0, gamma=0.5)
        >>> sorted(metrics), bool(penalty > 0)
        (['diverse', 'mpd', 'mpd_std'], True)
    """
    for name, weight in (("eta", eta), ("gamma", gamma)):
        if not weight >= 0:
            raise ValueError(f"{name}: expected a number ≥ 0, got {weight}")
    group = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
    diverse, smooth, mpd = ops.mutual_posterior_divergence(mean, logvar, group)
    metrics = {"mpd": mpd.detach(), "mpd_std": smooth.detach(), "diverse": diverse.detach()}
    # Where divergences overflow, a smoothness that is not asked for is infinite.
    return eta * diverse + (gamma * smooth if gamma > 0 else 0.0), metrics
