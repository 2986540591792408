"""Tensors of 16 bits beside float32 ones, as autocast makes them: computed and returned in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dvae_ext import ops

CASES: dict[str, tuple[Callable[[Tensor, Tensor], Any], tuple[int, ...], tuple[int, ...]]] = {
    "coarse_grain_kl": (lambda q, p: ops.coarse_grain_kl(q, p, 9), (2, 3, 2), (3, 2)),
    "pairwise_kl_normal": (ops.pairwise_kl_normal, (4, 3), (4, 3)),
    "mutual_posterior_divergence": (lambda m, v: ops.mutual_posterior_divergence(m, v)[0], (4, 3), (4, 3)),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_the_result_is_that_of_float32(name: str, dtype: torch.dtype) -> None:
    function, *shapes = CASES[name]
    generator = torch.Generator().manual_seed(0)
    wide = [torch.randn(shape, generator=generator).to(dtype).float().requires_grad_() for shape in shapes]
    expected = function(*wide)
    slopes = torch.autograd.grad(expected.sum(), wide)
    for narrow in (0, 1):
        mixed = [x.detach().to(dtype if i == narrow else torch.float32).requires_grad_() for i, x in enumerate(wide)]
        result = function(*mixed)
        assert result.dtype == torch.float32
        assert torch.equal(result, expected)
        for gradient, slope, x in zip(torch.autograd.grad(result.sum(), mixed), slopes, mixed, strict=True):
            assert torch.equal(gradient, slope.to(x.dtype))
    with pytest.raises(TypeError, match=r"has dtype torch\.float64, expected torch\.float32"):
        function(wide[0], wide[1].double())
