"""What a benchmark of one op is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Size = dict[str, Any]
Run = Callable[[], Any]


class WrongResult(Exception):
    """An implementation's result is not what the oracle says; a sentence says by how much."""


@dataclass
class Case:
    """One op at one size.

    Args:
        implementations: name -> maker of a function that runs it once and returns its result; "ops" comes first.
            Making may compile or allocate and is not timed.
        check: raises :class:`WrongResult` unless the result of a first run is right.
        work: what cannot be avoided, as amounts of the ceilings of ``ceilings.py``.
        rate: a unit and how many of it one run makes, where the field counts in such units.
    """

    implementations: dict[str, Callable[[], Run]]
    check: Callable[[Any], None]
    work: dict[str, float]
    rate: tuple[str, float] | None = None


@dataclass(frozen=True)
class Benchmark:
    """The cases of one op.

    Args:
        op: its name in :mod:`dvae_ext.ops`, or "training_step".
        measured: what one run is, for the head of a table.
        build: makes the case of a size: ``build(device, **size)``.
        sizes: those of the table; the first is the one that stands for the op.
        gpu_sizes: those of the table on a GPU.
        scaling: axis -> values that it takes while the rest of the first size stays; an axis may name two sides, as in
            "visible=hidden".
    """

    op: str
    measured: str
    build: Callable[..., Case]
    sizes: Sequence[Size]
    gpu_sizes: Sequence[Size]
    scaling: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def table_sizes(self, device: torch.device) -> Sequence[Size]:
        return self.gpu_sizes if device.type == "cuda" else self.sizes

    def scaled(self, axis: str, value: int) -> Size:
        return {**self.sizes[0], **dict.fromkeys(axis.split("="), value)}


def describe(size: Size) -> str:
    """A size in words: ``1,048,576 elements`` or ``200 visible, 200 hidden, bfloat16``."""
    words = []
    for name, value in size.items():
        if isinstance(value, bool):
            words.append(f"{'with' if value else 'without'} {name}")
        elif isinstance(value, int):
            words.append(f"{value:,} {name}")
        else:
            words.append(str(value))
    return ", ".join(words)


def tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def expect_close(result: Any, expected: Any, what: str) -> None:
    """Every tensor of a result within the rounding of its dtype of the float64 ``expected``."""
    for index, (got, right) in enumerate(zip(tensors(result), tensors(expected), strict=True)):
        tolerance = {torch.float32: 1e-4, torch.float64: 1e-10}.get(got.dtype, 4e-2)
        scale = right.abs().max().item() + 1
        error = (got.detach().double() - right).abs().max().item()
        if not error <= tolerance * scale:
            raise WrongResult(
                f"{what}: output {index} is off by {error:.2g}, expected at most {tolerance:g} of {scale:.3g}"
            )
