"""What every op does with its arguments before the native call."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dvae_ext import _native

HALF = (torch.bfloat16, torch.float16)
FLOATING = (torch.float32, torch.float64, *HALF)


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
    """The ops have no forward-mode formulas: without this check an op would lose the tangent without a word."""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        raise forward_mode_error(op, argument)


def forward_mode_error(op: str, argument: str) -> NotImplementedError:
    """What forward mode gets."""
    return NotImplementedError(
        f"{op}: {argument} carries a forward-mode tangent (torch.func.jvp, jacfwd, hessian, torch.autograd.forward_ad)"
        ", expected a plain tensor: the ops have derivatives of reverse mode alone (backward, torch.autograd.grad, "
        "torch.func.grad, vjp, jacrev)"
    )


def mark_changed(*tensors: Tensor) -> None:
    """Tells autograd that an op wrote to the tensors, so that a backward pass which needs their old values fails.

    A compiled graph knows it from the op's schema.
    """
    if not torch.compiler.is_compiling() and not torch.is_inference_mode_enabled():
        torch.autograd.graph.increment_version([tensor for tensor in tensors if not tensor.is_inference()])


def is_integer(value: object) -> bool:
    """An int that is no bool, or the symbol of one in a traced graph."""
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def check_number(
    value: object, op: str, argument: str, dtype: torch.dtype, positive: bool = True, or_tensor: str = ""
) -> float:
    """The number itself if ``dtype`` has it (among its normal numbers, if positive), or one sentence on what came."""
    if isinstance(value, numbers.Real) and not isinstance(value, (int, float)):  # NumPy's other floats
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {argument} is {type(value).__name__}, expected a number{or_tensor}")
    limits = torch.finfo(dtype)
    if not abs(value) <= limits.max or (positive and not value >= limits.tiny):
        expected = "a positive finite number" if positive else "a finite number"
        if math.inf > value > 0:
            name = str(dtype).removeprefix("torch.")
            expected += f" from {limits.tiny:.2g} to {limits.max:.2g}, as {name} has" if positive else f" in {name}"
        raise ValueError(f"{op}: {argument} is {value}, expected {expected}")
    return value


def scalar(value: float, dtype: torch.dtype, device: torch.device | None) -> Tensor:
    """A number as a tensor on the device, made by a fill there: a copy from the host would be slower.

    A traced fill would have its number for good, and a graph would serve one number. A product takes any.
    """
    if torch.compiler.is_compiling():
        return torch.ones((), dtype=dtype, device=device) * value
    return torch.full((), value, dtype=dtype, device=device)


def parameter(value: float | Tensor, like: Tensor, op: str, argument: str, positive: bool = True) -> Tensor:
    """A shape parameter as a tensor like ``like``; a number is checked here, where it costs nothing."""
    if isinstance(value, Tensor):
        return check_tensor(value, op, argument)
    # Beside 16-bit tensors a number keeps float32's digits.
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return scalar(check_number(value, op, argument, dtype, positive, " or a tensor"), dtype, like.device)


def in_one_dtype(op: str, tensors: dict[str, Tensor], exempt: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors, on one device and in one dtype: 16-bit ones beside a float32 one become float32.

    Those named in ``exempt`` keep their dtype.
    """
    first_name, first = next(iter(tensors.items()))
    dtypes = {tensor.dtype for name, tensor in tensors.items() if name not in exempt}
    dtype = first.dtype
    if len(dtypes) > 1 and torch.float32 in dtypes and torch.float64 not in dtypes:
        dtype = torch.float32
        tensors = {name: tensor if name in exempt else tensor.float() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.dtype != dtype and name not in exempt:
            raise TypeError(f"{op}: {name} has dtype {tensor.dtype}, expected {dtype} like {first_name}")
        if tensor.device != first.device:
            raise RuntimeError(f"{op}: {name} is on {tensor.device}, expected {first.device} like {first_name}")
    return tensors


def elementwise_arguments(op: str, tensors: dict[str, Tensor], parameters: dict[str, Tensor]) -> list[Tensor]:
    """Broadcasts to what the kernels take: contiguous tensors of one shape, single-element parameters left alone."""
    # One float32 element beside 16-bit tensors is a number that keeps its digits.
    exempt = [
        name
        for name, p in parameters.items()
        if p.dtype == torch.float32 and p.numel() == 1 and all(t.dtype in HALF for t in tensors.values())
    ]
    everything = in_one_dtype(op, {**tensors, **parameters}, exempt)
    shape = first_shape = next(iter(everything.values())).shape
    # torch.broadcast_shapes takes as long as a small kernel; single numbers do not need it.
    if any(tensor.shape != first_shape and tensor.ndim > 0 for tensor in everything.values()):
        try:
            shape = torch.broadcast_shapes(*(tensor.shape for tensor in everything.values()))
        except RuntimeError:
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in everything.items())
            raise ValueError(f"{op}: the shapes do not broadcast together: {shapes}") from None
    return [
        (
            tensor if tensor.shape == shape or (name in parameters and tensor.numel() == 1) else tensor.expand(shape)
        ).contiguous()
        for name, tensor in everything.items()
    ]
