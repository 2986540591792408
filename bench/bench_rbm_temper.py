"""Parallel tempering: the cost of a sweep with swaps and statistics, beside the same unit updates without them.

Run as a suite with ``pytest bench/bench_rbm_temper.py``, or as ``python -m bench.bench_rbm_temper`` for a table of CPU
seconds of one thread, which mean the same on a busy machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from dvae_ext import ops, reference, rng
from dvae_ext.rbm.ensemble import Ensemble, Path, World

LEVELS, LADDERS = 16, 16
SHAPES = [(64, 64), (200, 200)]


def ensemble(n_visible: int, n_hidden: int) -> Ensemble:
    generator = torch.Generator().manual_seed(0)
    weight = 0.3 * torch.randn(n_visible, n_hidden, generator=generator)
    path = Path.uniform(weight, torch.zeros(n_visible), torch.zeros(n_hidden))
    return Ensemble(path, torch.linspace(0, 1, LEVELS, dtype=torch.float64), LADDERS, seed=0, world=World())


def gibbs(n_visible: int, n_hidden: int) -> Callable[[int], None]:
    state = ensemble(n_visible, n_hidden)
    visible = state.visible.flatten(0, 1)
    hidden = visible.new_zeros(len(visible), n_hidden)
    path, key = state.path, rng.key(0)
    return lambda sweeps: ops.rbm_gibbs_(visible, hidden, path.weight, path.visible_bias, path.hidden_bias, key, sweeps)


def reference_run(n_visible: int, n_hidden: int) -> Callable[[int], None]:
    state = ensemble(n_visible, n_hidden)
    path = state.path
    biases = (path.visible_bias, path.hidden_bias, path.reference_visible_bias, path.reference_hidden_bias)
    arguments = (state.visible, state.level, state.travel, state.statistics, path.weight, *biases)
    return lambda sweeps: reference.rbm_temper_(*arguments, state.betas, state.shifts, state.key, sweeps)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("implementation", ["ops", "gibbs alone", "reference"])
def test_rbm_temper(benchmark, implementation: str, shape: tuple[int, int]) -> None:
    """100 sweeps of 16 levels x 16 ladders."""
    torch.set_num_threads(2)
    runs = {"ops": lambda: ensemble(*shape).run, "gibbs alone": lambda: gibbs(*shape)}
    run = runs.get(implementation, lambda: reference_run(*shape))()
    benchmark(run, 100)


def cpu_seconds(run: Callable[[int], None], sweeps: int) -> float:
    """Of one thread, for a sweep; the best of 7."""
    best = float("inf")
    for _ in range(7):
        started = time.process_time()
        run(sweeps)
        best = min(best, time.process_time() - started)
    return best / sweeps


def main() -> None:
    torch.set_num_threads(1)
    print(f"{LEVELS} levels x {LADDERS} ladders; one thread's CPU microseconds for a sweep")
    print(f"{'':>10} {'tempering':>10} {'gibbs':>8} {'reference':>10} {'100,000 sweeps on two threads, s':>34}")
    for shape in SHAPES:
        temper = cpu_seconds(ensemble(*shape).run, 300)
        alone = cpu_seconds(gibbs(*shape), 300)
        slow = cpu_seconds(reference_run(*shape), 10)
        name = f"{shape[0]}x{shape[1]}"
        print(f"{name:>10} {1e6 * temper:10.1f} {1e6 * alone:8.1f} {1e6 * slow:10.1f} {1e5 * temper / 2:34.2f}")


if __name__ == "__main__":
    main()
