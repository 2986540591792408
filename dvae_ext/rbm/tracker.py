"""A running value of log Z while an RBM is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dvae_ext.rbm.rbm import RBM, sufficient_statistics


class LogZTracker(nn.Module):
    r"""Follows log Z along the path of the parameters by the trapezoid rule.

    d log Z = E_p[d(−E)], so an update from θ to θ′ changes log Z by about (θ′ − θ)ᵀ (s + s′)/2, where s and s′ are the
    mean sufficient statistics of the chains at θ and θ′. The start is exact when the RBM starts with zero weights, as
    it does by default. The value inherits the sampling noise and above all the lag of the chains, tenths of
    a nat over hundreds of fast updates: it makes a training curve readable between the calls of :meth:`correct` and is
    no substitute for :func:`dvae_ext.rbm.log_z`. All state is in buffers, so ``state_dict`` resumes it.

    Raises:
        ValueError: the RBM does not start with zero weights.

    Example:
        >>> rbm = RBM(3, 2)
        >>> tracker = LogZTracker(rbm, torch.zeros(4, 3), torch.zeros(4, 2))
        >>> tracker.value / torch.log(torch.tensor(2.0))
        tensor(5.0000, dtype=torch.float64)
    """

    value: Tensor

    def __init__(self, rbm: RBM, visible: Tensor, hidden: Tensor) -> None:
        super().__init__()
        if bool(torch.any(rbm.weight != 0)):
            raise ValueError("rbm: expected zero weights, where log Z is known in closed form")
        biases = torch.cat([rbm.visible_bias, rbm.hidden_bias]).detach().double()
        self.register_buffer("value", torch.nn.functional.softplus(biases).sum())
        for name, tensor in self._entries(rbm, visible, hidden).items():
            self.register_buffer(name, tensor.clone())

    @staticmethod
    def _entries(rbm: RBM, visible: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        correlation, visible_mean, hidden_mean = sufficient_statistics(visible, hidden)
        return {
            "weight": rbm.weight.detach(),
            "visible_bias": rbm.visible_bias.detach(),
            "hidden_bias": rbm.hidden_bias.detach(),
            "correlation": correlation,
            "visible_mean": visible_mean,
            "hidden_mean": hidden_mean,
        }

    @torch.no_grad()
    def update(self, rbm: RBM, visible: Tensor, hidden: Tensor) -> Tensor:
        """Account for one update of the parameters; ``visible``, ``hidden`` are the states since. Returns the value."""
        new = self._entries(rbm, visible, hidden)
        pairs = (("weight", "correlation"), ("visible_bias", "visible_mean"), ("hidden_bias", "hidden_mean"))
        for parameter, statistic in pairs:
            step = new[parameter] - getattr(self, parameter)
            self.value += 0.5 * (step * (new[statistic] + getattr(self, statistic))).sum()
        for name, tensor in new.items():
            getattr(self, name).copy_(tensor)
        return self.value

    def correct(self, value: float) -> None:
        """Continue from ``value``, an estimate of log Z at the present parameters."""
        self.value.fill_(value)
