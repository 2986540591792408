"""The partition function of a restricted Boltzmann machine: exact, or estimated with an error bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from dvae_ext import ops, rng
from dvae_ext.precision import without_autocast
from dvae_ext.rbm.ais import annealed_log_weights
from dvae_ext.rbm.ensemble import Path, World
from dvae_ext.rbm.ladder import MAX_LEVELS
from dvae_ext.rbm.quench import log_z_of_states, quenched_states, rounding
from dvae_ext.rbm.statistics import log_mean_exp
from dvae_ext.rbm.tempering import Budget, contradiction, measure

DEFAULT_SWEEPS = 8192
MAX_EXACT_UNITS = 30
MIN_LADDERS = 16
_MIN_SWEEPS = 16
_OPEN_SWEEPS = 2**24  # where a target or a time budget decides
_AIS_GROUPS = 32
_MIN_EFFECTIVE_CHAINS = 10
_METHODS = ("tempering", "exact", "ais")
_REFERENCES = ("auto", "uniform", "independent")


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

    ``warnings`` says in words why ``std_error`` may be too small; it is empty when nothing speaks against it. The
    fields from ``lower`` on belong to ``method="tempering"``.
    """

    value: float
    std_error: float
    method: str
    seconds: float
    warnings: tuple[str, ...] = ()
    lower: float = math.nan
    """Stepping stones up the path: on average at most the truth."""
    upper: float = math.nan
    """Stepping stones down the path: on average at least the truth."""
    reference: str = ""
    """The independent units at beta = 0: ``"uniform"``, or ``"independent"`` with the RBM's own marginals."""
    betas: tuple[float, ...] = ()
    rejection: tuple[float, ...] = ()
    """Of each pair of neighbouring levels."""
    barrier: float = math.nan
    """Λ, the sum of the rejections in the limit of many levels."""
    round_trips: float = math.nan
    """Journeys of replicas from the reference to the model and back, per ladder."""
    stuck: float = math.nan
    """Share of the replicas that made no such journey."""
    jump_acceptance: tuple[float, ...] = ()
    """Of each level: how often a replica took a state from the mixture of modes."""
    effective_sample_size: tuple[float, ...] = ()
    """Of each level, all ladders together."""
    sweeps: int = 0
    ladders: int = 0
    trace: tuple[tuple[int, float, float], ...] = field(default=(), repr=False)
    """Sweeps so far, log Z and standard error, in the course of the measurement."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers, strings and lists; what is not finite is None, so that it is valid JSON."""

        def plain(value: Any) -> Any:
            if isinstance(value, tuple):
                return [plain(item) for item in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {name: plain(value) for name, value in vars(self).items()}

    def __str__(self) -> str:
        error = f"{self.std_error:.4f}" if self.std_error == 0 or self.std_error >= 5e-5 else f"{self.std_error:.0e}"
        lines = [f"log Z = {self.value:.4f} ± {error} ({self.method}, {self.seconds:.1f} s)"]
        if self.betas:
            lines.append(
                f"  stepping stones: {self.lower:.4f} up the path, {self.upper:.4f} down; {self.reference} reference, "
                f"{len(self.betas)} levels, {self.ladders} ladders, {self.sweeps} sweeps"
            )
            lines.append(
                f"  barrier {self.barrier:.2f}, rejection {min(self.rejection):.2f} to {max(self.rejection):.2f}, "
                f"{self.round_trips:.0f} round trips per ladder, {100 * self.stuck:.1f} % of the replicas made none"
            )
            lines.append(
                f"  jumps between modes accepted {100 * min(self.jump_acceptance):.0f} to "
                f"{100 * max(self.jump_acceptance):.0f} %, effective sample size at least "
                f"{min(self.effective_sample_size):.0f}"
            )
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])


