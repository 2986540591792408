"""Block Gibbs sampling: 40 sweeps of 1000 chains against what a user would write, each in million unit updates/s.

Run as a suite with ``pytest bench/bench_rbm_gibbs.py``, or as ``python bench/bench_rbm_gibbs.py [rounds]`` for one
table in which the implementations take turns, so that a change of the machine's speed reaches all of them.

The floor is that of the AVX-512 kernel: per 16 unit updates, one table lookup (a two-register shuffle and an addition)
for 5 inputs and about 44 vector instructions for Philox and the draw, two instructions per cycle and core.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dvae_ext import ops, rng

SHAPES = [(64, 64), (200, 200), (784, 500)]
CHAINS, SWEEPS, THREADS = 1000, 40, 2
INSTRUCTIONS_PER_DRAW = 44


def parameters(n_visible: int, n_hidden: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        0.1 * torch.randn(n_visible, n_hidden, generator=generator),
        0.1 * torch.randn(n_visible, generator=generator),
        0.1 * torch.randn(n_hidden, generator=generator),
    )


def bernoulli_sweep(visible: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    hidden = torch.bernoulli(torch.sigmoid(visible @ weight + b))
    return torch.bernoulli(torch.sigmoid(hidden @ weight.t() + a)), hidden


def rand_sweep(visible: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    hidden_p = torch.sigmoid(torch.addmm(b, visible, weight))
    hidden = (torch.rand_like(hidden_p) < hidden_p).to(weight.dtype)
    visible_p = torch.sigmoid(torch.addmm(a, hidden, weight.t()))
    return (torch.rand_like(visible_p) < visible_p).to(weight.dtype), hidden


def loop(sweep: Callable[..., tuple[Tensor, Tensor]], n_visible: int, n_hidden: int) -> Callable[[], None]:
    arguments = parameters(n_visible, n_hidden)
    visible = torch.zeros(CHAINS, n_visible)

    @torch.no_grad()
    def run() -> None:
        nonlocal visible
        for _ in range(SWEEPS):
            visible, _ = sweep(visible, *arguments)

    return run


def numpy_loop(n_visible: int, n_hidden: int) -> Callable[[], None]:
    weight, a, b = (t.numpy() for t in parameters(n_visible, n_hidden))
    generator = np.random.default_rng(0)
    visible = np.zeros((CHAINS, n_visible), np.float32)

    def draw(logits: np.ndarray) -> np.ndarray:
        np.negative(logits, out=logits)
        np.exp(logits, out=logits)
        logits += 1
        uniform = generator.random(logits.shape, dtype=np.float32)
        uniform *= logits
        return (uniform < 1).astype(np.float32)

    def run() -> None:
        nonlocal visible
        for _ in range(SWEEPS):
            hidden = draw(visible @ weight + b)
            visible = draw(hidden @ weight.T + a)

    return run


def op(n_visible: int, n_hidden: int) -> Callable[[], None]:
    weight, a, b = parameters(n_visible, n_hidden)
    visible, hidden, key = torch.zeros(CHAINS, n_visible), torch.zeros(CHAINS, n_hidden), rng.key(0)

    def run() -> None:
        ops.rbm_gibbs_(visible, hidden, weight, a, b, key, SWEEPS)
        rng.advance_(key, SWEEPS)

    return run


IMPLEMENTATIONS: dict[str, Callable[[int, int], Callable[[], None]]] = {
    "ops.rbm_gibbs_": op,
    "eager bernoulli": lambda n, m: loop(bernoulli_sweep, n, m),
    "eager rand < p": lambda n, m: loop(rand_sweep, n, m),
    "torch.compile bernoulli": lambda n, m: loop(torch.compile(bernoulli_sweep), n, m),
    "NumPy": numpy_loop,
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rbm_gibbs(benchmark, implementation: str, shape: tuple[int, int]) -> None:
    torch.set_num_threads(THREADS)
    run = IMPLEMENTATIONS[implementation](*shape)
    run()
    benchmark.pedantic(run, rounds=5)
    updates = CHAINS * SWEEPS * sum(shape)
    benchmark.extra_info["million_updates_per_second"] = round(updates / benchmark.stats.stats.min / 1e6, 1)


def floor_seconds(n_visible: int, n_hidden: int, gigahertz: float) -> float:
    """Time for the kernel's vector instructions at two per cycle on THREADS cores."""
    lookups = n_hidden * -(-n_visible // 5) + n_visible * -(-n_hidden // 5)
    instructions = 2 * lookups + INSTRUCTIONS_PER_DRAW * (n_visible + n_hidden)
    return instructions * CHAINS / 16 * SWEEPS / (2 * THREADS * gigahertz * 1e9)
