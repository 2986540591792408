"""Parallel tempering of a restricted Boltzmann machine: many levels, ladders and sweeps in one call."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae_ext.ops._arguments import check_tensor, mark_changed
from dvae_ext.ops._in_place import refuse_shared_memory, sweep_in_pieces

_NAME = "rbm_temper_"
_OP = torch.ops.dvae_ext.rbm_temper_.default
_DTYPES = (torch.float32, torch.float64)


def rbm_temper_(
    visible: Tensor,
    level: Tensor,
    travel: Tensor,
    statistics: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    reference_visible_bias: Tensor,
    reference_hidden_bias: Tensor,
    betas: Tensor,
    shifts: Tensor,
    key: Tensor,
    sweeps: int,
    batch: int = 1,
    first_ladder: int = 0,
) -> None:
    r"""Tempered block Gibbs sampling with swaps of neighbouring levels, in place.

    A ladder holds one replica per level. Level :math:`l` lies at :math:`\beta_l` on the path from independent units to
    the model: weights :math:`\beta W`, biases :math:`(1-\beta)` reference :math:`+\,\beta` bias. With
    :math:`f_l(v)` the log of the unnormalised marginal of the visible units there, every sweep adds the increments
    :math:`f_{l\pm1}(v)-f_l(v)` to the statistics, swaps the levels of every second pair of neighbours (even pairs at
    even steps of the key, odd pairs at odd ones) with probability
    :math:`\min(1, e^{f_{l+1}(v)-f_l(v)+f_l(v')-f_{l+1}(v')}`), and draws hidden given visible and visible given hidden
    at the new levels. At :math:`\beta=0` that draw is exact. This is the replica exchange of Hukushima and Nemoto
    (1996) that appendix G of DVAE++ uses for its likelihoods. Draws depend on the key, the ladder's index and the
    replica alone; the key is not advanced. On the CPU Ctrl-C ends a long call after a whole batch of sweeps.

    Args:
        visible: ``[ladders, levels, n_visible]``, one row per replica, holding 0 and 1; changed in place.
        level: int64 ``[ladders, levels]``, the level of each replica; changed in place.
        travel: int64 ``[ladders, levels]``, which end a replica saw last (0 none, 1 the bottom, 2 the top after the
            bottom); changed in place.
        statistics: float64 ``[ladders, 9, levels]``, added to. For the pair (l, l+1), with forward the increment at l
            and reverse that at l+1: 0 log Σ e^forward, 1 log Σ e^reverse (both start at -inf), 2 Σ σ(forward - shift),
            3 Σ σ(reverse + shift), 4 Σ of the probability to swap; for level l, with x = forward - shift (at the top
            -reverse - shift): 5 Σ x, 6 Σ x², 7 Σ over batches of (Σ x over the batch)²; for each replica: 8 round
            trips.
        weight: ``[n_visible, n_hidden]``, float32 or float64, like ``visible`` and the four biases.
        visible_bias, hidden_bias: ``[n_visible]`` and ``[n_hidden]``.
        reference_visible_bias, reference_hidden_bias: the same of the independent units at β = 0.
        betas: float64 ``[levels]``.
        shifts: float64 ``[levels - 1]``, guesses of log Z_{l+1} - log Z_l; they set where bridge sampling is best, not
            what it converges to.
        key: int64 ``[2]`` from :func:`dvae_ext.rng.key`.
        sweeps: a multiple of ``batch``.
        batch: sweeps in a batch.
        first_ladder: index of the first ladder where an ensemble is split over processes.

    Raises:
        TypeError: an argument is no tensor of its dtype.
        RuntimeError: shapes or devices that do not fit, more than 512 levels, an argument that is changed and shares
            memory with another, and on the CPU also states other than 0 and 1, levels that are no permutation, and
            parameters that are not finite. On a GPU values are not
            inspected, save that a ladder whose levels are no permutation stays as it is, its statistics becoming NaN.

    Example:
        >>> import torch
        >>> from dvae_ext import ops, rng
        >>> visible = torch.zeros(16, 4, 6)
        >>> level = torch.arange(4).repeat(16, 1)
        >>> statistics = torch.zeros(16, 9, 4, dtype=torch.float64)
        >>> statistics[:, :2] = -torch.inf
        >>> betas = torch.linspace(0, 1, 4, dtype=torch.float64)
        >>> shifts = torch.zeros(3, dtype=torch.float64)
        >>> biases = [torch.zeros(6), torch.zeros(8)] * 2
        >>> travel = torch.zeros_like(level)
        >>> ops.rbm_temper_(
        ...     visible, level, travel, statistics, torch.ones(6, 8), *biases, betas, shifts, rng.key(0), sweeps=100
        ... )
        >>> bool((statistics[:, 4, :3] <= 100).all())
        True
    """
    for name, tensor in (("visible", visible), ("weight", weight)):
        check_tensor(tensor, _NAME, name, _DTYPES)
    state = {"visible": visible, "level": level, "travel": travel, "statistics": statistics}
    model = {
        "weight": weight,
        "visible_bias": visible_bias,
        "hidden_bias": hidden_bias,
        "reference_visible_bias": reference_visible_bias,
        "reference_hidden_bias": reference_hidden_bias,
        "betas": betas,
        "shifts": shifts,
    }
    refuse_shared_memory(_NAME, state, {**model, "key": key})

    def run(key: Tensor, sweeps: int) -> None:
        _OP(*state.values(), *model.values(), key, sweeps, batch, first_ladder)

    def finish() -> None:
        mark_changed(*state.values())

    sweep_in_pieces(run, finish, key, sweeps, visible, weight, batch)


@torch.library.register_fake("dvae_ext::rbm_temper_")
def _(*arguments: object) -> None:
    return None
