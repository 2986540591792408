"""Timing in turns, so that a change of the machine's speed reaches every implementation."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping

import torch

from dvae_ext.benchmarks.case import Run

SHORTEST_TURN = 2e-3  # seconds; a shorter run is repeated until a turn takes as long


def seconds_of(run: Run, repeats: int, device: torch.device) -> float:
    """Seconds of one run, averaged over ``repeats``: by CUDA events on a GPU, by the clock elsewhere."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - begin) / repeats


def take_turns(
    runs: Mapping[str, Run], device: torch.device, seconds: float, rounds: tuple[int, int] = (3, 25)
) -> dict[str, list[float]]:
    """Seconds of each in every round, A B C A B C, for about ``seconds`` in all.

    Each has run once before, when its result was checked; a second call here tells how often to repeat it in a turn.
    ``rounds`` is the least and the largest number of rounds.
    """
    repeats, collecting = {}, gc.isenabled()
    gc.disable()
    try:
        for name, run in runs.items():
            once = seconds_of(run, 1, device)
            repeats[name] = max(1, min(1000, round(SHORTEST_TURN / max(once, 1e-9))))
        times: dict[str, list[float]] = {name: [] for name in runs}
        end = time.perf_counter() + seconds
        for done in range(rounds[1]):
            if done >= rounds[0] and time.perf_counter() >= end:
                break
            for name, run in runs.items():
                times[name].append(seconds_of(run, repeats[name], device))
    finally:
        if collecting:
            gc.enable()
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles, the fastest, and how many there are."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": median, "low": low, "high": high, "min": min(values), "rounds": len(values)}


def ratios(times: Mapping[str, list[float]], to: str = "ops") -> dict[str, dict[str, float]]:
    """Each other implementation's time over that of ``to``, round by round."""
    return {
        name: spread([other / own for other, own in zip(values, times[to], strict=True)])
        for name, values in times.items()
        if name != to
    }
