"""Block Gibbs sampling of a restricted Boltzmann machine."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae_ext.ops._arguments import check_tensor, mark_changed
from dvae_ext.ops._in_place import refuse_shared_memory, sweep_in_pieces

_OP = "rbm_gibbs_"


@torch.library.register_fake("dvae_ext::rbm_gibbs_")
def _fake(
    visible: Tensor,
    hidden: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    key: Tensor,
    sweeps: int,
) -> None:
    return None


def rbm_gibbs_(
    visible: Tensor,
    hidden: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    key: Tensor,
    sweeps: int,
) -> None:
    """Runs ``sweeps`` sweeps of block Gibbs sampling on every chain, in place.

    The machine is p(v, h) ∝ exp(vᵀ W h + aᵀ v + bᵀ h) over binary v and h. A sweep draws all hidden units given the
    visible ones, p(h_j = 1 | v) = σ(b_j + Σ_i v_i W_ij), then all visible units given the hidden ones (DVAE++ appendix
    E). A draw depends on (key, chain, unit, sweep) alone: the result is the same for any number of threads, and on
    every device up to ties, that is draws that fall within a rounding error of their probability. Fields are summed in
    the dtype of ``weight``. The key is not advanced: call ``rng.advance_(key, sweeps)`` before using it again. On the
    CPU Ctrl-C ends a long call after a whole sweep.

    Args:
        visible: states ``[chains, n_visible]``, 0 or 1, overwritten; of the dtype of ``weight``, or bfloat16. Both
            states need memory of their own, shared with no other argument.
        hidden: states ``[chains, n_hidden]``, like ``visible``. What it holds before the call does not matter to the
            result.
        weight: W ``[n_visible, n_hidden]``, float32 or float64, finite.
        visible_bias: a ``[n_visible]``; ±infinity clamps a unit, and so does any bias that keeps its field beyond ±17.
        hidden_bias: b ``[n_hidden]``, likewise.
        key: ``int64[2]`` from :func:`dvae_ext.rng.key`, on the device of the states.
        sweeps: 0 or more.

    Raises:
        TypeError: an argument is no tensor, or of another dtype, or ``sweeps`` is no integer.
        ValueError: shapes do not match, or ``sweeps`` is negative.
        RuntimeError: tensors on different devices; states that share memory with each other or another argument, or
            are expanded; on the CPU also states other than 0 and 1, a weight that is not finite, a bias that is NaN
            (the states are then as they were). On a GPU values are not inspected, since that
            would wait for the device: a state that is not 0 counts as 1, and a field that is NaN draws 0.

    Example:
        >>> import torch
        >>> from dvae_ext import ops, rng
        >>> visible, hidden = torch.zeros(4, 3), torch.zeros(4, 2)
        >>> weight, clamp = torch.zeros(3, 2), torch.tensor([100.0, -100.0, 100.0])
        >>> ops.rbm_gibbs_(visible, hidden, weight, clamp, torch.zeros(2), rng.key(0), sweeps=40)
        >>> visible[0]
        tensor([1., 0., 1.])
    """
    weight = check_tensor(weight, _OP, "weight", (torch.float32, torch.float64)).detach()
    states = {"visible": visible, "hidden": hidden}
    for name, tensor in states.items():
        check_tensor(tensor, _OP, name, (weight.dtype, torch.bfloat16))
    check_tensor(hidden, _OP, "hidden", (visible.dtype,))
    biases = {"visible_bias": visible_bias, "hidden_bias": hidden_bias}
    for name, tensor in biases.items():
        check_tensor(tensor, _OP, name, (weight.dtype,))
    check_tensor(key, _OP, "key", (torch.int64,))
    if isinstance(sweeps, bool) or not isinstance(sweeps, (int, torch.SymInt)):
        raise TypeError(f"{_OP}: sweeps is {type(sweeps).__name__}, expected an integer")
    if sweeps < 0:
        raise ValueError(f"{_OP}: sweeps is {sweeps}, expected 0 or more")
    if weight.dim() != 2:
        raise ValueError(f"{_OP}: weight has shape {list(weight.shape)}, expected [n_visible, n_hidden]")
    n_visible, n_hidden = weight.shape
    chains = visible.shape[0] if visible.dim() > 0 else 0
    expected = {
        "visible": (chains, n_visible),
        "hidden": (chains, n_hidden),
        "visible_bias": (n_visible,),
        "hidden_bias": (n_hidden,),
        "key": (2,),
    }
    for name, tensor in {**states, **biases, "key": key}.items():
        if tensor.shape != expected[name]:
            raise ValueError(
                f"{_OP}: {name} has shape {list(tensor.shape)}, expected {list(expected[name])} "
                f"(weight is {list(weight.shape)}, visible has {chains} chains)"
            )
        if tensor.device != weight.device:
            raise RuntimeError(f"{_OP}: {name} is on {tensor.device}, expected {weight.device} like weight")
    refuse_shared_memory(_OP, states, {"weight": weight, **biases, "key": key})
    rows = visible.detach().contiguous(), hidden.detach().contiguous()
    model = weight.contiguous(), visible_bias.detach().contiguous(), hidden_bias.detach().contiguous()

    def run(key: Tensor, sweeps: int) -> None:
        torch.ops.dvae_ext.rbm_gibbs_.default(*rows, *model, key, sweeps)

    def finish() -> None:
        for tensor, result in zip(states.values(), rows, strict=True):
            if not tensor.is_contiguous():
                tensor.detach().copy_(result)
        mark_changed(visible, hidden)

    sweep_in_pieces(run, finish, key.contiguous(), sweeps, visible, weight)
