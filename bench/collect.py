"""Measures the ops against their baselines and writes one JSON file for this machine.

    python -m bench.collect [OUT.json] [--rounds N]

Within a table the implementations take turns, A B C A B C, and each figure is the median over the rounds with its
range, so that a change of the machine's speed reaches all of them. The file says what machine, versions and load
they belong to; ``tools/readme_table.py`` makes the README's table of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from bench import bench_overlap_exponential, bench_rbm_gibbs, bench_rbm_log_z_exact
from dvae_ext import ops
from dvae_ext.info import collect as facts

THREADS = 2
BUSY = 0.5  # load that others cause, above which a run is marked

Runs = Mapping[str, Callable[[], None]]


def take_turns(runs: Runs, rounds: int, repeats: int = 1) -> dict[str, dict[str, float]]:
    """Median, fastest and slowest seconds of each, interleaved; the first two calls of each only warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            times[name].append((time.perf_counter() - start) / repeats)
    return {name: {"median": statistics.median(t), "min": min(t), "max": max(t)} for name, t in times.items()}


def copy_bandwidth(size: int = 1 << 25) -> float:
    """Bytes read and written per second by a large copy."""
    source, target = torch.ones(size), torch.empty(size)
    return 8 * size / take_turns({"copy": lambda: target.copy_(source)}, 7)["copy"]["median"]


def matrix_rate(size: int = 1024) -> float:
    """Floating-point operations per second of a float32 product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / take_turns({"product": lambda: a @ b}, 7)["product"]["median"]


def overlap_exponential(rounds: int, bandwidth: float) -> list[dict[str, Any]]:
    rows = []
    for size in bench_overlap_exponential.SIZES:
        runs = {name: make(size) for name, make in bench_overlap_exponential.IMPLEMENTATIONS.items()}
        floor = 4 * bench_overlap_exponential.TENSORS_MOVED * size / bandwidth
        rows.append({"elements": size, "floor": floor, "seconds": take_turns(runs, rounds, max(1, 100_000 // size))})
    return rows


def rbm_gibbs(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for shape in bench_rbm_gibbs.SHAPES:
        runs = {name: make(*shape) for name, make in bench_rbm_gibbs.IMPLEMENTATIONS.items()}
        updates = bench_rbm_gibbs.CHAINS * bench_rbm_gibbs.SWEEPS * sum(shape)
        floor = bench_rbm_gibbs.floor_seconds(*shape, gigahertz=2.4)
        rows.append({"shape": shape, "updates": updates, "floor": floor, "seconds": take_turns(runs, rounds)})
    return rows


def rbm_log_z_exact(rounds: int) -> dict[str, dict[str, float]]:
    arguments = [x.requires_grad_() for x in bench_rbm_log_z_exact.model(20, 200)]
    return take_turns(
        {
            "value": lambda: ops.rbm_log_z_exact(*(x.detach() for x in arguments)),
            "value and gradient": lambda: ops.rbm_log_z_exact(*arguments).backward(),
        },
        rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    name = f"{platform.machine()}-{facts()['cpu kernels'].split(',')[0]}-{THREADS}threads.json"
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent / "results" / name)
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which all implementations take a turn")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    load = os.getloadavg()[0]
    bandwidth, rate = copy_bandwidth(), matrix_rate()
    print(f"copy {bandwidth / 1e9:.1f} GB/s, float32 product {rate / 1e9:.0f} GFLOP/s, load {load:.1f}", flush=True)
    result = {
        "facts": {**facts(), "threads": THREADS, "date": time.strftime("%Y-%m-%d")},
        "load": load,
        "busy": load > BUSY,
        "rounds": options.rounds,
        "copy_bandwidth": bandwidth,
        "matrix_rate": rate,
        "overlap_exponential_icdf": overlap_exponential(options.rounds, bandwidth),
        "rbm_gibbs": rbm_gibbs(options.rounds),
        "rbm_log_z_exact": rbm_log_z_exact(options.rounds),
    }
    temporary = options.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(options.out)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
