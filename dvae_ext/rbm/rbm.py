"""The restricted Boltzmann machine over binary units."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvae_ext.precision import wide, without_autocast


class RBM(nn.Module):
    r"""p(v, h) = exp(−E(v, h)) / Z with E(v, h) = −aᵀv − bᵀh − vᵀWh over v, h in {0, 1} (DVAE++ section 5).

    A bias of -∞ keeps its unit at 0, and states that have it there finite energies. Energies are computed in float32 or
    wider, whatever the dtype of states and parameters and whatever autocast says.

    All parameters start at zero, the uniform distribution, where persistent chains started at random are exact samples.

    Args:
        n_visible: units on the visible side, at least 1.
        n_hidden: units on the hidden side, at least 1.

    Raises:
        ValueError: a side without units; in the methods, states whose last dimension is not the side's size.

    Example:
        >>> rbm = RBM(3, 2)
        >>> rbm.energy(torch.ones(5, 3), torch.ones(5, 2)).shape
        torch.Size([5])
        >>> rbm.free_energy(torch.zeros(3)) / -torch.log(torch.tensor(2.0))
        tensor(2., grad_fn=<DivBackward0>)
    """

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, units in (("n_visible", n_visible), ("n_hidden", n_hidden)):
            if isinstance(units, bool) or not isinstance(units, int) or units < 1:
                raise ValueError(f"{name}: expected a number of units of at least 1, got {units!r}")
        self.weight = nn.Parameter(torch.zeros(n_visible, n_hidden, device=device, dtype=dtype))
        self.visible_bias = nn.Parameter(torch.zeros(n_visible, device=device, dtype=dtype))
        self.hidden_bias = nn.Parameter(torch.zeros(n_hidden, device=device, dtype=dtype))

    @property
    def n_visible(self) -> int:
        return self.weight.shape[0]

    @property
    def n_hidden(self) -> int:
        return self.weight.shape[1]

    def extra_repr(self) -> str:
        return f"n_visible={self.n_visible}, n_hidden={self.n_hidden}"

    def energy(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """E(v, h) of ``visible [..., n_visible]`` and ``hidden [..., n_hidden]``: the leading shape."""
        self._check("visible", visible, self.n_visible)
        self._check("hidden", hidden, self.n_hidden)
        with without_autocast(self.weight):
            interaction = ((wide(visible) @ wide(self.weight)) * hidden).sum(-1)
        return -bias_term(visible, self.visible_bias) - bias_term(hidden, self.hidden_bias) - interaction

    def free_energy(self, visible: Tensor) -> Tensor:
        """F(v) = −log Σ_h exp(−E(v, h)) of ``visible [..., n_visible]``: the leading shape."""
        self._check("visible", visible, self.n_visible)
        with without_autocast(self.weight):
            fields = F.linear(wide(visible), wide(self.weight).t(), wide(self.hidden_bias))
        return -bias_term(visible, self.visible_bias) - F.softplus(fields).sum(-1)

    def log_prob(self, visible: Tensor, hidden: Tensor, log_z: Tensor | float) -> Tensor:
        """log p(v, h) = −E(v, h) − ``log_z``: the leading shape of the states."""
        return -self.energy(visible, hidden) - log_z

    def negative_energy_mean(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """Mean of −E over ``visible [C, n_visible]`` and ``hidden [C, n_hidden]``: a scalar.

        Its gradient is the mean sufficient statistics, which for states drawn from the RBM estimate the gradient of
        log Z (DVAE++ appendix E). No gradient flows to the states.
        """
        self._check("visible", visible, self.n_visible)
        self._check("hidden", hidden, self.n_hidden)
        return self.inner_product(*sufficient_statistics(visible.detach(), hidden.detach()))

    def inner_product(self, correlation: Tensor, visible_mean: Tensor, hidden_mean: Tensor) -> Tensor:
        """The mean of −E, a scalar, of states with these :func:`sufficient_statistics`."""
        biases = bias_term(visible_mean, self.visible_bias) + bias_term(hidden_mean, self.hidden_bias)
        return (wide(self.weight) * wide(correlation)).sum() + biases

    @staticmethod
    def _check(name: str, states: Tensor, units: int) -> None:
        if states.dim() == 0 or states.shape[-1] != units:
            raise ValueError(f"{name}: expected shape [..., {units}], got {list(states.shape)}")


def bias_term(states: Tensor, bias: Tensor) -> Tensor:
    """Σ states · bias of ``states [..., n]`` and ``bias [n]``: the leading shape.

    A state of 0 switches a bias of ±∞ off.

    Example:
        >>> bias_term(torch.tensor([[0.0, 1.0]]), torch.tensor([-torch.inf, 2.0]))
        tensor([2.])
    """
    states, bias = wide(states), wide(bias)
    return (states * torch.where((states == 0) & torch.isinf(bias), 0.0, bias)).sum(-1)


def sufficient_statistics(visible: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means of v hᵀ, v and h over the rows of ``visible [C, n_visible]`` and ``hidden [C, n_hidden]``.

    These are the derivatives of the mean of −E by ``weight``, ``visible_bias`` and ``hidden_bias``.

    Example:
        >>> correlation, _, _ = sufficient_statistics(torch.ones(4, 3), torch.eye(4))
        >>> correlation[0]
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    visible, hidden = wide(visible), wide(hidden)
    with without_autocast(visible):
        return visible.t() @ hidden / visible.shape[0], visible.mean(0), hidden.mean(0)
