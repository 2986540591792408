"""The forms in which a user would run plain PyTorch: eager, compiled, captured in a CUDA graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dvae_ext.benchmarks.case import Run, tensors
from dvae_ext.benchmarks.machine import last_level_cache

COMPILED = ("torch.compile", "max-autotune", "reduce-overhead")
Inputs = tuple[Any, ...]


def compiled_forms(function: Callable[..., Any], device: torch.device) -> dict[str, Callable[[], Callable[..., Any]]]:
    """``torch.compile`` of a function in the modes that serve a device, made when asked for."""
    modes = {"torch.compile": "default", "max-autotune": "max-autotune-no-cudagraphs"}
    if device.type == "cuda":
        modes["reduce-overhead"] = "reduce-overhead"
    return {name: partial(torch.compile, function, mode=mode, dynamic=False) for name, mode in modes.items()}


def make_and(make: Callable[[], Any], runner: Callable[..., Run], *arguments: Any) -> Run:
    """``runner`` of what ``make`` makes."""
    return runner(make(), *arguments)


def rotating(make: Callable[[int], Inputs], device: torch.device) -> list[Inputs]:
    """Sets of inputs, made from a seed each, that together are twice the size of the last-level cache."""
    first = make(0)
    size = sum(x.numel() * x.element_size() for x in first if isinstance(x, Tensor))
    count = min(512, -(-2 * last_level_cache(device) // size))
    return [first, *(make(seed) for seed in range(1, count))]


def forward_backward(function: Callable[..., Any], sets: Sequence[tuple[Inputs, Inputs]]) -> Run:
    """One forward and backward pass through the next of ``sets``, (inputs, gradients of the outputs).

    Returns the outputs and the gradients of every input that requires one.
    """
    turn = itertools.cycle(sets)

    def run() -> list[Tensor]:
        inputs, grads = next(turn)
        outputs = tensors(function(*inputs))
        wanted = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        return [*outputs, *torch.autograd.grad(outputs, wanted, grads)]

    return run


def graphed(run: Run) -> Run:
    """``run`` captured in a CUDA graph: a call replays it and returns the tensors of the capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def differentiable(
    op: Callable[..., Any],
    reference: Callable[..., Any],
    sets: Sequence[tuple[Inputs, Inputs]],
    device: torch.device,
) -> dict[str, Callable[[], Run]]:
    """The op and every form of its reference, forward and backward."""
    forms: dict[str, Callable[[], Run]] = {
        "ops": lambda: forward_backward(op, sets),
        "eager": lambda: forward_backward(reference, sets),
    }
    for name, make in compiled_forms(reference, device).items():
        forms[name] = partial(make_and, make, forward_backward, sets)
    if device.type == "cuda":
        # A graph has fixed addresses: one for each set of inputs, replayed in turn.
        def in_graphs() -> Run:
            graphs = [graphed(forward_backward(reference, [one])) for one in sets[:8]]
            turn = itertools.cycle(graphs)
            return lambda: next(turn)()

        forms["CUDA graph"] = in_graphs
    return forms
