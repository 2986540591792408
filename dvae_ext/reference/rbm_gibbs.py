"""Block Gibbs sampling in plain PyTorch, with the draws of the compiled op."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae_ext.precision import without_autocast
from dvae_ext.reference.philox import philox4x32, split_key, uniform_open

_VISIBLE_STREAM = 0x80000000


def _uniforms(key: Tensor, sweep: int, stream: int, chains: int, units: int, dtype: torch.dtype) -> Tensor:
    """Uniform numbers ``[chains, units]`` of one half-sweep: unit u takes word u % 4 of block u // 4."""
    words, (c2, c3) = split_key(key, sweep)
    blocks = torch.arange((units + 3) // 4, device=key.device) | stream
    rows = torch.arange(chains, device=key.device).unsqueeze(1)
    return uniform_open(philox4x32((blocks, rows, c2, c3), words).reshape(chains, -1)[:, :units], dtype)


@torch.no_grad()
def rbm_gibbs_(
    visible: Tensor,
    hidden: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    key: Tensor,
    sweeps: int,
) -> None:
    """See :func:`dvae_ext.ops.rbm_gibbs_`."""
    chains, (n_visible, n_hidden) = visible.shape[0], weight.shape
    for sweep in range(sweeps):
        with without_autocast(weight):
            logits = torch.addmm(hidden_bias, visible.to(weight.dtype), weight)
        uniform = _uniforms(key, sweep, 0, chains, n_hidden, weight.dtype)
        hidden.copy_(uniform * (1 + torch.exp(-logits)) < 1)
        with without_autocast(weight):
            logits = torch.addmm(visible_bias, hidden.to(weight.dtype), weight.t())
        uniform = _uniforms(key, sweep, _VISIBLE_STREAM, chains, n_visible, weight.dtype)
        visible.copy_(uniform * (1 + torch.exp(-logits)) < 1)
