"""A whole training step of the dvae as in the third row of DVAE++'s Table 2: loss, gradients, update, chains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dvae_ext.benchmarks.baselines import graphed
from dvae_ext.benchmarks.case import Benchmark, Case, Run, WrongResult

PRESET, TOTAL_STEPS, STEP = "1-nonlinear", 20_000, 5_000


def images(batch: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(batch, 784, generator=generator) < 0.2).float().to(device)


def step(device: torch.device, batch: int, chains: int, sweeps: int, which: str, compiled: str | None = None) -> Run:
    """One step with the ``native`` or the ``reference`` ops; ``compiled`` names a mode of torch.compile."""
    from dvae_ext.data import DataInfo
    from dvae_ext.models.dvae import DVAE, PRESETS, DVAEConfig
    from dvae_ext.rbm.eager import eager_gibbs_

    torch.manual_seed(0)
    config = DVAEConfig(**PRESETS[PRESET], num_chains=chains, sweeps=sweeps, ops=which)
    model = DVAE(config, DataInfo("random images", (28, 28), torch.full((784,), 0.2))).to(device)
    optimizer, _ = model.optimizer(TOTAL_STEPS)
    if device.type == "cuda":
        for group in optimizer.param_groups:
            group["capturable"] = True
    x = images(batch, device)

    def forward() -> Tensor:
        return model.training_loss(x, STEP, TOTAL_STEPS)[0]

    if compiled is not None:
        forward = torch.compile(forward, mode=compiled)
        # One sweep is compiled and called again and again: a graph of all sweeps takes many minutes to compile.
        sweep = torch.compile(eager_gibbs_, mode=compiled)

        def gibbs(*arguments: Any) -> None:
            for _ in range(arguments[-1]):
                sweep(*arguments[:-1], 1)  # type: ignore[call-arg]

        model.chains._gibbs = gibbs

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        optimizer.step()
        model.after_step(STEP)
        return loss.detach()

    return run


def build(device: torch.device, batch: int, chains: int, sweeps: int) -> Case:
    def check(result: Any) -> None:
        # At the start −log p(x) is about that of independent pixels at their mean, 784 · H(0.2) = 392 nats. Without
        # log Z the KL term is minus the entropy of 200 bits, nearly fair, with a weight of 5/6.
        expected = -784 * (0.2 * math.log(0.2) + 0.8 * math.log(0.8)) - 5 / 6 * 200 * math.log(2)
        if not 0.8 * expected < result.item() < 1.5 * expected:
            raise WrongResult(f"training_step: the first loss is {result.item():.1f}, expected about {expected:.0f}")

    size = (device, batch, chains, sweeps)
    implementations: dict[str, Callable[[], Run]] = {
        "ops": lambda: step(*size, "native"),
        "eager": lambda: step(*size, "reference"),
        "torch.compile": lambda: step(*size, "reference", "default"),
    }
    if device.type == "cuda":
        implementations = {
            "ops": lambda: graphed(step(*size, "native")),
            "ops without graph": implementations["ops"],
            "CUDA graph": lambda: graphed(step(*size, "reference")),
            **dict(list(implementations.items())[1:]),
        }
    weights = 784 * 200 + 200 * 200 + 200 * 200 + 200 * 200 + 200 * 200 + 200 * 784
    work = {
        "float32 product": 6.0 * batch * weights + 4.0 * 100 * 100 * chains * sweeps,
        "philox": 200.0 * chains * sweeps + 200 * batch,
    }
    return Case(implementations, check, work, ("steps/s", 1.0))


BENCHMARKS = [
    Benchmark(
        "training_step",
        f"dvae, preset {PRESET}: loss, gradients, update, chains",
        build,
        [{"batch": 100, "chains": 1000, "sweeps": 40}],
        [{"batch": 100, "chains": 1000, "sweeps": 40}],
        {"batch": [10, 100, 1000], "chains": [100, 1000, 10_000], "sweeps": [1, 10, 100]},
    )
]