def log_z(
    rbm: HasRBMParameters,
    method: str = "tempering",
    *,
    sweeps: int | None = None,
    ladders: int = 32,
    levels: int | None = None,
    target_std_error: float | None = None,
    seconds: float | None = None,
    reference: str = "auto",
    seed: int | None = None,
    progress: Callable[[str], None] | None = None,
    chains: int = 1024,
    num_betas: int = 1000,
) -> LogZEstimate:
    """log Z of ``rbm``, any object with ``weight [n_visible, n_hidden]``, ``visible_bias`` and ``hidden_bias``.

    - ``"tempering"``: parallel tempering between independent units of known log Z and the RBM. The reference (uniform,
      or fitted to the RBM's marginals) is chosen by the smaller barrier unless it leaves replicas stuck, the
      temperatures adapt and are then frozen, replicas jump between modes that 4,096 short chains found (an
      independence sampler, Tierney 1994), and the estimate is bridge sampling between neighbours on marginal free
      energies (Bennett 1976; Hukushima and Nemoto 1996; appendix G of DVAE++), with the standard error of a jackknife
      over independent ladders and of the rounding of free energies. docs/log_z.md says what it rests on. Under
      ``torchrun`` with an initialised process group the ladders are split over the processes, which return the same
      estimate.
    - ``"exact"`` enumerates the smaller side, which may have at most 30 units.
    - ``"ais"`` anneals ``chains`` chains over ``num_betas`` equal steps; its standard error is that of the spread
      between chains, which says nothing of regions that no chain visited.

    Args:
        rbm: parameters may be on any device; bfloat16 and float16 are measured in float32.
        method: ``"tempering"``, ``"exact"`` or ``"ais"``.
        sweeps: of the measurement, 8192 by default; with a target or a time budget, the most that it may take.
        ladders: independent ladders, at least 16.
        levels: a fixed number of temperatures in place of an adapted one, at least 2.
        target_std_error: measure until the standard error is this small.
        seconds: measure until this much time has passed, adaptation included.
        reference: ``"uniform"`` or ``"independent"`` in place of ``"auto"``.
        seed: of all draws; by default from torch's generator.
        progress: called with one line of text after each round.
        chains: of annealed importance sampling.
        num_betas: steps of annealed importance sampling.

    Raises:
        ValueError: parameters that are not finite or do not fit together, or an argument out of its range.
        RuntimeError: more than 30 units on the smaller side for ``method="exact"``.
        TimeoutError: ``seconds`` passed before the ladder was adapted.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from dvae_ext.rbm import log_z
        >>> _ = torch.manual_seed(0)
        >>> rbm = SimpleNamespace(weight=torch.randn(8, 12), visible_bias=torch.zeros(8), hidden_bias=torch.zeros(12))
        >>> exact, estimate = log_z(rbm, "exact"), log_z(rbm, sweeps=1024, seed=1)
        >>> abs(estimate.value - exact.value) < 4 * estimate.std_error
        True
    """
    started = time.perf_counter()
    parameters = _parameters(rbm)
    if method not in _METHODS:
        raise ValueError(f"log_z: method is {method!r}, expected one of {', '.join(_METHODS)}")
    if method != "tempering":
        for name, number in (
            ("sweeps", sweeps),
            ("levels", levels),
            ("target_std_error", target_std_error),
            ("seconds", seconds),
        ):
            if number is not None:
                raise ValueError(f"log_z: {name} is {number}, expected none: it belongs to 'tempering', not {method!r}")
    if method == "exact":
        value = ops.rbm_log_z_exact(*parameters).item()
        return LogZEstimate(value, 0.0, method, time.perf_counter() - started)
    largest = sum(x.abs().double().div(torch.finfo(parameters[0].dtype).max).sum().item() for x in parameters)
    if largest > 0.25:
        raise ValueError(
            f"log_z: the parameters' sizes add up to {largest:.2g} times the largest number of {parameters[0].dtype}, "
            "expected at most a quarter: energies would overflow"
        )
    if not parameters[0].any():
        biases = torch.cat(parameters[1:]).double()
        value = torch.logaddexp(biases, torch.zeros_like(biases)).sum().item()
        return LogZEstimate(value, 0.0, method, time.perf_counter() - started)
    if method == "ais":
        _at_least("chains", chains, 2)
        _at_least("num_betas", num_betas, 1)
        if seed is None:
            seed = int(rng.key(None, "cpu")[0])
        with without_autocast(parameters[0]):
            return _annealed(parameters, num_betas, chains, seed, started)

    _at_least("ladders", ladders, MIN_LADDERS, ", which the jackknife needs")
    if sweeps is not None:
        _at_least("sweeps", sweeps, _MIN_SWEEPS)
    if levels is not None:
        _at_least("levels", levels, 2)
        if levels > MAX_LEVELS:
            raise ValueError(f"log_z: levels is {levels}, expected at most {MAX_LEVELS}")
    for name, number in (("target_std_error", target_std_error), ("seconds", seconds)):
        if number is not None and not number > 0:
            raise ValueError(f"log_z: {name} is {number}, expected a positive number")
    if reference not in _REFERENCES:
        raise ValueError(f"log_z: reference is {reference!r}, expected one of {', '.join(_REFERENCES)}")
    open_ended = target_std_error is not None or seconds is not None
    budget = Budget(
        sweeps=sweeps or (_OPEN_SWEEPS if open_ended else DEFAULT_SWEEPS),
        target_std_error=target_std_error,
        adapt_until=None if seconds is None else started + 0.3 * seconds,
        deadline=None if seconds is None else started + seconds,
    )
    if seed is None:
        world, device = World.current(), parameters[0].device
        seed = int(world.first(float(rng.key(None, "cpu")[0].item() % 2**52), device))  # one seed for all processes
    report = progress or (lambda line: None)
    weight, visible_bias, hidden_bias = parameters
    if len(visible_bias) > len(hidden_bias):  # free energies of the smaller side average over more, and jumps reach far
        weight, visible_bias, hidden_bias = weight.T.contiguous(), hidden_bias, visible_bias
    try:
        with without_autocast(weight):
            path = Path.uniform(weight, visible_bias, hidden_bias)
            result = measure(path, ladders, levels, budget, seed, report, reference)
    except TimeoutError:
        raise TimeoutError(f"log_z: seconds is {seconds}, too few to adapt the ladder; allow more") from None
    estimate, ensemble = result.estimate, result.ensemble
    base = ensemble.path.reference_log_z
    return LogZEstimate(
        value=base + estimate.value,
        std_error=estimate.std_error,
        method=method,
        seconds=time.perf_counter() - started,
        warnings=tuple(result.warnings),
        lower=base + estimate.forward,
        upper=base + estimate.reverse,
        reference=ensemble.path.reference,
        betas=tuple(ensemble.betas.tolist()),
        rejection=tuple(estimate.rejection.tolist()),
        barrier=estimate.barrier,
        round_trips=estimate.round_trips,
        stuck=ensemble.stuck()[0],
        jump_acceptance=tuple(ensemble.jump_acceptance().tolist()),
        effective_sample_size=tuple(estimate.effective_sample_size.tolist()),
        sweeps=ensemble.sweeps,
        ladders=ladders,
        trace=tuple(result.trace),
    )


