"""Philox4x32-10 (Salmon et al. 2011) in PyTorch's int64 arithmetic: the draws of the compiled ops, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _multiply(value: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 64-bit product of 32-bit numbers; int64 alone would overflow."""
    low = value * (multiplier & 0xFFFF)  # below 2**48
    high = value * (multiplier >> 16) + (low >> 16)  # below 2**49
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """Four 32-bit words per counter.

    Args:
        counter: four int64 tensors of values in [0, 2**32) that broadcast together.
        key: two int64 tensors (0-dim) of values in [0, 2**32).

    Returns:
        int64 tensor of the broadcast shape plus a last dimension of 4.

    Example:
        >>> import torch
        >>> zero = torch.tensor(0)
        >>> [hex(word) for word in philox4x32((zero, zero, zero, zero), (zero, zero)).tolist()]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack([c0, c1, c2, c3], dim=-1)


def split_key(key: Tensor, step: int = 0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two key words of an ``int64[2]`` key, and counter words 2 and 3 for the given step."""
    seed, offset = key[0], key[1] + step
    return (seed & _MASK, (seed >> 32) & _MASK), (offset & _MASK, (offset >> 32) & _MASK)


def six_uniforms(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Six uniform numbers (n + 1/2) 2**-21 in (0, 1) from a call's words: ``[..., 6]`` from ``[..., 4]``.

    Each n has 21 bits: the upper ones of a word, or the 11 lower bits of one and 10 of the lower bits of the next.
    """
    low = words & 0x7FF
    spare = low[..., 0::2] << 10 | low[..., 1::2] >> 1
    return (torch.cat([words >> 11, spare], dim=-1).to(dtype) + 0.5) * 2.0**-21


def uniform_open(words: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Words as uniform numbers ((word >> 9) + 1/2) 2**-23 in (0, 1), exact in float32."""
    return ((words >> 9).to(dtype) + 0.5) * 2.0**-23


def uniform_half_open(words: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Words as uniform numbers (word >> 8) 2**-24 in [0, 1), exact in float32."""
    return (words >> 8).to(dtype) * 2.0**-24
