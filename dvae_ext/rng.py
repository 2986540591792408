"""Keys for the counter-based generator, and uniform numbers from torch's.

A key is an ``int64[2]`` tensor (seed, offset). Philox4x32-10 maps it and a *logical* index (chain, unit, sample) to a
draw, so the same key gives the same draws on every device and for any number of threads, and an op that takes a key is
a pure function. An op that has consumed n steps of a key is followed by ``advance_(key, n)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


def key(seed: int | None = None, device: torch.device | str | None = None) -> Tensor:
    """Makes a key.

    Args:
        seed: any Python integer that fits in 64 bits; ``None`` draws it from torch's default generator, so that
            ``torch.manual_seed`` decides.
        device: where the key lives, by default torch's default device; it must be the device of the tensors it is used
            with.

    Returns:
        ``int64[2]``: the seed, and the offset 0.

    Raises:
        TypeError: the seed is neither an integer nor ``None``.
        ValueError: the seed does not fit in 64 bits.

    Example:
        >>> from dvae_ext import rng
        >>> rng.key(7)
        tensor([7, 0])
    """
    if seed is None:
        drawn = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device="cpu")
        return F.pad(drawn, (0, 1)).to(torch.get_default_device() if device is None else device)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed is {type(seed).__name__}, expected an integer or None")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed is {seed}, expected an integer that fits in 64 bits")
    signed = seed - 2**64 if seed >= 2**63 else seed
    return torch.tensor([signed, 0], dtype=torch.int64, device=device)


def advance_(key: Tensor, steps: int | Tensor) -> Tensor:
    """Moves a key past the ``steps`` that an op has consumed, in place, and returns it.

    Args:
        key: ``int64[2]`` from :func:`key`.
        steps: how many steps (for block Gibbs: sweeps) to move by.

    Example:
        >>> from dvae_ext import rng
        >>> rng.advance_(rng.key(7), 40)
        tensor([ 7, 40])
    """
    key[1:].add_(steps)
    return key


def uniform(shape: Sequence[int], like: Tensor, generator: Generator | None = None) -> Tensor:
    """Uniform numbers in [0, 1) from torch's generator, to be compared with probabilities or mapped by an inverse CDF.

    In float32, or float64 where ``like`` has it. 16 bits are too coarse: bfloat16 has 256 numbers, all multiples of
    1/256, so that an event with a probability of 1/500 happens either never or twice as often as it should.

    Args:
        shape: of the result.
        like: a tensor whose device and precision decide.
        generator: by default torch's own of the device.

    Example:
        >>> from dvae_ext import rng
        >>> rng.uniform((2, 3), torch.zeros(4, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.rand(shape, generator=generator, dtype=dtype, device=like.device)


class Sampler(nn.Module):
    """A module with tensors that are the state of its draws: saved and moved as buffers are, yet no buffers.

    A mean of two keys or of two chains is neither: ``torch.optim.swa_utils.AveragedModel(use_buffers=True)`` would make
    fractions of states in {0, 1}, and ``DistributedDataParallel`` would give the chains of one process to all. An
    averaged model keeps the states that it was made with.

    A subclass names the attributes in ``states`` and assigns them. They are part of ``state_dict`` under these names,
    ``load_state_dict`` checks and copies them, and ``to`` and its siblings move them.

    Example:
        >>> class Dice(Sampler):
        ...     states = ("key",)
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.key = key(7)
        >>> dict(Dice().state_dict()), list(Dice().buffers())
        ({'key': tensor([7, 0])}, [])
    """

    states: ClassVar[tuple[str, ...]]

    @contextmanager
    def _as_buffers(self) -> Iterator[None]:
        self._buffers.update((name, getattr(self, name)) for name in self.states)
        try:
            yield
        finally:
            for name in self.states:
                object.__setattr__(self, name, self._buffers.pop(name))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        with self._as_buffers():
            return super()._apply(fn, recurse)

    def _save_to_state_dict(self, *arguments: Any) -> None:
        with self._as_buffers():
            super()._save_to_state_dict(*arguments)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        with self._as_buffers():
            super()._load_from_state_dict(*arguments)
