"""Philox in PyTorch against the vectors published with the Random123 library."""

from __future__ import annotations

import pytest
import torch

from dvae_ext.reference.philox import philox4x32, six_uniforms, split_key, uniform_half_open, uniform_open

ONES = 0xFFFFFFFF
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]) -> None:
    result = philox4x32(tuple(torch.tensor(c) for c in counter), tuple(torch.tensor(k) for k in key))
    assert tuple(result.tolist()) == words


def test_counters_broadcast() -> None:
    rows, columns = torch.arange(3).unsqueeze(1), torch.arange(5)
    zero = torch.tensor(0)
    words = philox4x32((columns, rows, zero, zero), (zero, zero))
    assert words.shape == (3, 5, 4)
    assert words[2, 4].tolist() == philox4x32((columns[4], rows[2, 0], zero, zero), (zero, zero)).tolist()
    assert words.unique().numel() == 60


def test_negative_seeds_and_large_offsets_are_split_into_words() -> None:
    (k0, k1), (c2, c3) = split_key(torch.tensor([-1, 2**32 - 1]), step=3)
    assert (k0.item(), k1.item()) == (ONES, ONES)
    assert (c2.item(), c3.item()) == (2, 1)


def test_ranges_of_the_uniforms() -> None:
    words = torch.tensor([0, ONES])
    assert uniform_half_open(words).tolist() == [0.0, 1 - 2.0**-24]
    assert uniform_open(words).tolist() == [2.0**-24, 1 - 2.0**-24]


def test_six_uniforms_share_no_bits() -> None:
    """Each of a call's bits moves at most one uniform, and 126 of the 128 move one."""
    flips = torch.zeros(128, 4, dtype=torch.int64)
    bit = torch.arange(128)
    flips[bit, bit // 32] = 1 << bit % 32
    numbers = (six_uniforms(flips, torch.float64) * 2**21 - 0.5).long()
    assert (numbers != 0).sum(1).le(1).all()
    assert sorted(numbers.sum(0).tolist()) == [2**21 - 1] * 6
    assert (numbers != 0).sum() == 126
    assert six_uniforms(torch.tensor([0, 0, ONES, ONES]), torch.float32).tolist() == [
        *[2.0**-22] * 2, *[1 - 2.0**-22] * 2, 2.0**-22, 1 - 2.0**-22
    ]  # fmt: skip
