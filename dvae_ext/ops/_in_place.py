"""What the ops that change their arguments share: whose memory that is, and sweeps that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active

from dvae_ext import rng

# Multiplications in a piece of a long call on the CPU, about a second of one thread: a piece packs states and weights
# anew, which takes milliseconds.
_PIECE = 5 * 10**9
_LOOKUP = 10  # times as many of float32 with AVX-512, which looks products up
_DRAW = 100  # what a draw costs, in multiplications
_LANES = 32  # replicas that cost as much as one


def refuse_shared_memory(op: str, written: dict[str, Tensor], read: dict[str, Tensor]) -> None:
    """Every element of a tensor that is written has a place of its own, or one sentence says which does not.

    Traced tensors have no memory yet, and a compiled graph gives the op memory of its own.
    """
    if torch.compiler.is_compiling() or _are_functorch_transforms_active():
        return
    everything = {**written, **read}
    if not all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in everything.values()):
        return
    spans = {name: _span(tensor) for name, tensor in everything.items()}
    others = list(everything)
    for name, tensor in written.items():
        others.remove(name)
        if _folded(tensor):
            raise RuntimeError(
                f"{op}: {name} has several elements in one place, expected a tensor that is not expanded"
            )
        first, last = spans[name]
        for other in others:
            if first < spans[other][1] and spans[other][0] < last and _meet(tensor, everything[other]):
                raise RuntimeError(f"{op}: {other} shares memory with {name}, expected a tensor of its own")


def _span(tensor: Tensor) -> tuple[int, int]:
    """First address and the one after the last; nothing for tensors without memory."""
    start = tensor.data_ptr()
    if start == 0 or tensor.numel() == 0:
        return 0, 0
    if tensor.is_contiguous():
        return start, start + tensor.numel() * tensor.itemsize
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (reach + 1) * tensor.itemsize


def _folded(tensor: Tensor) -> bool:
    if tensor.is_contiguous() or tensor.numel() == 0:
        return False
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            break
        reach += (size - 1) * stride
    else:
        return False
    # Windows and the like: their strides alone do not tell.
    offsets = torch.zeros((), dtype=torch.int64, device="cpu")
    for stride, size in zip(tensor.stride(), tensor.shape, strict=True):
        offsets = offsets[..., None] + stride * torch.arange(size, device="cpu")
    return offsets.unique().numel() < tensor.numel()


class _Layout:
    """Where a tensor's elements lie, for NumPy, which does not look at them: they may be on a GPU."""

    def __init__(self, tensor: Tensor) -> None:
        size = tensor.itemsize
        self.__array_interface__ = {
            "version": 3,
            "data": (tensor.data_ptr(), True),
            "typestr": f"|V{size}",
            "shape": tuple(tensor.shape),
            "strides": tuple(stride * size for stride in tensor.stride()),
        }


def _meet(first: Tensor, second: Tensor) -> bool:
    """Whether tensors whose spans meet have an element in common: columns of one matrix have not."""
    if first.is_contiguous() and second.is_contiguous():
        return True
    return bool(np.shares_memory(np.asarray(_Layout(first)), np.asarray(_Layout(second))))


def sweep_in_pieces(
    run: Callable[[Tensor, int], object],
    finish: Callable[[], object],
    key: Tensor,
    sweeps: int,
    visible: Tensor,
    weight: Tensor,
    batch: int = 1,
) -> None:
    """``run(key, sweeps)`` and ``finish()``, on the CPU in pieces between which Python can answer Ctrl-C.

    ``finish`` is called in that case too, and not where the op refuses its arguments, which the first piece does. The
    counter holds the sweep, so a piece with the key advanced to its first sweep makes the same draws. Pieces are whole
    sweeps, and whole batches of them; their size depends on no clock.
    """
    whole = torch.compiler.is_compiling() or visible.device.type != "cpu"
    # What is no number or does not fit is for the op to refuse.
    whole = whole or not isinstance(sweeps, int) or not isinstance(batch, int) or weight.ndim != 2
    if whole or batch < 1 or sweeps % batch != 0:
        run(key, sweeps)
        finish()
        return
    piece = batch * _batches_in_a_piece(visible, weight, batch)
    own_key = key if sweeps <= piece else key.clone()
    try:
        run(own_key, min(piece, sweeps))
        for done in range(piece, sweeps, piece):
            rng.advance_(own_key, piece)
            run(own_key, min(piece, sweeps - done))
    except KeyboardInterrupt:
        finish()
        raise
    finish()


def _batches_in_a_piece(visible: Tensor, weight: Tensor, batch: int) -> int:
    n_visible, n_hidden = weight.shape
    replicas = max(_LANES, visible.numel() // max(1, n_visible))
    cost = batch * replicas * (2 * n_visible * n_hidden + _DRAW * (1 + n_visible + n_hidden))
    fast = weight.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return max(1, _PIECE * (_LOOKUP if fast else 1) // cost)
