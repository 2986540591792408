"""Likelihood of a set of images, shared between the processes, with the two parts of its error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from dvae_ext.data import derive_seed, evaluation_batches
from dvae_ext.evaluation import log_likelihood
from dvae_ext.models import Model
from dvae_ext.models.base import evaluating

from .distributed import Ranks
from .sheets import isolated_rng

EVALUATION_BATCH = 100
# Effective importance samples of an image below which the bound is called loose.
FEW_SAMPLES = 10


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
        warnings: What the estimate of log Z warns of, and a bound that is loose.
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
    warnings: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, float]:
        """The numbers, for a line of metrics."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int | float)}


def with_progress(batches: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The same batches, with a bar on a terminal if they take longer than two seconds."""
    from tqdm import tqdm

    yield from tqdm(batches, "likelihood", count, leave=False, unit="batch", delay=2, disable=None, dynamic_ncols=True)


def estimate_likelihood(
    model: Model, images: Tensor, num_samples: int, seed: int, device: torch.device, ranks: Ranks, quick: bool = False
) -> Likelihood:
    """Importance-weighted log-likelihood in the binary limit; each process takes a part of the images.

    Args:
        model: Its parameters and torch's generators are left as they were; a running value of log Z that it keeps for
            display is corrected.
        images: ``[n, num_pixels]``.
        num_samples: Importance samples for each image.
        seed: Seed of the samples.
        device: Where the model is.
        ranks: The processes that call this together.
        quick: Estimate log Z at a small part of the cost, for decisions during training.
    """
    with evaluating(model):
        with isolated_rng(derive_seed(seed, "log_z"), device):
            # Every process estimates it, as a model may keep the value; all go on with that of the first.
            log_z = ranks.broadcast(model.log_partition(quick=quick))
        with isolated_rng(derive_seed(seed, "samples", ranks.rank), device):
            share = ranks.share(images)
            batches = evaluation_batches(share, EVALUATION_BATCH, device)
            if not quick and ranks.first:
                batches = with_progress(batches, -(-len(share) // EVALUATION_BATCH))
            result = log_likelihood(model, batches, num_samples=num_samples, log_z=log_z)
    shares = ranks.gather((result.per_example.double().cpu(), result.effective_samples))
    values = torch.cat([share for share, _ in shares])
    effective = sum(len(share) * samples for share, samples in shares) / len(values)
    data_std_error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    log_z_std_error = 0.0 if log_z is None else float(log_z.std_error)
    warnings = () if log_z is None else tuple(log_z.warnings)
    if effective < FEW_SAMPLES:
        warnings += (
            f"only {effective:.1f} of the importance samples are effective: the likelihood is a lower bound, and more "
            "samples would raise it by more than its error bar says",
        )
    return Likelihood(
        log_likelihood=values.mean().item(),
        std_error=math.hypot(data_std_error, log_z_std_error),
        data_std_error=data_std_error,
        log_z=None if log_z is None else float(log_z.value),
        log_z_std_error=log_z_std_error,
        log_z_method=None if log_z is None else log_z.method,
        num_examples=len(values),
        num_samples=num_samples,
        effective_samples=effective,
        warnings=warnings,
    )
