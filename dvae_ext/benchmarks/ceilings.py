"""What the machine itself allows, measured at the start of a run.

An op's floor is the time of its unavoidable work at the slowest of these rates: nothing that does this work is faster,
as long as it does it the way the ceiling does.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import torch

from dvae_ext import ops, rng
from dvae_ext.benchmarks.case import Run
from dvae_ext.benchmarks.machine import last_level_cache
from dvae_ext.benchmarks.timing import take_turns

HOW = {
    "memory": ("GB/s", "read and written by a copy four times as large as the largest cache"),
    "float32 product": ("GFLOP/s", "torch.matmul, 1024 × 1024 (4096 × 4096 on a GPU)"),
    "float64 product": ("GFLOP/s", "likewise"),
    "bfloat16 product": ("GFLOP/s", "likewise"),
    "elementary": ("G/s", "exponentials by torch.exp of 2^17 float32 numbers, in the cache (2^24 on a GPU)"),
    "philox": ("G words/s", "the draws of rbm_gibbs_ with 1 hidden unit: one Philox word and one comparison each"),
}


def product_run(dtype: torch.dtype, device: torch.device) -> tuple[Run, float]:
    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.matmul(a, b, out=out), 2.0 * size**3


def philox_run(device: torch.device) -> tuple[Run, float]:
    units, chains, sweeps = 512, 1000 if device.type == "cpu" else 100_000, 4
    visible, hidden = (torch.zeros(chains, n, device=device) for n in (units, 1))
    weight, a, b = (torch.zeros(shape, device=device) for shape in ((units, 1), (units,), (1,)))
    key = rng.key(0, device)
    return lambda: ops.rbm_gibbs_(visible, hidden, weight, a, b, key, sweeps), float(chains * sweeps * (units + 1))


def measure(device: torch.device, seconds: float = 3.0) -> dict[str, float]:
    """Rates per second, by name."""
    size = max(1 << 22, last_level_cache(device))  # float32 elements: four times the cache in bytes
    source, target = torch.ones(size, device=device), torch.empty(size, device=device)
    x = torch.randn(1 << (24 if device.type == "cuda" else 17), device=device)
    y = torch.empty_like(x)
    runs: dict[str, tuple[Run, float]] = {
        "memory": (lambda: target.copy_(source), 8.0 * size),
        "elementary": (lambda: torch.exp(x, out=y), float(x.numel())),
        "philox": philox_run(device),
    }
    for name in ("float32", "float64", "bfloat16"):
        runs[f"{name} product"] = product_run(getattr(torch, name), device)
    for run, _ in runs.values():
        run()
    times = take_turns({name: run for name, (run, _) in runs.items()}, device, seconds)
    return {name: amount / statistics.median(times[name]) for name, (_, amount) in runs.items()}


def floor(work: Mapping[str, float], ceilings: Mapping[str, float]) -> tuple[str, float]:
    """The ceiling that binds, and the seconds below which the work cannot be done."""
    seconds = {name: amount / ceilings[name] for name, amount in work.items()}
    binding = max(seconds, key=seconds.__getitem__)
    return binding, seconds[binding]
