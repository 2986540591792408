"""What every op does with its arguments before the native call."""

from __future__ import annotations

import math
import numbers

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dvae_ext import _native

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_tensor(tensor: object, op: str, argument: str, dtypes: tuple[torch.dtype, ...] = FLOATING) -> Tensor:
    """The tensor itself, or one sentence on what came in its place."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: {argument} is {type(tensor).__name__}, expected a tensor")
    if tensor.dtype not in dtypes:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{op}: {argument} has dtype {str(tensor.dtype).removeprefix('torch.')}, expected {expected}")
    if tensor.is_cuda and _native.cuda_error is not None:
        raise RuntimeError(f"{op}: {argument} is on {tensor.device}, but {_native.explain_missing_cuda()}")
    refuse_forward_mode(tensor, op, argument)
    return tensor


def refuse_forward_mode(tensor: Tensor, op: str, argument: str) -> None:
    """torch.library has no forward-mode formulas: without this check an op would lose the tangent without a word."""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        raise NotImplementedError(
            f"{op}: {argument} carries a forward-mode tangent (torch.func.jvp, torch.autograd.forward_ad), expected a "
            "plain tensor: the ops have reverse-mode derivatives alone"
        )


def mark_changed(*tensors: Tensor) -> None:
    """Tells autograd that an op wrote to the tensors, so that a backward pass which needs their old values fails.

    A compiled graph knows it from the op's schema.
    """
    if not torch.compiler.is_compiling() and not torch.is_inference_mode_enabled():
        torch.autograd.graph.increment_version([tensor for tensor in tensors if not tensor.is_inference()])


def parameter(value: float | Tensor, like: Tensor, op: str, argument: str, positive: bool = True) -> Tensor:
    """A shape parameter as a tensor like ``like``; a number is checked here, where it costs nothing."""
    if isinstance(value, Tensor):
        if value.dtype != like.dtype:
            raise TypeError(f"{op}: {argument} has dtype {value.dtype}, expected {like.dtype} like the other tensors")
        if value.device != like.device:
            raise RuntimeError(f"{op}: {argument} is on {value.device}, expected {like.device} like the other tensors")
        refuse_forward_mode(value, op, argument)
        return value
    if not isinstance(value, (int, float)) and isinstance(value, numbers.Real):  # NumPy's other floats
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {argument} is {type(value).__name__}, expected a number or a tensor")
    # Beside 16-bit tensors a number keeps float32's digits.
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    limits = torch.finfo(dtype)
    if not abs(value) <= limits.max or (positive and not value >= limits.tiny):
        expected = "a positive finite number" if positive else "a finite number"
        if math.inf > value > 0:
            name = str(dtype).removeprefix("torch.")
            expected += f" from {limits.tiny:.2g} to {limits.max:.2g}, as {name} has" if positive else f" in {name}"
        raise ValueError(f"{op}: {argument} is {value}, expected {expected}")
    # full() is a fill on the device; a tensor made from a number would be a copy from the host.
    return torch.full((), value, dtype=dtype, device=like.device)


def elementwise_arguments(op: str, tensors: dict[str, Tensor], parameters: dict[str, Tensor]) -> list[Tensor]:
    """Broadcasts to what the kernels take: contiguous tensors of one shape, single-element parameters left alone."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor.dtype != first.dtype:
            raise TypeError(f"{op}: {name} has dtype {tensor.dtype}, expected {first.dtype} like {first_name}")
        if tensor.device != first.device:
            raise RuntimeError(f"{op}: {name} is on {tensor.device}, expected {first.device} like {first_name}")
    everything = [*tensors.values(), *parameters.values()]
    shape = first.shape
    # torch.broadcast_shapes takes as long as a small kernel; single numbers do not need it.
    if any(tensor.shape != shape and tensor.ndim > 0 for tensor in everything):
        try:
            shape = torch.broadcast_shapes(*(tensor.shape for tensor in everything))
        except RuntimeError:
            shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in {**tensors, **parameters}.items())
            raise ValueError(f"{op}: the shapes do not broadcast together: {shapes}") from None
    result = [tensor if tensor.shape == shape else tensor.expand(shape) for tensor in tensors.values()]
    result += [p if p.shape == shape or p.numel() == 1 else p.expand(shape) for p in parameters.values()]
    return [tensor.contiguous() for tensor in result]
