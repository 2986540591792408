"""Block Gibbs sampling against what a user would write, in million unit updates a second."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvae_ext import ops, rng
from dvae_ext.benchmarks.baselines import compiled_forms, graphed, make_and
from dvae_ext.benchmarks.case import Benchmark, Case, Run, WrongResult

LOOKUP = 2.5
ORACLE_CHAINS = 1024
Sweep = Callable[..., tuple[Tensor, Tensor]]


def parameters(visible: int, hidden: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((visible, hidden), (visible,), (hidden,))
    weight, a, b = (0.1 * torch.randn(shape, generator=generator) for shape in shapes)
    return weight.to(device), a.to(device), b.to(device)


def bernoulli_sweep(visible: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    hidden = torch.bernoulli(torch.sigmoid(visible @ weight + b))
    return torch.bernoulli(torch.sigmoid(hidden @ weight.t() + a)), hidden


def rand_sweep(visible: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    hidden_p = torch.sigmoid(torch.addmm(b, visible, weight))
    hidden = (torch.rand_like(hidden_p) < hidden_p).to(weight.dtype)
    visible_p = torch.sigmoid(torch.addmm(a, hidden, weight.t()))
    return (torch.rand_like(visible_p) < visible_p).to(weight.dtype), hidden


def loop(sweep: Sweep, arguments: tuple[Tensor, Tensor, Tensor], chains: int, sweeps: int) -> Run:
    start = arguments[0].new_zeros(chains, arguments[0].shape[0])

    @torch.no_grad()
    def run() -> Tensor:
        visible = start
        for _ in range(sweeps):
            visible, _ = sweep(visible, *arguments)
        return visible

    return run


def numpy_loop(arguments: tuple[Tensor, Tensor, Tensor], chains: int, sweeps: int) -> Run:
    weight, a, b = (x.numpy() for x in arguments)
    generator = np.random.default_rng(0)

    def draw(logits: np.ndarray) -> np.ndarray:
        np.negative(logits, out=logits)
        np.exp(logits, out=logits)
        logits += 1
        uniform = generator.random(logits.shape, dtype=np.float32)
        uniform *= logits
        return (uniform < 1).astype(np.float32)

    def run() -> Tensor:
        visible = np.zeros((chains, len(a)), np.float32)
        for _ in range(sweeps):
            hidden = draw(visible @ weight + b)
            visible = draw(hidden @ weight.T + a)
        return torch.from_numpy(visible)

    return run


def op_run(arguments: tuple[Tensor, Tensor, Tensor], chains: int, sweeps: int) -> Run:
    weight, a, b = arguments
    visible, hidden = weight.new_zeros(chains, len(a)), weight.new_zeros(chains, len(b))
    key = rng.key(0, weight.device)

    def run() -> Tensor:
        visible.zero_()
        ops.rbm_gibbs_(visible, hidden, weight, a, b, key, sweeps)
        rng.advance_(key, sweeps)
        return visible

    return run


def expected_mean(arguments: tuple[Tensor, Tensor, Tensor], sweeps: int) -> tuple[float, float]:
    """Mean and standard error of the fraction of visible units that are on, from float64 chains."""
    chains = [x.double().cpu() for x in arguments]
    visible = torch.zeros(ORACLE_CHAINS, len(chains[1]), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _ in range(min(sweeps, 40)):
        hidden = torch.bernoulli(torch.sigmoid(visible @ chains[0] + chains[2]), generator=generator)
        visible = torch.bernoulli(torch.sigmoid(hidden @ chains[0].t() + chains[1]), generator=generator)
    fractions = visible.mean(1)
    return fractions.mean().item(), fractions.std().item()


def build(device: torch.device, visible: int, hidden: int, chains: int, sweeps: int) -> Case:
    arguments = parameters(visible, hidden, device)
    mean, deviation = expected_mean(arguments, sweeps)

    def check(result: Any) -> None:
        states = result.float()
        if not bool(((states == 0) | (states == 1)).all()):
            raise WrongResult("rbm_gibbs_: the states hold something other than 0 and 1")
        allowed = 6 * deviation * (1 / chains + 1 / ORACLE_CHAINS) ** 0.5
        if not abs(states.mean().item() - mean) <= allowed:
            found = f"{states.mean().item():.4f} of the visible units are on"
            raise WrongResult(f"rbm_gibbs_: {found}, expected {mean:.4f} ± {allowed:.4f}")

    make = {"eager": rand_sweep, "eager bernoulli": bernoulli_sweep}
    implementations: dict[str, Callable[[], Run]] = {"ops": lambda: op_run(arguments, chains, sweeps)}
    for name, sweep in make.items():
        implementations[name] = partial(loop, sweep, arguments, chains, sweeps)
    if device.type == "cpu":
        implementations["NumPy"] = lambda: numpy_loop(arguments, chains, sweeps)
    else:
        implementations["CUDA graph"] = lambda: graphed(loop(rand_sweep, arguments, chains, sweeps))
    for name, form in compiled_forms(rand_sweep, device).items():
        implementations[name] = partial(make_and, form, loop, arguments, chains, sweeps)
    # A shuffle and an addition of AVX-512 look up the sum of 5 binary inputs, where two fused multiply-adds make 2.
    updates = float(chains * sweeps * (visible + hidden))
    work = {"philox": updates, "float32 product": 4.0 / LOOKUP * visible * hidden * chains * sweeps}
    if device.type == "cuda":  # states are exact in bfloat16, weights as the sum of two numbers
        work["bfloat16 product"] = 2 * LOOKUP * work.pop("float32 product")
    return Case(implementations, check, work, ("M unit updates/s", updates / 1e6))


def size(visible: int, hidden: int, chains: int = 1000) -> dict[str, int]:
    return {"visible": visible, "hidden": hidden, "chains": chains, "sweeps": 40}


SHAPES = ((200, 200), (64, 64), (784, 500))
BENCHMARKS = [
    Benchmark(
        "rbm_gibbs_",
        "all sweeps of all chains",
        build,
        [size(*shape) for shape in SHAPES],
        [size(*shape, chains) for chains in (1000, 10_000) for shape in SHAPES],
        {
            "chains": [16, 64, 256, 1024, 4096],
            "visible=hidden": [16, 32, 64, 128, 256, 512],
            "sweeps": [1, 4, 16, 64, 256],
        },
    )
]
