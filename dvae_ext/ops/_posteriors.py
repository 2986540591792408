"""Checks that the ops on batches of posteriors share."""

from __future__ import annotations

from torch import Tensor

from dvae_ext.ops._arguments import check_tensor


def check_posteriors(op: str, **parameters: Tensor) -> list[Tensor]:
    """Parameters ``[batch, dims]`` of one shape, dtype and device, made contiguous."""
    first_name, first = next(iter(parameters.items()))
    for name, tensor in parameters.items():
        check_tensor(tensor, op, name)
        if tensor.ndim != 2:
            raise ValueError(f"{op}: {name} has shape {list(tensor.shape)}, expected [batch, dims]")
        if tensor.shape != first.shape:
            raise ValueError(
                f"{op}: {name} has shape {list(tensor.shape)}, expected {list(first.shape)} like {first_name}"
            )
        if tensor.dtype != first.dtype:
            raise TypeError(f"{op}: {name} has dtype {tensor.dtype}, expected {first.dtype} like {first_name}")
        if tensor.device != first.device:
            raise RuntimeError(f"{op}: {name} is on {tensor.device}, expected {first.device} like {first_name}")
    return [tensor.contiguous() for tensor in parameters.values()]
