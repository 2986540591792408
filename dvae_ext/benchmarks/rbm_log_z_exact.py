"""Exact log Z against direct enumeration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dvae_ext import ops, reference
from dvae_ext.benchmarks.baselines import compiled_forms, forward_backward, graphed, make_and
from dvae_ext.benchmarks.case import Benchmark, Case, Run, WrongResult, expect_close, tensors

LARGEST_REFERENCE = 18  # beyond it direct enumeration takes seconds and, with its gradient, gigabytes


def build(device: torch.device, visible: int, hidden: int, gradient: bool) -> Case:
    generator = torch.Generator().manual_seed(0)
    shapes = ((visible, hidden), (visible,), (hidden,))
    arguments = tuple(
        (0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(device).requires_grad_(gradient)
        for shape in shapes
    )
    one = torch.ones((), dtype=torch.float64, device=device)

    def runner(function: Callable[..., Tensor]) -> Run:
        if gradient:
            return forward_backward(function, [(arguments, (one,))])
        return lambda: function(*arguments)

    small = visible <= LARGEST_REFERENCE

    def check(result: Any) -> None:
        if small:
            expect_close(result, runner(reference.rbm_log_z_exact)(), "rbm_log_z_exact")
            return
        # The value as above, once; the gradient along a direction against a difference of values.
        plain = [x.detach() for x in arguments]
        value, *gradients = tensors(result)
        expect_close(value, reference.rbm_log_z_exact(*plain), "rbm_log_z_exact")
        if gradients:
            step = 1e-5
            ahead = ops.rbm_log_z_exact(*((1 + step) * x for x in plain))
            behind = ops.rbm_log_z_exact(*((1 - step) * x for x in plain))
            slope = torch.stack([(g * x).sum() for g, x in zip(gradients, plain, strict=True)]).sum()
            if not abs((ahead - behind) / (2 * step) - slope) <= 1e-6 * abs(slope):
                raise WrongResult("rbm_log_z_exact: the gradient disagrees with a difference of values")

    implementations: dict[str, Callable[[], Run]] = {"ops": lambda: runner(ops.rbm_log_z_exact)}
    if small:
        implementations["eager"] = lambda: runner(reference.rbm_log_z_exact)
        for name, form in compiled_forms(reference.rbm_log_z_exact, device).items():
            implementations[name] = partial(make_and, form, runner)
        if device.type == "cuda":
            implementations["CUDA graph"] = lambda: graphed(runner(reference.rbm_log_z_exact))
    # For a state and a unit of the other side: a fused multiply-add and a multiplication, the moments as much again.
    # The rate of a product counts an instruction as two operations.
    states = 2.0**visible
    work = {"float64 product": (8.0 if gradient else 4.0) * states * hidden}
    return Case(implementations, check, work, ("M states/s", states / 1e6))


def size(visible: int, gradient: bool) -> dict[str, Any]:
    return {"visible": visible, "hidden": 200, "gradient": gradient}


BENCHMARKS = [
    Benchmark(
        "rbm_log_z_exact",
        "float64: the value, and the exact moments as its gradient",
        build,
        [size(16, True), size(16, False), size(20, False), size(20, True)],
        [size(16, True), size(20, True), size(24, False)],
        {"visible": [8, 10, 12, 14, 16, 18, 20], "hidden": [25, 50, 100, 200, 400]},
    )
]
