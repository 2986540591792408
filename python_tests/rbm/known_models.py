"""Restricted Boltzmann machines whose log Z can be enumerated, on which estimators are judged."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import torch
from torch import Tensor


def rbm(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> SimpleNamespace:
    return SimpleNamespace(weight=weight, visible_bias=visible_bias, hidden_bias=hidden_bias)


def random_rbm(
    n_visible: int, n_hidden: int, scale: float, field: float | None = None, seed: int = 0
) -> SimpleNamespace:
    """Normal weights of standard deviation ``scale``, normal biases of ``field`` (by default the same)."""
    generator = torch.Generator().manual_seed(seed)
    field = scale if field is None else field
    sizes = ((n_visible, n_hidden), (n_visible,), (n_hidden,))
    return rbm(
        *(s * torch.randn(size, generator=generator) for s, size in zip((scale, field, field), sizes, strict=True))
    )


def separated_modes(n_visible: int = 20, modes: int = 8, units: int = 25, seed: int = 0) -> SimpleNamespace:
    """``units`` detectors for each of ``modes`` random patterns, on at the pattern and off two flips away from it."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(0, 2, (modes, n_visible), generator=generator).float()
    detectors = (2 * patterns - 1).repeat_interleave(units, 0)
    threshold = (1 - patterns.sum(1)).repeat_interleave(units)
    return rbm(detectors.T.contiguous(), torch.zeros(n_visible), threshold)


def digits_rbm(n_hidden: int = 24, steps: int = 1500) -> SimpleNamespace:
    """Persistent contrastive divergence on scikit-learn's binarised 8 x 8 digits."""
    from sklearn.datasets import load_digits

    data = torch.tensor(load_digits().data > 7).float()
    generator = torch.Generator().manual_seed(0)

    def bernoulli(p: Tensor) -> Tensor:
        return (torch.rand(p.shape, generator=generator) < p).float()

    weight, hidden_bias = 0.01 * torch.randn(64, n_hidden, generator=generator), torch.zeros(n_hidden)
    visible_bias = torch.logit(data.mean(0).clamp(0.01, 0.99))
    chains = bernoulli(data.mean(0).expand(100, 64))
    for step in range(steps):
        batch = data[torch.randint(0, len(data), (100,), generator=generator)]
        on = torch.sigmoid(batch @ weight + hidden_bias)
        off = torch.sigmoid(chains @ weight + hidden_bias)
        rate = 0.1 * (1 - step / steps) / 100
        weight += rate * (batch.T @ on - chains.T @ off)
        visible_bias += rate * (batch - chains).sum(0)
        hidden_bias += rate * (on - off).sum(0)
        chains = bernoulli(torch.sigmoid(bernoulli(off) @ weight.T + visible_bias))
    return rbm(weight, visible_bias, hidden_bias)


MODELS: dict[str, Callable[[], SimpleNamespace]] = {
    "random 20×200, σ 0.3": lambda: random_rbm(20, 200, 0.3),
    "random 20×200, σ 1.0": lambda: random_rbm(20, 200, 1.0),
    "random 24×64, σ 1.0": lambda: random_rbm(24, 64, 1.0),
    "trained on digits, 64×24": digits_rbm,
    "8 separated modes, 20×200": separated_modes,
    "strong fields, 24×64": lambda: random_rbm(24, 64, 2.0, 10.0),
}


@cache
def model(name: str) -> SimpleNamespace:
    return MODELS[name]()