def _annealed(
    parameters: tuple[Tensor, Tensor, Tensor], num_betas: int, chains: int, seed: int, started: float
) -> LogZEstimate:
    log_weights = annealed_log_weights(*parameters, num_betas, chains, seed)
    value, std_error = log_mean_exp(log_weights, _AIS_GROUPS)
    states = quenched_states(*parameters, seed)
    rounding_error = rounding(states, *parameters)
    warnings = []
    if std_error <= rounding_error:
        warnings.append(
            "all chains carry the same weight: they may never have left the states that the biases alone favour, and "
            "their spread says nothing of the error"
        )
    effective = torch.exp(2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).item()
    if effective < _MIN_EFFECTIVE_CHAINS:
        warnings.append(
            f"{effective:.1f} of {chains} chains carry the weight, fewer than {_MIN_EFFECTIVE_CHAINS}: anneal in more "
            "steps"
        )
    std_error = math.hypot(std_error, rounding_error)
    warnings += contradiction(log_z_of_states(states, *parameters), value, std_error)
    return LogZEstimate(value, std_error, "ais", time.perf_counter() - started, tuple(warnings))


def _at_least(name: str, value: int, least: int, reason: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"log_z: {name} is {value!r}, expected an integer of at least {least}{reason}")


def _parameters(rbm: HasRBMParameters) -> tuple[Tensor, Tensor, Tensor]:
    weight, visible_bias, hidden_bias = (x.detach() for x in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    if weight.dim() != 2 or visible_bias.shape != weight.shape[:1] or hidden_bias.shape != weight.shape[1:]:
        raise ValueError(
            "log_z: expected weight [n_visible, n_hidden], visible_bias [n_visible] and hidden_bias [n_hidden], got "
            f"{list(weight.shape)}, {list(visible_bias.shape)} and {list(hidden_bias.shape)}"
        )
    if weight.numel() == 0:
        raise ValueError(f"log_z: weight has shape {list(weight.shape)}, expected at least one unit on each side")
    for name, x in (("weight", weight), ("visible_bias", visible_bias), ("hidden_bias", hidden_bias)):
        if not x.is_floating_point():
            raise ValueError(f"log_z: {name} has dtype {x.dtype}, expected real floating-point numbers")
        if not torch.isfinite(x).all():
            raise ValueError(f"log_z: {name} holds NaN or infinity, expected finite numbers")
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    converted = [x.to(dtype).contiguous() for x in (weight, visible_bias, hidden_bias)]
    return converted[0], converted[1], converted[2]
