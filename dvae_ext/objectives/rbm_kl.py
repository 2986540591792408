"""The KL divergence to an RBM prior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dvae_ext.objectives.bernoulli import bernoulli_log_likelihood
from dvae_ext.precision import wide, without_autocast
from dvae_ext.rbm import RBM
from dvae_ext.rbm.rbm import bias_term


def rbm_kl(rbm: RBM, logits: Sequence[Tensor], posterior_means: Sequence[Tensor]) -> Tensor:
    r"""One-sample estimate of KL(q(z, ζ|x) ‖ p(z, ζ)) − log Z for a hierarchical encoder and an RBM over all groups.

    The simplified form of DVAE++ eq. 6: entropies and the biases' terms use μ = σ(logits), and a pair of units of
    different groups contributes ν W μ, the earlier one through its posterior mean ν given its ζ. Units of one group are
    independent, so their pairs use μ W μ: with one group the term is the mean-field expression. The groups, joined,
    fill the RBM's visible side first; a group may straddle the two sides.

    Args:
        rbm: the prior, with n_visible + n_hidden units.
        logits: logits of q of each group, ``[B, n_g]``.
        posterior_means: ν of all groups but the last, ``[B, n_g]``: functions of ζ that carry gradients.

    Returns:
        ``[B]``, differentiable in everything. Add log Z for the KL divergence.

    Raises:
        ValueError: group sizes that do not add up to the RBM's units, or not one posterior mean per group but the last.

    Example:
        >>> rbm_kl(RBM(2, 2), [torch.zeros(5, 4)], []) / -torch.log(torch.tensor(2.0))
        tensor([4., 4., 4., 4., 4.], grad_fn=<DivBackward0>)
    """
    sizes = [group.shape[-1] for group in logits]
    if sum(sizes) != rbm.n_visible + rbm.n_hidden:
        raise ValueError(f"logits: expected {rbm.n_visible + rbm.n_hidden} units in all groups, got {sizes}")
    if len(posterior_means) != len(logits) - 1:
        raise ValueError(f"posterior_means: expected {len(logits) - 1} groups, got {len(posterior_means)}")
    split = rbm.n_visible
    joined = wide(logits[0] if len(logits) == 1 else torch.cat(list(logits), -1))
    mean = torch.sigmoid(joined)
    biases = torch.cat([rbm.visible_bias, rbm.hidden_bias])
    total = bernoulli_log_likelihood(mean, joined) - bias_term(mean, biases)  # −H(q) − bᵀμ
    end = 0
    for group, size in enumerate(sizes):
        begin, end = end, end + size
        if end <= split:
            continue
        first = max(begin, split)
        earlier = torch.cat([*map(wide, posterior_means[:group]), mean[:, begin:end]], -1)[:, :split]
        with without_autocast(rbm.weight):
            field = earlier @ wide(rbm.weight)[:, first - split : end - split]
        total = total - (field * mean[:, first:end]).sum(-1)
    return total
