"""log Z by parallel tempering: choose the reference, adapt the ladder, freeze it, measure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from dvae_ext.rbm import ladder as ladders_of
from dvae_ext.rbm.ensemble import Ensemble, Path, World
from dvae_ext.rbm.mixture import Mixture
from dvae_ext.rbm.quench import deep_states, log_z_of_states, quenched_states, rounding
from dvae_ext.rbm.statistics import PathEstimate

_FIRST_LEVELS = 12
_FIRST_SWEEPS = 32
_ADAPTATION_ROUNDS = (5, 9)  # at least, at most
_CHUNKS = 16  # of a measurement: for the trace, and for a drift of the barrier
_OPEN_BATCH = 64  # sweeps in a batch where the length of the measurement is not known beforehand
_MEANS_CALLS = 16
_MODES = 32  # components for the modes of the model
_FITTED = 1024  # quenched states that they are fitted to
_MAX_STUCK = 0.02  # replicas without a round trip, more than chance explains

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """When a measurement ends: after ``sweeps``, or once it is precise enough, or when the time is up."""

    sweeps: int
    target_std_error: float | None
    adapt_until: float | None  # of time.perf_counter()
    deadline: float | None

    @property
    def open_ended(self) -> bool:
        return self.target_std_error is not None or self.deadline is not None


@dataclass(frozen=True)
class Adapted:
    """What the last round of adaptation gave from one reference."""

    barrier: float
    log_z: float
    std_error: float

    def disagrees(self, other: Adapted) -> bool:
        """Whether the two estimates cannot both be of the whole model."""
        rounding = 1e-6 * max(abs(self.log_z), abs(other.log_z))
        return abs(self.log_z - other.log_z) > 4 * math.hypot(self.std_error, other.std_error) + rounding


@dataclass(frozen=True)
class Measurement:
    """What a frozen ladder gave."""

    ensemble: Ensemble
    estimate: PathEstimate
    trace: list[tuple[int, float, float]]  # sweeps so far, log Z, standard error
    warnings: list[str]


def measure(
    uniform: Path, ladders: int, levels: int | None, budget: Budget, seed: int, progress: Progress, reference: str
) -> Measurement:
    """Runs the whole procedure on an RBM that is known to be sound."""
    world = World.current()
    quenched = quenched_states(*uniform.model, seed)
    deep = deep_states(quenched, *uniform.model, seed)
    ensemble = Ensemble(uniform, ladders_of.first_ladder(levels or _FIRST_LEVELS), ladders, seed, world)
    found = (quenched[:_FITTED], deep)
    ensemble.modes = Mixture.of([(0.5, Mixture.fit(states[None], _MODES, ensemble.generator)) for states in found])
    ensemble, warnings = _choose_reference(ensemble, levels, progress, reference, budget)
    rounding_error = rounding(quenched, *uniform.model)

    trace: list[tuple[int, float, float]] = []
    early: PathEstimate | None = None
    batch = _OPEN_BATCH if budget.open_ended else max(1, budget.sweeps // _CHUNKS)
    chunk = batch
    while True:
        ensemble.run(chunk, batch)
        estimate = ensemble.estimate(batch)
        estimate = replace(estimate, std_error=math.hypot(estimate.std_error, rounding_error))
        early = early or estimate
        log_z = ensemble.path.reference_log_z + estimate.value
        trace.append((ensemble.sweeps, log_z, estimate.std_error))
        progress(
            f"measured {ensemble.sweeps} sweeps: log Z {log_z:.4f} ± {estimate.std_error:.4f}, "
            f"{estimate.round_trips:.0f} round trips per ladder"
        )
        precise = budget.target_std_error is not None and estimate.std_error <= budget.target_std_error
        if ensemble.sweeps + batch > budget.sweeps or (precise and len(trace) >= 4):
            break
        if _time_is_up(budget.deadline, world, ensemble.device):
            break
        if budget.open_ended:
            chunk = batch * max(1, ensemble.sweeps // batch // 4)  # a quarter more
    seen = log_z_of_states(torch.cat([quenched, ensemble.top_states()]), *uniform.model)
    warnings += _warnings(estimate, early, budget, ensemble, seen)
    return Measurement(ensemble, estimate, trace, warnings)


def _choose_reference(
    ensemble: Ensemble, levels: int | None, progress: Progress, reference: str, budget: Budget
) -> tuple[Ensemble, list[str]]:
    """An adapted and burnt-in ensemble from the better reference, and what speaks against it.

    Units fitted to the marginals may miss a mode that the marginals do not show, and ladders that start there then
    seldom leave. The uniform reference misses nothing. So the fitted one is taken if its barrier is the smaller, the
    two agree, and its burn-in leaves no replica stuck; failing that the uniform one, if it leaves fewer stuck.
    """
    adapted = _adapt(ensemble, levels, progress, budget)
    in_haste = reference == "auto" and _time_is_up(budget.adapt_until, ensemble.world, ensemble.device)
    if reference == "uniform" or in_haste:
        _burn_in(ensemble, budget)
        return ensemble, []
    path = ensemble.path.independent(*ensemble.top_means(_MEANS_CALLS, 4))
    other = ensemble.on(path)
    other_adapted = _adapt(other, levels, progress, budget)
    disagreement = adapted.disagrees(other_adapted)
    if reference == "independent":
        _burn_in(other, budget)
        difference = abs(other_adapted.log_z - adapted.log_z)
        warning = (
            f"adaptation from the uniform reference gave a log Z {difference:.3g} away: the independent reference may "
            "miss a mode of the model"
        )
        return other, [warning] if disagreement else []
    order = [ensemble, other]
    if other_adapted.barrier <= adapted.barrier and not disagreement:
        order.reverse()
    key = other.key  # the later one: no draw is used twice
    stuck = []
    for one in order:
        one.key = key
        stuck.append(_burn_in(one, budget))
        key = one.key
        if stuck[-1] == 0:
            break
    chosen = order[stuck.index(min(stuck))]
    chosen.key = key
    return chosen, []


def _burn_in(ensemble: Ensemble, budget: Budget) -> float:
    """Sweeps on the frozen ladder that settle mixtures and shifts; returns the share of replicas that are stuck."""
    if _time_is_up(budget.deadline, ensemble.world, ensemble.device):
        raise TimeoutError
    sweeps = _OPEN_BATCH if budget.deadline is not None else max(_FIRST_SWEEPS, min(budget.sweeps // 4, 2048))
    ensemble.forget()
    ensemble.run(sweeps // 2)
    ensemble.fit()
    ensemble.run(sweeps - sweeps // 2)
    _, stuck = ensemble.stuck()
    ensemble.centre_on(ensemble.look()[0])
    ensemble.forget()
    ensemble.travel.zero_()
    return stuck


def _adapt(ensemble: Ensemble, levels: int | None, progress: Progress, budget: Budget) -> Adapted:
    """Moves the levels to where neighbours reject equally often, in rounds of doubling length."""
    sweeps, barrier = _FIRST_SWEEPS, math.inf
    at_least, at_most = _ADAPTATION_ROUNDS
    for number in range(1, at_most + 1):
        ensemble.forget()
        ensemble.run(sweeps)
        steps, rejection = ensemble.look()
        last, barrier = barrier, rejection.sum().item()
        progress(
            f"{ensemble.path.reference} reference, round {number}: {len(ensemble.betas)} levels, {sweeps} sweeps, "
            f"barrier {barrier:.2f}, largest rejection {rejection.max().item():.2f}"
        )
        estimate = ensemble.estimate()
        betas = ladders_of.equalise(ensemble.betas, rejection, levels or ladders_of.levels_for(rejection))
        log_z = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
        ensemble.move_to(betas, ladders_of.interpolate(betas, ensemble.betas, log_z).diff())
        settled = abs(barrier - last) < 0.05 * barrier + 0.05
        if (number >= at_least and settled) or _time_is_up(budget.adapt_until, ensemble.world, ensemble.device):
            break
        sweeps *= 2
    return Adapted(barrier, ensemble.path.reference_log_z + estimate.value, estimate.std_error)


def _time_is_up(until: float | None, world: World, device: torch.device) -> bool:
    return until is not None and world.first(float(time.perf_counter() > until), device) > 0


def _warnings(
    estimate: PathEstimate, early: PathEstimate, budget: Budget, ensemble: Ensemble, seen: float
) -> list[str]:
    found = []
    if not math.isfinite(estimate.value) or not math.isfinite(estimate.std_error):
        found.append("the estimate is not finite: neighbouring levels do not overlap; use more levels")
        return found
    found += contradiction(seen, ensemble.path.reference_log_z + estimate.value, estimate.std_error)
    stuck, unexplained = ensemble.stuck()
    if unexplained > _MAX_STUCK:
        found.append(
            f"{100 * stuck:.1f} % of the replicas made no journey between reference and model: they may be held in "
            "regions whose weight the standard error does not know; run more sweeps"
        )
    if estimate.round_trips < 10:
        found.append(
            f"{estimate.round_trips:.1f} round trips per ladder, fewer than 10: regions of the model may have been "
            "missed, and the standard error with them; run more sweeps"
        )
    drift = abs(estimate.barrier - early.barrier)
    if drift > 0.05 * max(1.0, estimate.barrier) + 3 * early.barrier_std_error:
        found.append(
            f"the barrier moved from {early.barrier:.2f} to {estimate.barrier:.2f} during the measurement: the ladders "
            "were not in equilibrium; run more sweeps"
        )
    if budget.target_std_error is not None and estimate.std_error > budget.target_std_error:
        found.append(
            f"the standard error {estimate.std_error:.3g} did not reach the target {budget.target_std_error:.3g} "
            f"within {ensemble.sweeps} sweeps"
        )
    return found


def contradiction(seen: float, log_z: float, std_error: float) -> list[str]:
    """What to say where the states seen hold more of Z than an estimate of log Z allows."""
    if seen <= log_z + 4 * std_error:
        return []
    return [
        f"a few states that were met hold exp({seen:.4f}) of Z, which is more than the estimate: the chains spent too "
        "little time in them; run more sweeps"
    ]
