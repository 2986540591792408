"""Cases that the smoothings share: one number in, one number out, forward and backward, bound by memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvae_ext import ops, reference
from dvae_ext.benchmarks.baselines import differentiable, forward_backward, rotating
from dvae_ext.benchmarks.case import Benchmark, Case, expect_close
from dvae_ext.benchmarks.machine import last_level_cache

CHECKED = 1 << 16  # elements compared with the oracle


def elementwise(op: str, parameters: tuple[float, ...], elementary: int, first_gradient: bool) -> Benchmark:
    """The benchmark of ``op(first, logits, *parameters)``.

    Args:
        elementary: exponentials and logarithms for one element, both passes.
        first_gradient: whether the first argument needs a gradient too, as that of a density does.
    """

    def build(device: torch.device, elements: int, dtype: str = "float32") -> Case:
        real = getattr(torch, dtype)

        def make(seed: int) -> tuple[Tensor, ...]:
            generator = torch.Generator(device).manual_seed(seed)
            first = torch.rand(elements, generator=generator, device=device).to(real)
            logits = (3 * torch.randn(elements, generator=generator, device=device)).to(real)
            return first.requires_grad_(first_gradient), logits.requires_grad_(), torch.ones_like(logits)

        sets = [((first, logits, *parameters), (grad,)) for first, logits, grad in rotating(make, device)]
        (first, logits, *_), _ = sets[0]
        oracle_inputs = [x.detach()[:CHECKED].double().requires_grad_(x.requires_grad) for x in (first, logits)]
        ones = torch.ones_like(oracle_inputs[0], requires_grad=False)
        expected = forward_backward(getattr(reference, op), [((*oracle_inputs, *parameters), (ones,))])()

        def check(result: Any) -> None:
            expect_close([x[:CHECKED] for x in result], expected, op)

        # Forward reads two tensors and writes one; backward reads these two and the gradient and writes one or two.
        # Where all of them fit into the cache, only the three that a new set brings are read from memory.
        moved = 7 + first_gradient
        size = logits.element_size() * elements
        if moved * size < last_level_cache(device):
            moved = 3
        work = {"memory": float(moved * size), "elementary": float(elementary * elements)}
        functions = getattr(ops, op), getattr(reference, op)
        return Case(differentiable(*functions, sets, device), check, work, ("M elements/s", elements / 1e6))

    million = 1 << 20
    sizes: list[dict[str, Any]] = [{"elements": million}, {"elements": 20_000}]
    if op == "overlap_exponential_icdf":
        sizes += [{"elements": 1 << 24}, {"elements": million, "dtype": "bfloat16"}]
    return Benchmark(
        op,
        "forward + backward",
        build,
        sizes,
        [{"elements": 1 << 26}, {"elements": 1 << 26, "dtype": "bfloat16"}, {"elements": 20_000}],
        {"elements": [1 << k for k in range(10, 25, 2)]},
    )
