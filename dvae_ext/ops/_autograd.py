"""Registration of the ops' derivatives, which exist in reverse mode alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _after_autograd_keyset, _are_functorch_transforms_active, _AutoDispatchBelowAutograd
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import Function
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.autograd.function import _SingleLevelFunction
from torch.overrides import has_torch_function

from dvae_ext.ops._arguments import forward_mode_error, refuse_forward_mode

_LIBRARY = torch.library.Library("dvae_ext", "FRAGMENT")


def register_autograd(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., None]
) -> Callable[..., Any]:
    """Gives ``dvae_ext::<name>`` its backward pass; a tensor that carries a forward-mode tangent is an error.

    Returns the op for eager callers: the same derivative without the dispatcher's detour through Python, which would
    take longer than the kernel of a small op.

    torch.library's own registration would do the same, but its autograd functions hand over to torch.func, which takes
    none of them. A kernel of the dispatcher is transformed by the dispatcher, like those of PyTorch's operators.
    """
    op = getattr(torch.ops.dvae_ext, name).default

    def checked(ctx: Any, *grads: Tensor | None) -> Any:
        for grad in filter(torch.is_tensor, grads):
            refuse_forward_mode(grad, name, "the gradient")
        return backward(ctx, *grads)

    def forward(ctx: Any, *inputs: Any) -> Any:
        with _AutoDispatchBelowAutograd():
            output = op(*inputs)
        setup_context(ctx, inputs, output)
        return output

    def forward_of_dispatcher(ctx: Any, *inputs: Any) -> Any:
        *inputs, keys = inputs  # type: ignore[assignment]
        # An autograd function switches derivatives off inside; the transformations around this one want theirs.
        with torch.enable_grad(), _set_fwd_grad_enabled(True), _AutoDispatchBelowAutograd():
            output = op.redispatch(keys & _after_autograd_keyset, *inputs)
        setup_context(ctx, tuple(inputs), output)
        return output

    def backward_of_dispatcher(ctx: Any, *grads: Tensor | None) -> Any:
        result = checked(ctx, *grads)
        return (*result, None) if isinstance(result, tuple) else (result, None)

    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        raise forward_mode_error(name, "an argument")

    def function(base: Any, **methods: Callable[..., Any]) -> Any:
        return type(name, (base,), {key: staticmethod(method) for key, method in methods.items()})

    eager = function(Function, forward=forward, backward=checked)
    # A Function would hand over to torch.func, which has had its turn when the dispatcher calls.
    dispatched = function(
        _SingleLevelFunction,
        forward=forward_of_dispatcher,
        backward=backward_of_dispatcher,
        jvp=jvp,
        _compiled_autograd_key=Function._compiled_autograd_key,
    )

    def kernel(keys: Any, *inputs: Any) -> Any:
        with enable_single_level_autograd_function():
            return dispatched.apply(*inputs, keys)

    _LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)

    def call(*inputs: Any) -> Any:
        # Whoever transforms, records or overrides calls has to see the op itself.
        if (
            torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or _are_functorch_transforms_active()
            or has_torch_function(inputs)
        ):
            return op(*inputs)
        return eager.apply(*inputs)

    return call


def call_backward(op: Callable[..., Any], *inputs: Any) -> Any:
    """The native op of a backward pass, without its own autograd where nobody differentiates the gradient.

    The guard holds for the native call alone: saved tensors may be recomputed while they are unpacked, with autograd.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or _are_functorch_transforms_active():
        return op(*inputs)
    with _AutoDispatchBelowAutograd():
        return op(*inputs)


def refuse_derivative(name: str, sentence: str) -> None:
    """Makes differentiation of ``dvae_ext::<name>`` an error, never a silently missing term."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(sentence)

    register_autograd(name, backward, setup_context)


def refuse_second_order(name: str) -> None:
    """Makes differentiation of ``dvae_ext::<name>_backward`` an error."""
    refuse_derivative(f"{name}_backward", f"{name} has no second-order gradient")
