"""Checks that the ops on batches of posteriors share."""

from __future__ import annotations

from torch import Tensor

from dvae_ext.ops._arguments import check_tensor, in_one_dtype


def check_posteriors(op: str, **parameters: Tensor) -> list[Tensor]:
    """Parameters ``[batch, dims]`` of one shape, dtype and device, contiguous; 16 bits beside float32 are widened."""
    first_name, first = next(iter(parameters.items()))
    for name, tensor in parameters.items():
        check_tensor(tensor, op, name)
        if tensor.ndim != 2:
            raise ValueError(f"{op}: {name} has shape {list(tensor.shape)}, expected [batch, dims]")
        if tensor.shape != first.shape:
            raise ValueError(
                f"{op}: {name} has shape {list(tensor.shape)}, expected {list(first.shape)} like {first_name}"
            )
    return [tensor.contiguous() for tensor in in_one_dtype(op, parameters).values()]
