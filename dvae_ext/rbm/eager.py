"""Block Gibbs sampling by PyTorch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae_ext.precision import without_autocast


@torch.no_grad()
def eager_gibbs_(
    visible: Tensor,
    hidden: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    key: Tensor | None,
    sweeps: int,
) -> None:
    """The distribution of :func:`dvae_ext.ops.rbm_gibbs_` with uniforms from torch's generator; ``key`` is not used.

    What sampling costs without the op. :func:`dvae_ext.reference.rbm_gibbs_`, made to repeat the op's very draws,
    spends most of its time on them.

    Example:
        >>> visible, hidden = torch.zeros(5, 3), torch.zeros(5, 2)
        >>> eager_gibbs_(visible, hidden, torch.zeros(3, 2), torch.full((3,), 99.0), torch.zeros(2), None, 1)
        >>> visible.mean()
        tensor(1.)
    """
    with without_autocast(weight):
        for _ in range(sweeps):
            hidden.copy_(torch.rand_like(hidden) < torch.sigmoid(torch.addmm(hidden_bias, visible, weight)))
            visible.copy_(torch.rand_like(visible) < torch.sigmoid(torch.addmm(visible_bias, hidden, weight.t())))
