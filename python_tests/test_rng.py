"""Keys and uniform numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from dvae_ext import ops, reference, rng
from dvae_ext.nn import ExponentialSmoothing, LogisticSmoothing, Smoothing, SpikeSmoothing

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture
def default_device_meta() -> Iterator[None]:
    """Every tensor whose device nobody names has no data."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.usefixtures("default_device_meta")
def test_keys_follow_the_device_that_is_named() -> None:
    torch.manual_seed(5)
    drawn = rng.key(device="cpu")
    assert drawn.device.type == rng.key(7, "cpu").device.type == "cpu"
    assert rng.key().device.type == rng.key(7).device.type == "meta"
    torch.set_default_device(None)
    torch.manual_seed(5)
    assert torch.equal(rng.key(), drawn)


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
def test_uniforms_have_at_least_24_bits(dtype: torch.dtype) -> None:
    uniform = rng.uniform((1000,), torch.zeros(2, dtype=dtype), torch.Generator().manual_seed(0))
    assert uniform.dtype == torch.promote_types(dtype, torch.float32)
    assert uniform.unique().numel() > 990
    assert ((uniform >= 0) & (uniform < 1)).all()


@pytest.mark.parametrize("dtype", HALF)
def test_rare_ones_are_drawn_from_logits_of_16_bits(dtype: torch.dtype) -> None:
    """P(z = 1) = 0.00247 at logit -6, which uniforms of 8 bits never reach: 400,000 draws, 6 standard errors."""
    logits = torch.full((400_000,), -6.0, dtype=dtype, requires_grad=True)
    rho = rng.uniform(logits.shape, logits, torch.Generator().manual_seed(1))
    zeta = ops.spike_exponential_icdf(rho, logits, 5.0)
    assert zeta.dtype == torch.float32
    probability = 1 / (1 + math.exp(6))
    error = math.sqrt(probability / 400_000)
    assert (zeta > 0).double().mean().item() == pytest.approx(probability, abs=6 * error)
    (gradient,) = torch.autograd.grad(zeta.sum(), logits)
    assert gradient.dtype == dtype
    assert (gradient > 0).sum() == (zeta > 0).sum()


@pytest.mark.parametrize("functions", [ops, reference])
@pytest.mark.parametrize("kind", ["exponential", "logistic", "spike"])
def test_smoothings_draw_in_float32(kind: str, functions: object) -> None:
    """Shares of rare ones within 6 standard errors of those that float32 logits have by 400,000 midpoints."""
    smoothings: dict[str, Smoothing] = {
        "exponential": ExponentialSmoothing(functions.overlap_exponential_icdf, 8.0),
        "logistic": LogisticSmoothing(functions.overlap_logistic_icdf, 0.0, 1.0, 0.05),
        "spike": SpikeSmoothing(functions.spike_exponential_icdf, 5.0),
    }
    smoothing = smoothings[kind]
    torch.manual_seed(3)
    logits = torch.full((400_000,), -6.5, dtype=torch.bfloat16)
    zeta = smoothing.sample(logits)
    assert zeta.dtype == torch.bfloat16
    midpoints = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    wide = torch.full((400_000,), -6.5, dtype=torch.float64)
    shape = {"exponential": (8.0,), "logistic": (0.0, 1.0, 0.05), "spike": (5.0,)}[kind]
    exact = smoothing.icdf(midpoints, wide, *shape)  # type: ignore[attr-defined]
    share = (exact > 0.5).double().mean().item()
    assert share > 1e-3
    assert (zeta > 0.5).double().mean().item() == pytest.approx(share, abs=6 * math.sqrt(share / 400_000))
