"""Fake kernels and autograd of the elementwise ops, which differ in their arguments alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dvae_ext.ops._autograd import call_backward, refuse_derivative, register_autograd


def _sum_to(grad: Tensor, like: Tensor) -> Tensor:
    """The gradient of an argument that may have served the whole call with one element."""
    return grad if grad.shape == like.shape else grad.sum(dtype=like.dtype).reshape(like.shape)


def register(name: str, arguments: int, second_order: bool) -> Callable[..., Tensor]:
    """Gives ``dvae_ext::<name>`` and its backward ops their fake kernels and autograd formulas; returns the op."""
    namespace = torch.ops.dvae_ext
    backward_op = getattr(namespace, f"{name}_backward").default

    def fake(first: Tensor, *others: Tensor) -> Tensor:
        return torch.empty_like(first)

    def fake_backward(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        needed = rest[-1]
        return tuple(
            torch.empty_like(grad) if needed >> index & 1 else grad.new_empty((0,)) for index in range(arguments)
        )

    torch.library.register_fake(f"dvae_ext::{name}", fake)
    torch.library.register_fake(f"dvae_ext::{name}_backward", fake_backward)

    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        needed = sum(1 << index for index in range(arguments) if ctx.needs_input_grad[index])
        grads = call_backward(backward_op, grad.contiguous(), *saved, needed)
        return tuple(
            _sum_to(grads[index], argument) if needed >> index & 1 else None for index, argument in enumerate(saved)
        )

    op = register_autograd(name, backward, setup_context)

    if second_order:
        second_op = getattr(namespace, f"{name}_backward_backward").default

        def fake_second(*inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(torch.empty_like(inputs[0]) for _ in range(arguments + 1))

        torch.library.register_fake(f"dvae_ext::{name}_backward_backward", fake_second)
        refuse_derivative(f"{name}_backward_backward", f"{name} has no third-order gradient")

    def setup_backward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:-1])
        ctx.needed = inputs[-1]

    def backward_of_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if not second_order:
            raise RuntimeError(f"{name} has no second-order gradient; only the overlapping exponential has one")
        grad, *saved = ctx.saved_tensors
        cotangents = [
            (g if ctx.needed >> index & 1 else torch.zeros_like(grad)).contiguous() for index, g in enumerate(grads)
        ]
        results = second_op(*cotangents, grad, *saved)
        return (results[0], *(_sum_to(r, argument) for r, argument in zip(results[1:], saved, strict=True)), None)

    register_autograd(f"{name}_backward", backward_of_backward, setup_backward_context)
    return op
