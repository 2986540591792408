"""Importance-weighted likelihoods."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from dvae_ext.models.base import Model, evaluating

if TYPE_CHECKING:
    from dvae_ext.rbm import LogZEstimate

# Latent samples decoded at once, over all examples of a batch: bounds the memory whatever the number of samples.
ROWS_AT_ONCE = 8192
# Effective samples of an example below which its bound is called loose. The expectation is below log p(x) by about half
# the variance of the mean weight, 1 / (2 · effective samples): 0.05 nats at this number, and more the fewer there are.
FEW_SAMPLES = 10
# Share of loose examples that a likelihood may have without a warning.
LOOSE_SHARE = 0.1


@dataclass(frozen=True)
class LikelihoodEstimate:
    """A lower bound on the mean log-likelihood of a data set, in nats per example.

    Args:
        value: mean over the examples of log 1/K Σ_k p(x, z_k)/q(z_k|x). Its expectation is at most the mean log p(x)
            and rises to it with K.
        std_error: standard error of ``value``: the spread over the examples and the error of log Z, in quadrature.
        per_example: the estimate of each example, float64 ``[N]``.
        num_samples: K.
        effective_samples: (Σ w)² / Σ w² of each example, float64 ``[N]``. Near 1 one weight decides: a loose bound.
        log_z: the partition function used; None for a normalised prior.
        warnings: those of log Z, values that are not finite, and a bound that is loose for more than 10 % of examples.
    """

    value: float
    std_error: float
    per_example: Tensor
    num_samples: int
    effective_samples: Tensor
    log_z: LogZEstimate | None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"log-likelihood {self.value:.3f} ± {self.std_error:.3f} nats ({len(self.per_example)} examples, "
            f"{self.num_samples} importance samples, {float(self.effective_samples.mean()):.1f} effective)"
        )
        if self.log_z is not None:
            text += f"; log Z {self.log_z.value:.3f} ± {self.log_z.std_error:.3f} ({self.log_z.method})"
        return text + "".join(f"; warning: {warning}" for warning in self.warnings)


def loose_share(effective_samples: Tensor) -> float:
    """The share of examples with fewer than 10 effective samples, in [0, 1], of ``effective_samples [N]``."""
    return float((effective_samples < FEW_SAMPLES).double().mean())


def warnings_of_values(per_example: Tensor) -> tuple[str, ...]:
    """Says how many of the log-likelihoods ``[N]`` are not finite, if any.

    Example:
        >>> warnings_of_values(torch.tensor([-90.0, torch.nan]))
        ('1 of 2 examples have a log-likelihood that is not finite',)
    """
    broken = int((~per_example.isfinite()).sum())
    found = f"{broken:,} of {len(per_example):,} examples have a log-likelihood that is not finite"
    return (found,) if broken else ()


def warnings_of_samples(effective_samples: Tensor) -> tuple[str, ...]:
    """Says which share of examples has fewer than 10 of the effective samples ``[N]``, if it is above 10 %.

    The mean would hide them behind a few large values.

    Example:
        >>> warnings_of_samples(torch.tensor([50.0, 50.0, 1.0, 50.0]))[0].partition(":")[0]
        '25 % of the examples have fewer than 10 effective importance samples'
    """
    share = loose_share(effective_samples)
    found = (
        f"{100 * share:.0f} % of the examples have fewer than {FEW_SAMPLES} effective importance samples: the "
        "likelihood is a lower bound that more samples would raise, which its error bar does not show"
    )
    return (found,) if share > LOOSE_SHARE else ()


def log_likelihood(
    model: Model,
    batches: Iterable[Tensor],
    num_samples: int = 1000,
    chunk: int | None = None,
    log_z: LogZEstimate | None = None,
    generator: Generator | None = None,
) -> LikelihoodEstimate:
    r"""Importance-weighted log-likelihood (Burda et al. 2016) in the binary limit (DVAE++ section 7).

    The weights are summed as they are drawn, ``chunk`` samples of a batch at a time, so memory does not grow with
    ``num_samples``. Every example counts the same. The model is evaluated in evaluation mode.

    Args:
        model: gives ``log_weights`` and ``log_partition``.
        batches: images ``[B, D]``; batches may differ in size.
        num_samples: K, at least 1.
        chunk: samples at once; by default as many as keep chunk · B at 8192.
        log_z: the prior's partition function; by default ``model.log_partition()``.
        generator: source of the latent draws; by default torch's.

    Raises:
        ValueError: ``num_samples`` or ``chunk`` below 1, or no batch.

    Example:
        >>> from dvae_ext.data import DataInfo
        >>> from dvae_ext.models.dvae import DVAE, DVAEConfig
        >>> config = DVAEConfig(latent_groups=(8,), hidden=(), num_chains=1)
        >>> model = DVAE(config, DataInfo("example", (2, 2), torch.full((4,), 0.5)))
        >>> estimate = log_likelihood(model, [torch.ones(3, 4), torch.zeros(2, 4)], num_samples=10)
        >>> estimate.per_example.shape
        torch.Size([5])
    """
    for name, value in (("num_samples", num_samples), ("chunk", chunk)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if log_z is None:
        log_z = model.log_partition()
    estimates: list[Tensor] = []
    effective: list[Tensor] = []
    with evaluating(model):
        for x in batches:
            size = chunk or max(1, ROWS_AT_ONCE // max(1, x.shape[0]))
            total = torch.full((x.shape[0],), -math.inf, dtype=torch.float64, device=x.device)
            squares = total.clone()
            for begin in range(0, num_samples, size):
                weights = model.log_weights(x, min(size, num_samples - begin), generator).double()
                total = torch.logaddexp(total, weights.logsumexp(0))
                squares = torch.logaddexp(squares, (2 * weights).logsumexp(0))
            estimates.append(total.cpu() - math.log(num_samples))
            effective.append((2 * total - squares).exp().cpu())
    if not estimates:
        raise ValueError("batches: expected at least one, got none")
    per_example = torch.cat(estimates) - (0.0 if log_z is None else log_z.value)
    effective_samples = torch.cat(effective)
    count = len(per_example)
    warnings = warnings_of_values(per_example) + warnings_of_samples(effective_samples)
    variance = float(per_example.var()) / count if count > 1 else math.nan
    if log_z is not None:
        variance += log_z.std_error**2
    return LikelihoodEstimate(
        value=float(per_example.mean()),
        std_error=math.sqrt(variance),
        per_example=per_example,
        num_samples=num_samples,
        effective_samples=effective_samples,
        log_z=log_z,
        warnings=warnings if log_z is None else log_z.warnings + warnings,
    )
