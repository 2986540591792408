"""Backward ops that are differentiable once: a second time is an error, never a silently missing term."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def refuse_second_order(name: str) -> None:
    """Makes differentiation of ``dvae_ext::<name>_backward`` an error."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(f"{name} has no second-order gradient")

    torch.library.register_autograd(f"dvae_ext::{name}_backward", backward, setup_context=setup_context)
