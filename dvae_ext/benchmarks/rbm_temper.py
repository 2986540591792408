"""Parallel tempering: sweeps with swaps and statistics, against plain PyTorch and the same unit updates alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dvae_ext import ops, reference, rng
from dvae_ext.benchmarks.case import Benchmark, Case, Run, WrongResult
from dvae_ext.rbm.ensemble import Ensemble, Path, World


def ensemble(visible: int, hidden: int, levels: int, ladders: int, device: torch.device) -> Ensemble:
    generator = torch.Generator().manual_seed(0)
    weight = (0.3 * torch.randn(visible, hidden, generator=generator)).to(device)
    path = Path.uniform(weight, torch.zeros(visible, device=device), torch.zeros(hidden, device=device))
    return Ensemble(path, torch.linspace(0, 1, levels, dtype=torch.float64), ladders, seed=0, world=World())


def build(device: torch.device, visible: int, hidden: int, levels: int, ladders: int, sweeps: int) -> Case:
    def op() -> Run:
        state = ensemble(visible, hidden, levels, ladders, device)

        def run() -> Tensor:
            state.forget()
            state.run(sweeps)
            return state.statistics

        return run

    def eager() -> Run:
        state = ensemble(visible, hidden, levels, ladders, device)
        path = state.path
        biases = (path.visible_bias, path.hidden_bias, path.reference_visible_bias, path.reference_hidden_bias)
        betas, shifts = state.betas.to(device), state.shifts.to(device)

        def run() -> Tensor:
            state.forget()
            arguments = (state.visible, state.level, state.travel, state.statistics, path.weight, *biases)
            reference.rbm_temper_(*arguments, betas, shifts, state.key, sweeps)
            rng.advance_(state.key, sweeps)
            return state.statistics

        return run

    def gibbs() -> Run:
        state = ensemble(visible, hidden, levels, ladders, device)
        rows = state.visible.flatten(0, 1)
        others = rows.new_zeros(len(rows), hidden)
        path, key = state.path, rng.key(0, device)

        def run() -> None:
            ops.rbm_gibbs_(rows, others, path.weight, path.visible_bias, path.hidden_bias, key, sweeps)
            rng.advance_(key, sweeps)

        return run

    def check(result: Any) -> None:
        if result is None:  # block Gibbs alone, which has a benchmark of its own
            return
        # At the bottom the units are fair coins, so the first increment has a mean that is known: the average of
        # f₁ − f₀ over uniform states. Every ladder gives one mean of its sweeps, and these are independent.
        means = (result[:, 5, 0] / sweeps).cpu()
        state = ensemble(visible, hidden, levels, ladders, torch.device("cpu"))
        path = state.path
        coins = (torch.rand(4096, visible, generator=torch.Generator().manual_seed(1)) < 0.5).to(path.weight)
        biases = (path.visible_bias, path.hidden_bias, path.reference_visible_bias, path.reference_hidden_bias)
        energies = [
            reference.rbm_temper.negative_free_energy(coins, path.weight, *biases, beta)
            for beta in state.betas[:2].to(coins)
        ]
        drawn = (energies[1] - energies[0]).double()
        allowed = 6 * (drawn.var() / 4096 + drawn.var() / (sweeps * ladders)).sqrt().item() + 1e-6
        if not abs((means.mean() - drawn.mean()).item()) <= allowed:
            raise WrongResult(
                f"rbm_temper_: the first increment is {means.mean():.4f}, expected {drawn.mean():.4f} ± {allowed:.4f}"
            )

    steps = float(levels * ladders * sweeps)
    work = {
        "philox": steps * (visible + hidden),
        "float32 product": 4.0 * steps * visible * hidden,
        "elementary": 3.0 * steps * hidden,  # a softplus of each field at the level and its neighbours
    }
    implementations: dict[str, Callable[[], Run]] = {"ops": op, "eager": eager, "Gibbs alone": gibbs}
    return Case(implementations, check, work, ("M unit updates/s", steps * (visible + hidden) / 1e6))


def size(visible: int, hidden: int, ladders: int = 16) -> dict[str, int]:
    return {"visible": visible, "hidden": hidden, "levels": 16, "ladders": ladders, "sweeps": 20}


BENCHMARKS = [
    Benchmark(
        "rbm_temper_",
        "sweeps with swaps and statistics",
        build,
        [size(64, 64), size(200, 200)],
        [size(64, 64, 64), size(200, 200, 64)],
        {"ladders": [4, 16, 64, 256], "levels": [4, 16, 64], "visible=hidden": [16, 32, 64, 128, 256]},
    )
]
