"""Inverse CDF of the overlapping exponential, forward + backward, against the same stable formula in plain PyTorch.

``pytest bench/bench_overlap_exponential.py``, or ``python bench/bench_overlap_exponential.py [rounds]`` for one table
in which the implementations take turns.

The memory floor: forward reads rho and logits and writes zeta; backward reads grad, rho and logits and writes one
gradient. 7 tensors of 4 bytes cross the memory bus, 9 where a store first reads its line; the copy bandwidth is
measured in the same run.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dvae_ext import ops, reference

SIZES = [20_000, 1 << 20, 1 << 24]
THREADS, BETA, TENSORS_MOVED = 2, 8.0, 7


def forward_backward(function: Callable[..., Tensor], size: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    rho = torch.rand(size, generator=generator)
    logits = (3 * torch.randn(size, generator=generator)).requires_grad_()
    grad = torch.ones(size)

    def run() -> None:
        logits.grad = None
        function(rho, logits, BETA).backward(grad)

    return run


IMPLEMENTATIONS: dict[str, Callable[[int], Callable[[], None]]] = {
    "ops": lambda size: forward_backward(ops.overlap_exponential_icdf, size),
    "eager": lambda size: forward_backward(reference.overlap_exponential_icdf, size),
    "torch.compile": lambda size: forward_backward(torch.compile(reference.overlap_exponential_icdf), size),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_overlap_exponential_icdf(benchmark, implementation: str, size: int) -> None:
    torch.set_num_threads(THREADS)
    torch._dynamo.reset()
    run = IMPLEMENTATIONS[implementation](size)
    run()
    benchmark.pedantic(run, rounds=5 if size > 1 << 22 else 20, warmup_rounds=1)


def copy_bandwidth(size: int = 1 << 25) -> float:
    """Bytes read and written per second by a large copy."""
    source, target = torch.ones(size), torch.empty(size)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - start)
    return 8 * size / statistics.median(times)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    torch.set_num_threads(THREADS)
    bandwidth = copy_bandwidth()
    print(f"forward + backward, float32, beta {BETA}, {THREADS} threads, torch {torch.__version__}")
    print(f"median of {rounds} interleaved rounds; copy bandwidth {bandwidth / 1e9:.1f} GB/s")
    columns = ("ops", "eager", "compile", "eager/ops", "compile/ops", "floor/ops")
    print(f"{'elements':>10}" + "".join(f" {name:>11}" for name in columns))
    for size in SIZES:
        runs = {name: make(size) for name, make in IMPLEMENTATIONS.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
            run()
        repeats = max(1, 200_000 // size)
        for _ in range(rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                for _ in range(repeats):
                    run()
                times[name].append((time.perf_counter() - start) / repeats)
        ops_time, eager, compiled = (statistics.median(times[name]) for name in ("ops", "eager", "torch.compile"))
        floor = 4 * TENSORS_MOVED * size / bandwidth
        print(
            f"{size:>10} {ops_time * 1e3:>9.3f}ms {eager * 1e3:>9.2f}ms {compiled * 1e3:>9.2f}ms"
            f" {eager / ops_time:>11.1f} {compiled / ops_time:>11.1f} {floor / ops_time:>11.0%}"
        )


if __name__ == "__main__":
    main()
