"""What the stages of bench/gpu.py run in processes of their own: ``python -m bench.gpu_checks draws|small|bench``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvae_ext import ops, rng
from dvae_ext.benchmarks import machine
from dvae_ext.benchmarks.case import Size
from dvae_ext.benchmarks.catalogue import BENCHMARKS
from dvae_ext.benchmarks.command import measure
from dvae_ext.benchmarks.rbm_gibbs import parameters
from dvae_ext.benchmarks.rbm_temper import ensemble
from dvae_ext.benchmarks.report import write_json

RESULTS = Path(__file__).parent / "results"
COMPILE_SECONDS = 60.0
SMALL: Size = {"elements": 1000, "visible": 9, "hidden": 13, "chains": 33, "sweeps": 2, "levels": 5, "ladders": 3}
SMALL |= {"batch": 17, "dims": 5, "samples": 2}
# Goals on a GPU: (op, size that a row must have, what is judged, least or largest value, direction)
GIBBS_GOALS = {(64, 1000): 300, (200, 1000): 300, (784, 1000): 300, (64, 10_000): 1200, (200, 10_000): 700}
GIBBS_GOALS[784, 10_000] = 350
COPY_GOAL, STEP_GOAL = 0.85, 0.5e-3


def gibbs_states(device: torch.device, shape: tuple[int, int], sweeps: int) -> Tensor:
    weight, a, b = (x.to(device) for x in parameters(*shape))
    visible, hidden = weight.new_zeros(1000, shape[0]), weight.new_zeros(1000, shape[1])
    ops.rbm_gibbs_(visible, hidden, weight, a, b, rng.key(3, device), sweeps)
    return torch.cat([visible, hidden], 1)


def tempered_states(device: torch.device) -> Tensor:
    state = ensemble(64, 64, 8, 16, device)
    state.run(1)
    return state.visible.flatten(1)


def coarse_samples(device: torch.device) -> Tensor:
    c = torch.randn(50, 8, 5, generator=torch.Generator().manual_seed(0)).to(device)
    return ops.coarse_grain_sample(c, rng.key(4, device), 0.5, 101, 4).flatten(0, 1)


# What is drawn, and the largest share of rows that may hold a tie: a draw within a rounding error of its probability.
DRAWS: dict[str, tuple[Callable[[torch.device], Tensor], float]] = {
    **{
        f"rbm_gibbs_ {n} × {m}, 1 sweep": (lambda d, s=(n, m): gibbs_states(d, s, 1), 0.01)
        for n, m in ((64, 64), (784, 500))
    },
    "rbm_gibbs_ 200 × 200, 10 sweeps": (lambda d: gibbs_states(d, (200, 200), 10), 0.05),
    "rbm_temper_ 64 × 64, 8 levels": (tempered_states, 0.05),
    "coarse_grain_sample": (coarse_samples, 0.0),
}


def rows_that_differ(own: Tensor, other: Tensor) -> float:
    """Share of the rows in which two results differ by more than rounding."""
    return ((own.cpu() - other.cpu()).abs() > 1e-3).any(1).double().mean().item()


def compare_draws(one: torch.device, other: torch.device, between: Callable[[], Any] = lambda: None) -> list[str]:
    """A line for each kind of draws; ``between`` is called before the second device has its turn.

    Raises:
        SystemExit: more rows differ than ties explain.
    """
    first = {name: draw(one) for name, (draw, _) in DRAWS.items()}
    between()
    lines = []
    for name, (draw, allowed) in DRAWS.items():
        share = rows_that_differ(first[name], draw(other))
        if share > allowed:
            raise SystemExit(
                f"{name}: {share:.1%} of the rows differ between {one} and {other}, expected {allowed:.0%}"
            )
        lines.append(f"{name}: {share:.2%} of the rows differ (ties), {allowed:.0%} allowed")
    return lines


def small(device: torch.device) -> None:
    """Every op once at small shapes that divide by nothing, checked."""
    for name, benchmark in BENCHMARKS.items():
        size = {axis: SMALL.get(axis, value) for axis, value in benchmark.sizes[0].items()}
        case = benchmark.build(device, **size)
        # Without graphs: a sanitizer sees the kernels of plain launches best.
        case.check(case.implementations.get("ops without graph", case.implementations["ops"])()())
        print(name, flush=True)


def goals(cases: list[dict[str, Any]]) -> list[str]:
    """What was aimed at on a GPU, and what came."""
    lines = []

    def judge(what: str, value: float, goal: float, met: bool, unit: str) -> None:
        lines.append(f"{what}: {value:.3g} {unit}, goal {goal:g}: {'met' if met else 'missed'}")

    for row in cases:
        size, seconds = row["size"], row["seconds"]["ops"]["median"]
        if row["op"] == "overlap_exponential_icdf" and size["elements"] == 1 << 26:
            what = f"{row['op']}, 64 M elements, {size.get('dtype', 'float32')}, share of the copy bandwidth"
            judge(what, row["fraction"], COPY_GOAL, row["fraction"] >= COPY_GOAL, "")
        elif row["op"] == "rbm_gibbs_" and (size["visible"], size["chains"]) in GIBBS_GOALS:
            goal = GIBBS_GOALS[size["visible"], size["chains"]]
            rate = row["rate"][1] / seconds / 1e3
            what = f"rbm_gibbs_, {size['visible']} × {size['hidden']}, {size['chains']:,} chains"
            judge(what, rate, goal, rate >= goal, "unit updates/ns")
        elif row["op"] == "training_step":
            judge("training step in a CUDA graph", 1e3 * seconds, 1e3 * STEP_GOAL, seconds < STEP_GOAL, "ms")
    return lines


def bench(out: Path) -> None:
    result = measure([], "cuda", scaling=True, compile_seconds=COMPILE_SECONDS, turn_seconds=0.5)
    result["goals"] = goals(result["cases"])
    print("\n".join(result["goals"]))
    write_json(out, result)
    print(f"written to {out}")


def add_stages(out: Path, outcomes: Path) -> None:
    """Puts the outcomes of the stages into the file of results."""
    if not out.exists():
        return
    result = json.loads(out.read_text())
    result["stages"] = [f"{name}: {outcome}" for name, outcome in json.loads(outcomes.read_text()).items()]
    write_json(out, result)


def main() -> None:
    what, *rest = sys.argv[1:]
    device = torch.device("cuda")
    out = RESULTS / machine.file_name(device)
    started = time.perf_counter()
    if what == "draws":
        print("\n".join(compare_draws(torch.device("cpu"), device)))
    elif what == "small":
        small(device)
    elif what == "bench":
        bench(out)
    elif what == "stages":
        add_stages(out, Path(rest[0]))
    else:
        sys.exit(f"unknown check {what!r}")
    torch.cuda.synchronize()
    print(f"{time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
