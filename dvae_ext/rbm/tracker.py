"""log Z while an RBM is trained: its gradient from samples, and a running value."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvae_ext.rbm.rbm import RBM, sufficient_statistics


class LogZTracker(nn.Module):
    r"""log Z as a term of an objective: a running value, with the gradient of the chains (DVAE++ appendix E).

    d log Z = E_p[d(−E)], so the mean sufficient statistics s of samples are its gradient, and an update of the
    parameters from θ to θ′ changes it by about (θ′ − θ)ᵀ (s + s′)/2, the trapezoid rule. The start is exact, as the
    RBM starts with zero weights. The value inherits the sampling noise and above all the lag of the chains, tenths of
    a nat over hundreds of fast updates: it makes a training curve readable between the calls of :meth:`correct` and is
    no substitute for :func:`dvae_ext.rbm.log_z`. All state is in buffers, so ``state_dict`` resumes it.

    Args:
        rbm: an RBM with zero weights, where log Z is known.
        visible: samples of it, ``[C, n_visible]``.
        hidden: likewise, ``[C, n_hidden]``.

    Raises:
        ValueError: the RBM's weights are not zero.

    Example:
        >>> rbm = RBM(3, 2)
        >>> tracker = LogZTracker(rbm, torch.zeros(4, 3), torch.zeros(4, 2))
        >>> tracker.log_z(rbm) / torch.log(torch.tensor(2.0))
        tensor(5., grad_fn=<DivBackward0>)
    """

    value: Tensor
    correlation: Tensor
    visible_mean: Tensor
    hidden_mean: Tensor

    def __init__(self, rbm: RBM, visible: Tensor, hidden: Tensor) -> None:
        super().__init__()
        if bool(torch.any(rbm.weight != 0)):
            raise ValueError("rbm: expected zero weights, where log Z is known in closed form")
        biases = torch.cat([rbm.visible_bias, rbm.hidden_bias]).detach().double()
        self.register_buffer("value", F.softplus(biases).sum())
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

    def negative_energy_mean(self, rbm: RBM) -> Tensor:
        """Mean of −E over the last samples, a scalar whose gradient is that of log Z if they are exact samples."""
        return rbm.inner_product(self.correlation, self.visible_mean, self.hidden_mean)

    def log_z(self, rbm: RBM) -> Tensor:
        """A scalar that equals the running value and has the gradient of the last samples."""
        surrogate = self.negative_energy_mean(rbm)
        return surrogate - surrogate.detach() + self.value.to(surrogate.dtype)

    @torch.no_grad()
    def update(self, rbm: RBM, visible: Tensor, hidden: Tensor) -> None:
        """Account for one update of the parameters; ``visible`` and ``hidden`` are samples from after it."""
        new = self._entries(rbm, visible, hidden)
        pairs = (("weight", "correlation"), ("visible_bias", "visible_mean"), ("hidden_bias", "hidden_mean"))
        for parameter, statistic in pairs:
            step = new[parameter] - getattr(self, parameter)
            self.value += 0.5 * (step * (new[statistic] + getattr(self, statistic))).sum()
        for name, tensor in new.items():
            getattr(self, name).copy_(tensor)

    def correct(self, value: float) -> None:
        """Continue from ``value``, an estimate of log Z at the present parameters."""
        self.value.fill_(value)
