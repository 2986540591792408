"""Likelihood of a set of images, shared between the processes, with the two parts of its error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from dvae_ext.data import derive_seed, evaluation_batches
from dvae_ext.evaluation import log_likelihood, loose_share, warnings_of_samples, warnings_of_values
from dvae_ext.models import Model
from dvae_ext.models.base import evaluating

from .config import RunError
from .distributed import Ranks
from .sheets import isolated_rng

EVALUATION_BATCH = 100


@dataclass(frozen=True)
class Likelihood:
    """Mean importance-weighted log-likelihood of ``num_examples`` images, in nats.

    Args:
        log_likelihood: The mean.
        std_error: Both standard errors below, added in quadrature.
        data_std_error: Standard error of the mean over the images.
        log_z: Estimate of the prior's log partition function; None for a normalised prior.
        log_z_std_error: Its standard error; 0 where it is exact.
        log_z_method: How it was computed.
        num_examples: Images.
        num_samples: Importance samples for each image.
        effective_samples: Mean effective number of them; near 1 a single sample decides and the bound is loose.
        loose_share: Share of the images with fewer than 10 effective samples, in [0, 1].
        warnings: What the estimate of log Z warns of, values that are not finite, and a bound that is loose.
    """

    log_likelihood: float
    std_error: float
    data_std_error: float
    log_z: float | None
    log_z_std_error: float
    log_z_method: str | None
    num_examples: int
    num_samples: int
    effective_samples: float
    loose_share: float
    warnings: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, float]:
        """The numbers, for a line of metrics; none about a log Z that there is not."""
        numbers = {name: value for name, value in asdict(self).items() if isinstance(value, int | float)}
        if self.log_z is None:
            del numbers["log_z_std_error"]
        return numbers


def with_progress(batches: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The same batches, with a bar on a terminal if they take longer than two seconds."""
    from tqdm import tqdm

    yield from tqdm(batches, "likelihood", count, leave=False, unit="batch", delay=2, disable=None, dynamic_ncols=True)


def estimate_likelihood(
    model: Model, images: Tensor, num_samples: int, seed: int, device: torch.device, ranks: Ranks, quick: bool = False
) -> Likelihood:
    """Importance-weighted log-likelihood in the binary limit; each process takes a part of the images.

    Args:
        model: It and torch's generators are left as they were.
        images: ``[n, num_pixels]``.
        num_samples: Importance samples for each image.
        seed: Seed of the samples.
        device: Where the model is.
        ranks: The processes that call this together.
        quick: Estimate log Z at a small part of the cost, for decisions during training, and do not warn of a loose
            bound.

    Raises:
        RunError: for an RBM whose parameters are not finite.
    """
    with evaluating(model):
        with isolated_rng(derive_seed(seed, "log_z"), device):
            try:
                # In company, tempering is work for all: every process has its part of the ladders.
                log_z = ranks.broadcast(model.log_partition(quick=quick))
            except ValueError as error:
                raise RunError(f"there is no likelihood without log Z: {error}") from None
        with isolated_rng(derive_seed(seed, "samples", ranks.rank), device):
            share = ranks.share(images)
            batches = evaluation_batches(share, EVALUATION_BATCH, device)
            if not quick and ranks.first:
                batches = with_progress(batches, -(-len(share) // EVALUATION_BATCH))
            result = log_likelihood(model, batches, num_samples=num_samples, log_z=log_z)
    values, effective = map(torch.cat, zip(*ranks.gather((result.per_example, result.effective_samples)), strict=True))
    data_std_error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    log_z_std_error = 0.0 if log_z is None else float(log_z.std_error)
    warnings = (() if log_z is None else tuple(log_z.warnings)) + warnings_of_values(values)
    if not quick:  # for decisions few samples do
        warnings += warnings_of_samples(effective)
    return Likelihood(
        log_likelihood=values.mean().item(),
        std_error=math.hypot(data_std_error, log_z_std_error),
        data_std_error=data_std_error,
        log_z=None if log_z is None else float(log_z.value),
        log_z_std_error=log_z_std_error,
        log_z_method=None if log_z is None else log_z.method,
        num_examples=len(values),
        num_samples=num_samples,
        effective_samples=effective.mean().item(),
        loose_share=loose_share(effective),
        warnings=warnings,
    )
