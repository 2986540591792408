"""The cases of dvae_ext.benchmarks as a pytest-benchmark suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dvae_ext.benchmarks.case import Size, describe
from dvae_ext.benchmarks.catalogue import BENCHMARKS

IMPLEMENTATIONS = ("ops", "eager", "torch.compile")


def suite(*ops: str) -> Callable[..., Any]:
    """A test for every size of ``ops`` and every implementation: checked once, then timed."""
    sizes = [pytest.param(op, size, id=f"{op}: {describe(size)}") for op in ops for size in BENCHMARKS[op].sizes]

    @pytest.mark.parametrize(("op", "size"), sizes)
    @pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
    def test(benchmark: Any, implementation: str, op: str, size: Size) -> None:
        torch._dynamo.reset()
        case = BENCHMARKS[op].build(torch.device("cpu"), **size)
        if implementation not in case.implementations:
            pytest.skip(f"{op} has no {implementation} at {describe(size)}: it would take too long or does not exist")
        run = case.implementations[implementation]()
        case.check(run())
        benchmark.pedantic(run, rounds=5, warmup_rounds=1)

    return test
