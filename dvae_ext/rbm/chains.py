"""Persistent block Gibbs chains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dvae_ext import ops, rng
from dvae_ext.rbm.rbm import RBM


class PersistentChains(rng.Sampler):
    """Samples of an RBM kept up to date while it is trained (persistent contrastive divergence, DVAE++ appendix E).

    The states ``visible [num_chains, n_visible]``, ``hidden [num_chains, n_hidden]`` and the random ``key`` are in the
    ``state_dict``, so chains loaded from it continue with the same draws; they are no buffers, as an average of states
    is none (:class:`dvae_ext.rng.Sampler`). They start as independent fair coins.
    The RBM is referred to, not owned: its parameters are neither in ``parameters()`` nor in ``state_dict()`` of the
    chains.

    Args:
        rbm: the RBM to sample.
        num_chains: number of independent chains, at least 1.
        seed: seed of the draws; by default one is drawn from torch's generator.
        gibbs: the op that sweeps, with the signature of :func:`dvae_ext.ops.rbm_gibbs_`.

    Raises:
        ValueError: num_chains is no integer of at least 1.

    Example:
        >>> chains = PersistentChains(RBM(3, 2), num_chains=5, seed=1)
        >>> visible, hidden = chains.sample(sweeps=10)
        >>> visible.shape, hidden.shape
        (torch.Size([5, 3]), torch.Size([5, 2]))
    """

    states = ("visible", "hidden", "key")
    visible: Tensor
    hidden: Tensor
    key: Tensor

    def __init__(
        self,
        rbm: RBM,
        num_chains: int,
        seed: int | None = None,
        gibbs: Callable[..., object] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(num_chains, bool) or not isinstance(num_chains, int) or num_chains < 1:
            raise ValueError(f"num_chains: expected an integer of at least 1, got {num_chains!r}")
        self._rbm = (rbm,)  # in a tuple, so that nn.Module does not register it as a part
        self._gibbs = ops.rbm_gibbs_ if gibbs is None else gibbs
        weight = rbm.weight
        key = rng.key(seed, "cpu")
        # The op's counters start at zero for the same key, so the initial coins come from a generator of their own.
        generator = torch.Generator("cpu").manual_seed(int(key[0]) ^ 0x5DEECE66D)
        for name, units in (("visible", rbm.n_visible), ("hidden", rbm.n_hidden)):
            coins = torch.randint(0, 2, (num_chains, units), generator=generator, device="cpu")
            setattr(self, name, coins.to(weight.device, weight.dtype))
        self.key = key.to(weight.device)

    @property
    def num_chains(self) -> int:
        return self.visible.shape[0]

    def extra_repr(self) -> str:
        return f"num_chains={self.num_chains}"

    @torch.no_grad()
    def sample(self, sweeps: int) -> tuple[Tensor, Tensor]:
        """Run ``sweeps`` sweeps (hidden given visible, then visible given hidden) and return the states.

        The tensors themselves are returned, not copies: the next call changes them.
        """
        rbm = self._rbm[0]
        try:
            self._gibbs(self.visible, self.hidden, rbm.weight, rbm.visible_bias, rbm.hidden_bias, self.key, sweeps)
        except KeyboardInterrupt:
            rng.advance_(self.key, sweeps)  # some of the draws are made: the states that are left must not meet them
            raise
        rng.advance_(self.key, sweeps)
        return self.visible, self.hidden
