"""Registration of the ops' derivatives, which exist in reverse mode alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _AutoDispatchBelowAutograd
from torch.overrides import has_torch_function

from dvae_ext.ops._arguments import refuse_forward_mode


def register_autograd(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., None]
) -> Callable[..., Any]:
    """Gives ``dvae_ext::<name>`` its backward pass; a gradient that carries a forward-mode tangent is an error.

    Returns the op for eager callers: the same derivative by an autograd function of its own. What torch.library does
    around every call, forward and backward, would take longer than the kernel of a small one.
    """
    op = getattr(torch.ops.dvae_ext, name).default

    def checked(ctx: Any, *grads: Tensor | None) -> Any:
        for grad in filter(torch.is_tensor, grads):
            refuse_forward_mode(grad, name, "the gradient")
        return backward(ctx, *grads)

    torch.library.register_autograd(f"dvae_ext::{name}", checked, setup_context=setup_context)

    def forward(ctx: Any, *inputs: Any) -> Any:
        with _AutoDispatchBelowAutograd():
            output = op(*inputs)
        setup_context(ctx, inputs, output)
        return output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(checked)}
    function: Any = type(name, (torch.autograd.Function,), methods)

    def call(*inputs: Any) -> Any:
        # Whoever transforms, records or overrides calls has to see the op itself.
        if (
            torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or _are_functorch_transforms_active()
            or has_torch_function(inputs)
        ):
            return op(*inputs)
        return function.apply(*inputs)

    return call


def call_backward(op: Callable[..., Any], *inputs: Any) -> Any:
    """The native op of a backward pass, without its own autograd where nobody differentiates the gradient.

    The guard holds for the native call alone: saved tensors may be recomputed while they are unpacked, with autograd.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return op(*inputs)
    with _AutoDispatchBelowAutograd():
        return op(*inputs)


def refuse_second_order(name: str) -> None:
    """Makes differentiation of ``dvae_ext::<name>_backward`` an error, never a silently missing term."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(f"{name} has no second-order gradient")

    torch.library.register_autograd(f"dvae_ext::{name}_backward", backward, setup_context=setup_context)
