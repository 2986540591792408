"""``pytest bench/bench_rbm_temper.py``: the cases of dvae_ext.benchmarks.rbm_temper.

``python -m bench.bench_rbm_temper`` prints CPU seconds of one thread, which mean the same on a busy machine.
"""

from __future__ import annotations

import time

import torch

from bench.suite import suite
from dvae_ext.benchmarks.case import Run
from dvae_ext.benchmarks.rbm_temper import build

LEVELS, LADDERS, SWEEPS = 16, 16, 300
SHAPES = [(64, 64), (200, 200)]

test_rbm_temper = suite("rbm_temper_")


def cpu_seconds(run: Run) -> float:
    """The best of 7."""
    best = float("inf")
    for _ in range(7):
        started = time.process_time()
        run()
        best = min(best, time.process_time() - started)
    return best


def main() -> None:
    torch.set_num_threads(1)
    print(f"{LEVELS} levels x {LADDERS} ladders; one thread's CPU microseconds for a sweep")
    print(f"{'':>10} {'tempering':>10} {'gibbs':>8}")
    for shape in SHAPES:
        case = build(torch.device("cpu"), *shape, LEVELS, LADDERS, SWEEPS)
        microseconds = [1e6 * cpu_seconds(case.implementations[name]()) / SWEEPS for name in ("ops", "Gibbs alone")]
        print(f"{shape[0]}x{shape[1]:<6} {microseconds[0]:10.1f} {microseconds[1]:8.1f}")


if __name__ == "__main__":
    main()
