"""Restricted Boltzmann machines whose log Z can be enumerated, on which estimators are judged."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import torch
from torch import Tensor

from dvae_ext.rbm import log_z


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


def wells(n_visible: int, units: list[int], seed: int, strength: float = 1.0) -> SimpleNamespace:
    """For each of random patterns as many detectors as ``units`` says, on at the pattern and off two flips away.

    The stronger they are the narrower is the well.
    """
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(0, 2, (len(units), n_visible), generator=generator).float()
    counts = torch.tensor(units)
    detectors = (2 * patterns - 1).repeat_interleave(counts, 0)
    threshold = (1 - patterns.sum(1)).repeat_interleave(counts)
    return rbm(strength * detectors.T.contiguous(), torch.zeros(n_visible), strength * threshold)


def separated_modes(n_visible: int = 20, modes: int = 8, units: int = 25, seed: int = 0) -> SimpleNamespace:
    return wells(n_visible, [units] * modes, seed)


def from_spins(coupling: Tensor, visible_field: float, hidden_field: float) -> SimpleNamespace:
    """E(s, t) = −sᵀ J t − field · s − field · t over spins of ±1, in terms of bits."""
    visible_bias = 2 * visible_field - 2 * coupling.sum(1)
    return rbm(4 * coupling, visible_bias, 2 * hidden_field - 2 * coupling.sum(0))


def ferromagnet(n_visible: int, n_hidden: int, coupling: float, field: float) -> SimpleNamespace:
    """Every pair alike; the critical coupling is 1 for many units."""
    alike = torch.full((n_visible, n_hidden), coupling / (n_visible * n_hidden) ** 0.5)
    return from_spins(alike, field, field)


def glass(n_visible: int, n_hidden: int, coupling: float, seed: int = 0) -> SimpleNamespace:
    """Couplings of random sign."""
    generator = torch.Generator().manual_seed(seed)
    signs = 2 * torch.randint(0, 2, (n_visible, n_hidden), generator=generator).float() - 1
    return from_spins(coupling * signs / (n_visible * n_hidden) ** 0.25, 0.0, 0.0)


def hopfield(n_visible: int, patterns: int, copies: int, coupling: float, seed: int) -> SimpleNamespace:
    """Patterns of random spins, each stored by as many hidden units as ``copies``."""
    generator = torch.Generator().manual_seed(seed)
    stored = 2 * torch.randint(0, 2, (n_visible, patterns), generator=generator).float() - 1
    return from_spins(coupling * stored.repeat_interleave(copies, 1) / n_visible**0.5, 0.0, 0.0)


def pairs(units: int, weight: float, bias: float) -> SimpleNamespace:
    """Each visible unit with a hidden one of its own."""
    return rbm(weight * torch.eye(units), torch.full((units,), bias), torch.full((units,), bias))


def blocks(*parts: SimpleNamespace) -> SimpleNamespace:
    """RBMs side by side that do not touch: log Z is the sum of theirs, however large the whole is."""
    whole = rbm(
        torch.block_diag(*(part.weight for part in parts)),
        torch.cat([part.visible_bias for part in parts]),
        torch.cat([part.hidden_bias for part in parts]),
    )
    whole.parts = parts
    return whole


def transposed(one: SimpleNamespace) -> SimpleNamespace:
    return rbm(one.weight.T.contiguous(), one.hidden_bias, one.visible_bias)


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


# Where samplers go wrong: modes far apart, transitions with a jump, couplings so strong that nothing moves, and
# larger models made of them.
HARD_MODELS: dict[str, Callable[[], SimpleNamespace]] = {
    "wells of 10, 20, 40 units, 20×70": lambda: wells(20, [10, 20, 40], 2),
    "wells of 5 to 80 units, 22×155": lambda: wells(22, [5, 10, 20, 40, 80], 5),
    "8 wells, 22×320": lambda: wells(22, [40] * 8, 0),
    "16 wells, 22×480": lambda: wells(22, [30] * 16, 0),
    "wells of 10, 20, 40 units transposed, 70×20": lambda: transposed(wells(20, [10, 20, 40], 2)),
    "16 narrow wells beside a free block, 38×442": lambda: blocks(
        wells(22, [24] * 12 + [34, 34, 34, 35], 0, strength=3.0), random_rbm(16, 16, 0.1)
    ),
    "ferromagnet 1.1, field 0.002, 20×60": lambda: ferromagnet(20, 60, 1.1, 0.002),
    "ferromagnet 1.3, field 0.02, 20×60": lambda: ferromagnet(20, 60, 1.3, 0.02),
    "ferromagnet 2, field 0.05, 20×100": lambda: ferromagnet(20, 100, 2.0, 0.05),
    "ferromagnet 1.2, field 0.01, 200×20": lambda: ferromagnet(200, 20, 1.2, 0.01),
    "random 20×60, σ 10": lambda: random_rbm(20, 60, 10.0),
    "random 20×20, σ 30": lambda: random_rbm(20, 20, 30.0),
    "random 22×200, σ 3": lambda: random_rbm(22, 200, 3.0),
    "random 2×500, σ 1": lambda: random_rbm(2, 500, 1.0),
    "random 100×20, σ 2": lambda: random_rbm(100, 20, 2.0),
    "±J glass 3, 20×40": lambda: glass(20, 40, 3.0),
    "±J glass 8, 20×40": lambda: glass(20, 40, 8.0),
    "Hopfield, 6 patterns × 6, 20×36": lambda: hopfield(20, 6, 6, 3.0, 0),
    "Hopfield, 4 patterns × 5, 200×20": lambda: hopfield(200, 4, 5, 1.2, 1),
    "Hopfield, 12 patterns, 200×12": lambda: hopfield(200, 12, 1, 1.5, 1),
    "pairs of weight 40, 16×16": lambda: pairs(16, 40.0, -20.0),
    "4 blocks σ 10, 64×120": lambda: blocks(*(random_rbm(16, 30, 10.0, seed=i) for i in range(4))),
}

# Likewise, too slow for the hundred runs of the calibration.
LARGE_MODELS: dict[str, Callable[[], SimpleNamespace]] = {
    "random 300×16, σ 10": lambda: random_rbm(300, 16, 10.0),
    "8 blocks σ 3, 128×128": lambda: blocks(*(random_rbm(16, 16, 3.0, seed=i) for i in range(8))),
    "5 blocks of 2 wells, 100×250": lambda: blocks(*(wells(20, [20, 30], i) for i in range(5))),
}


@cache
def model(name: str) -> SimpleNamespace:
    return {**MODELS, **HARD_MODELS, **LARGE_MODELS}[name]()


def exact_log_z(one: SimpleNamespace) -> float:
    return sum(log_z(part, "exact").value for part in getattr(one, "parts", (one,)))
