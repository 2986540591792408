"""Exact log Z: the product form against direct enumeration in PyTorch."""

from __future__ import annotations

import pytest
import torch

from dvae_ext import ops, reference


def model(n_visible: int, n_hidden: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        0.3 * torch.randn(s, generator=generator, dtype=torch.float64)
        for s in ((n_visible, n_hidden), n_visible, n_hidden)
    ]


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("shape", [(16, 200), (20, 200)], ids=lambda s: f"2^{s[0]}x{s[1]}")
@pytest.mark.parametrize("implementation", ["ops", "reference"])
def test_rbm_log_z_exact(benchmark, implementation: str, shape: tuple[int, int], backward: bool) -> None:
    if implementation == "reference" and shape[0] > 16:
        pytest.skip("direct enumeration of 2^20 states takes seconds and gigabytes with its gradient")
    torch.set_num_threads(2)
    function = {"ops": ops, "reference": reference}[implementation].rbm_log_z_exact
    arguments = [x.requires_grad_(backward) for x in model(*shape)]

    def run() -> None:
        value = function(*arguments)
        if backward:
            torch.autograd.grad(value, arguments)

    benchmark(run)
