"""Registration of the ops' derivatives, which exist in reverse mode alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dvae_ext.ops._arguments import refuse_forward_mode


def register_autograd(name: str, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
    """Gives ``dvae_ext::<name>`` its backward pass; a gradient that carries a forward-mode tangent is an error."""

    def checked(ctx: Any, *grads: Tensor | None) -> Any:
        for grad in filter(torch.is_tensor, grads):
            refuse_forward_mode(grad, name, "the gradient")
        return backward(ctx, *grads)

    torch.library.register_autograd(f"dvae_ext::{name}", checked, setup_context=setup_context)


def refuse_second_order(name: str) -> None:
    """Makes differentiation of ``dvae_ext::<name>_backward`` an error, never a silently missing term."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(f"{name} has no second-order gradient")

    torch.library.register_autograd(f"dvae_ext::{name}_backward", backward, setup_context=setup_context)
