"""Runs benchmarks: checks every result, lets the implementations take turns, relates the times to the floors."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from dvae_ext.benchmarks import ceilings, machine
from dvae_ext.benchmarks.baselines import COMPILED
from dvae_ext.benchmarks.case import Benchmark, Run, Size, WrongResult
from dvae_ext.benchmarks.timing import ratios, spread, take_turns

LONG = 0.25  # seconds: where eager PyTorch takes longer than this, larger sizes are measured without it
Report = Callable[[str], None]


def first_sentence(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0][:200]


def prepare(
    makers: Mapping[str, Callable[[], Run]], check: Callable[[Any], None], skipped: dict[str, str]
) -> dict[str, Run]:
    """Makes every implementation, runs it once and checks the result; what fails is left out with its reason.

    Raises:
        WrongResult: the op itself is wrong.
    """
    runs = {}
    for name, make in makers.items():
        try:
            run = make()
            check(run())
            runs[name] = run
        except Exception as error:
            if name == "ops":
                raise
            wrong = "wrong result: " if isinstance(error, WrongResult) else ""
            skipped[name] = wrong + first_sentence(error)
    return runs


def run_case(
    benchmark: Benchmark,
    size: Size,
    device: torch.device,
    limits: Mapping[str, float],
    compiled: bool = True,
    turn_seconds: float = 4.0,
) -> dict[str, Any]:
    """One row of results; ``compiled``: whether forms under torch.compile take part."""
    torch._dynamo.reset()  # else the ninth size of a function is no longer compiled
    case = benchmark.build(device, **size)
    skipped: dict[str, str] = {}
    makers = {name: make for name, make in case.implementations.items() if compiled or name not in COMPILED}
    runs = prepare(makers, case.check, skipped)
    times = take_turns(runs, device, turn_seconds, (3, 25))
    binding, seconds = ceilings.floor(case.work, limits)
    return {
        "op": benchmark.op,
        "measured": benchmark.measured,
        "size": size,
        "work": case.work,
        "rate": case.rate,
        "floor": {"ceiling": binding, "seconds": seconds},
        "fraction": seconds / statistics.median(times["ops"]),
        "seconds": {name: spread(values) for name, values in times.items()},
        "ratios": ratios(times),
        "skipped": skipped,
    }


def run_scaling(benchmark: Benchmark, axis: str, device: torch.device, threads: int) -> dict[str, Any]:
    """Seconds of the op and of eager PyTorch along one axis; on the CPU with one thread and with ``threads``."""
    counts = sorted({1, threads}) if device.type == "cpu" else [threads]
    labels = {count: f"ops, {count} thread{'s' * (count > 1)}" if device.type == "cpu" else "ops" for count in counts}
    curves: dict[str, list[float | None]] = {name: [] for name in [*labels.values(), "eager"]}
    slow = False
    for value in benchmark.scaling[axis]:
        case = benchmark.build(device, **benchmark.scaled(axis, value))
        names = ["ops"] if slow or "eager" not in case.implementations else ["ops", "eager"]
        runs = prepare({name: case.implementations[name] for name in names}, case.check, {})
        for count in counts:
            torch.set_num_threads(count)
            chosen = runs if count == threads else {"ops": runs["ops"]}
            times = take_turns(chosen, device, 0.1, (3, 9))
            curves[labels[count]].append(statistics.median(times["ops"]))
            if count == threads:
                eager = statistics.median(times["eager"]) if "eager" in times else None
                slow = slow or (eager or 0) > LONG
                curves["eager"].append(eager)
        torch.set_num_threads(threads)
    return {
        "op": benchmark.op,
        "axis": axis,
        "fixed": {k: v for k, v in benchmark.sizes[0].items() if k not in axis.split("=")},
        "values": list(benchmark.scaling[axis]),
        "seconds": curves,
    }


def run_all(
    benchmarks: Sequence[Benchmark],
    device: torch.device,
    quick: bool,
    scaling: bool,
    step: Callable[[str], None],
    report: Callable[[dict[str, Any], dict[str, Any]], None],
    compile_seconds: float = math.inf,
    turn_seconds: float = 4.0,
) -> dict[str, Any]:
    """Everything that a file of results holds.

    Args:
        quick: the first size of each op, without torch.compile, a second each.
        step: told what is measured next, :func:`count_steps` times.
        report: given the results so far and the newest row.
        compile_seconds: rows that begin later than this are measured without torch.compile.
        turn_seconds: how long the implementations of a row take turns.
    """
    started, load = time.perf_counter(), machine.others_load()
    step("ceilings")
    result: dict[str, Any] = {
        "facts": machine.facts(device),
        "quick": quick,
        "load": [load],
        "ceilings": ceilings.measure(device, 1.0 if quick else 3.0),
        "cases": [],
        "scaling": [],
    }
    for benchmark in benchmarks:
        for size in benchmark.table_sizes(device)[: 1 if quick else None]:
            step(benchmark.op)
            compiled = not quick and time.perf_counter() - started < compile_seconds
            row = run_case(benchmark, size, device, result["ceilings"], compiled, 1.0 if quick else turn_seconds)
            if not (quick or compiled):
                row["skipped"]["torch.compile"] = f"this row began after the {compile_seconds:.0f} s for compiling"
            result["cases"].append(row)
            report(result, row)
    for benchmark in benchmarks if scaling else ():
        for axis in benchmark.scaling:
            step(f"{benchmark.op} against {axis}")
            result["scaling"].append(run_scaling(benchmark, axis, device, torch.get_num_threads()))
    result["load"].append(machine.others_load())
    result["busy"] = max(result["load"]) > machine.BUSY
    result["seconds"] = time.perf_counter() - started
    return result


def count_steps(benchmarks: Sequence[Benchmark], device: torch.device, quick: bool, scaling: bool) -> int:
    cases = sum(1 if quick else len(benchmark.table_sizes(device)) for benchmark in benchmarks)
    return 1 + cases + (sum(len(benchmark.scaling) for benchmark in benchmarks) if scaling else 0)
