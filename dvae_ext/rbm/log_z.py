"""The partition function of a restricted Boltzmann machine: exact, or estimated with an error bar."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dvae_ext.rbm import ais

MAX_EXACT_UNITS = 30


class HasRBMParameters(Protocol):
    """What :func:`log_z` reads of an RBM."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def visible_bias(self) -> Tensor: ...
    @property
    def hidden_bias(self) -> Tensor: ...


@dataclass(frozen=True)
class LogZEstimate:
    """log Z with what is needed to judge it.

    ``warnings`` says in words why ``std_error`` may be too small; it is empty when nothing speaks against it.
    """

    value: float
    std_error: float
    method: str
    seconds: float
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers, strings and lists, for JSON."""
        return {
            "value": self.value,
            "std_error": self.std_error,
            "method": self.method,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
        }


def log_z(
    rbm: HasRBMParameters,
    method: str = "exact",
    *,
    seed: int | None = None,
    chains: int = 1024,
    num_betas: int = 1000,
) -> LogZEstimate:
    """log Z of ``rbm``, any object with ``weight [n_visible, n_hidden]``, ``visible_bias`` and ``hidden_bias``.

    - ``method="exact"`` enumerates the smaller side, which may have at most 30 units.
    - ``method="ais"`` anneals ``chains`` chains over ``num_betas`` equal steps; the standard error is that of the
      spread between chains, which says nothing of regions that no chain visited.
    """
    started = time.perf_counter()
    parameters = _check(rbm)
    if method == "exact":
        from dvae_ext import ops

        value = ops.rbm_log_z_exact(*parameters).item()
        return LogZEstimate(value, 0.0, method, time.perf_counter() - started)
    if method == "ais":
        generator = None
        if seed is not None:
            generator = torch.Generator(device=parameters[0].device).manual_seed(seed)
        log_weights = ais.annealed_log_weights(*parameters, num_betas, chains, generator)
        value, std_error = ais.combine(log_weights)
        return LogZEstimate(value, std_error, method, time.perf_counter() - started)
    raise ValueError(f"log_z: method must be 'exact' or 'ais', got {method!r}")


def _check(rbm: HasRBMParameters) -> tuple[Tensor, Tensor, Tensor]:
    weight, visible_bias, hidden_bias = (x.detach() for x in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    for name, x in (("weight", weight), ("visible_bias", visible_bias), ("hidden_bias", hidden_bias)):
        if not torch.isfinite(x).all():
            raise ValueError(f"log_z: {name} must be finite, it holds NaN or infinity")
    if weight.dim() != 2 or visible_bias.shape != weight.shape[:1] or hidden_bias.shape != weight.shape[1:]:
        raise ValueError(
            "log_z: expected weight [n_visible, n_hidden], visible_bias [n_visible] and hidden_bias [n_hidden], got "
            f"{list(weight.shape)}, {list(visible_bias.shape)} and {list(hidden_bias.shape)}"
        )
    return weight, visible_bias, hidden_bias
