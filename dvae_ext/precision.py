"""Arithmetic in float32 or wider, whatever dtype comes in and whatever autocast says.

Energies and divergences are sums of many terms, and differences of such sums: in 16 bits they are off by whole nats.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """A bfloat16 or float16 tensor as float32, any other as it is.

    Example:
        >>> wide(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """In this context the products of matrices on the tensor's device keep the dtype of their arguments.

    Example:
        >>> row, column = torch.tensor([[100.25, 0.3]]), torch.ones(2, 1)
        >>> with torch.autocast("cpu", torch.bfloat16), without_autocast(row):
        ...     (row @ column).item()
        100.55000305175781
    """
    device = tensor.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):  # elsewhere torch may know no autocast
        return torch.autocast(device, enabled=False)
    return nullcontext()
