"""log Z of a restricted Boltzmann machine by enumeration of its smaller side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvae_ext.ops._arguments import check_tensor
from dvae_ext.ops._autograd import call_backward, refuse_second_order, register_autograd

_BACKWARD = torch.ops.dvae_ext.rbm_log_z_exact_backward.default
_DTYPES = (torch.float32, torch.float64)


def rbm_log_z_exact(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    r"""The exact log partition function of a restricted Boltzmann machine.

    .. math:: \log Z = \log \sum_{v,h} e^{v^T W h + a^T v + b^T h}

    enumerating the states of the smaller side, at most 30 units, and summing the larger one in closed form. All
    arithmetic is float64 and the result is the same for any number of threads. Differentiable once, in every
    argument: the gradients are the exact moments :math:`E[v h^T]`, :math:`E[v]` and :math:`E[h]`. This is the log Z
    of eq. 6 of DVAE++ (Vahdat et al., 2018).

    Args:
        weight: ``[n_visible, n_hidden]``, float32 or float64.
        visible_bias: ``[n_visible]``, of the same dtype.
        hidden_bias: ``[n_hidden]``, of the same dtype.

    Returns:
        A float64 scalar; NaN where a parameter is NaN or infinite.

    Raises:
        TypeError: an argument is no float32 or float64 tensor.
        RuntimeError: dtypes, devices or shapes that do not fit together, a side without units, or more than 30 units
            on the smaller side; also when a gradient of the gradient is asked for.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.rbm_log_z_exact(torch.zeros(3, 4), torch.zeros(3), torch.zeros(4))
        tensor(4.8520, dtype=torch.float64)
    """
    op = "rbm_log_z_exact"
    check_tensor(weight, op, "weight", _DTYPES)
    check_tensor(visible_bias, op, "visible_bias", _DTYPES)
    check_tensor(hidden_bias, op, "hidden_bias", _DTYPES)
    return _OP(weight.contiguous(), visible_bias.contiguous(), hidden_bias.contiguous())


@torch.library.register_fake("dvae_ext::rbm_log_z_exact")
def _(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    return weight.new_empty((), dtype=torch.float64)


@torch.library.register_fake("dvae_ext::rbm_log_z_exact_backward")
def _(
    grad: Tensor, log_z: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(weight), torch.empty_like(visible_bias), torch.empty_like(hidden_bias)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return call_backward(_BACKWARD, grad, *ctx.saved_tensors)


_OP = register_autograd("rbm_log_z_exact", _backward, _setup_context)
refuse_second_order("rbm_log_z_exact")
