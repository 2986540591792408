"""The command ``dvae-ext bench``. It needs torch and numpy alone."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAM = "dvae-ext bench"
DESCRIPTION = """\
Measure the ops on this machine against what one would write instead: plain PyTorch, the same under
torch.compile, NumPy where that is a usual choice, CUDA graphs on a GPU.

Every result is checked before it is timed. The implementations take turns, A B A B; a ratio is the median over the
rounds, with its quartiles. The floor is the time of the work that no implementation can avoid at the rates of this
machine, which are measured first. A run beside other programs is marked.
"""
EPILOG = """\
examples:
  dvae-ext bench --quick                  every op at one size, without torch.compile: about a minute
  dvae-ext bench rbm_gibbs_               one op at all its sizes
  dvae-ext bench rbm_gibbs_ --scaling     and its cost against chains, units and sweeps, with one thread and with all
  dvae-ext bench --device cuda --out mine.json

ops: {ops}
"""


class Mistake(ValueError):
    """What the user typed cannot be done; a sentence says why."""


class Progress:
    """A bar on a terminal, a line for each step elsewhere."""

    WIDTH = 24

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.terminal = sys.stderr.isatty()

    def step(self, what: str) -> None:
        self.clear()
        full = self.WIDTH * self.done // self.total
        self.done += 1
        bar = f"[{'#' * full}{'.' * (self.WIDTH - full)}] " if self.terminal else ""
        print(f"{bar}{self.done}/{self.total} {what}", end="" if self.terminal else "\n", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def measure(
    names: Sequence[str], device_name: str = "cpu", quick: bool = False, scaling: bool = False, **limits: float
) -> dict[str, Any]:
    """Measures the named ops, or all, prints them and returns what a file of results holds.

    ``limits``: ``compile_seconds`` and ``turn_seconds`` of :func:`dvae_ext.benchmarks.runner.run_all`.
    """
    import torch

    from dvae_ext.benchmarks import report, runner
    from dvae_ext.benchmarks.catalogue import BENCHMARKS

    device = torch.device(device_name)
    chosen = [BENCHMARKS[name] for name in names or BENCHMARKS]
    progress = Progress(runner.count_steps(chosen, device, quick, scaling))

    def show(result: dict[str, Any], row: dict[str, Any]) -> None:
        progress.clear()
        if len(result["cases"]) == 1:
            print("\n".join(["ceilings of this machine", *report.ceiling_lines(result["ceilings"]), ""]))
        print("\n".join([*report.row_lines(row), ""]), flush=True)

    result = runner.run_all(chosen, device, quick, scaling, progress.step, show, **limits)
    progress.clear()
    print("\n".join(report.summary(result["cases"])))
    print(f"\n{report.conditions(result)}\nmeasured in {result['seconds']:.0f} s")
    return result


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        Mistake: an argument names something that does not exist.
    """
    from dvae_ext.benchmarks.catalogue import BENCHMARKS

    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG.format(ops=", ".join(BENCHMARKS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ops", nargs="*", metavar="OP", help="which ops; all of them by default")
    parser.add_argument("--quick", action="store_true", help="one size of each op, without torch.compile")
    parser.add_argument("--scaling", action="store_true", help="measure the cost against size as well")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads of every implementation (default: usable processors)")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    options = parser.parse_args(argv)
    check(options, list(BENCHMARKS))
    import torch

    from dvae_ext.benchmarks.report import write_json

    torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
    result = measure(options.ops, options.device, options.quick, options.scaling)
    if options.out is not None:
        write_json(options.out, result)
        print(f"written to {options.out}")


def check(options: argparse.Namespace, known: Sequence[str]) -> None:
    """Raises Mistake with a sentence for whoever typed the options."""
    import torch

    from dvae_ext import _native

    for name in options.ops:
        if name not in known:
            raise Mistake(f"unknown op {name!r}; known: {', '.join(known)}")
    if options.threads is not None and options.threads < 1:
        raise Mistake(f"--threads must be at least 1, got {options.threads}")
    if options.out is not None and not options.out.resolve().parent.is_dir():
        raise Mistake(f"--out: the folder {options.out.resolve().parent} does not exist")
    if options.out is not None and options.out.is_dir():  # an empty --out is the working directory
        raise Mistake(f"--out is the folder {options.out.resolve()}, expected a file")
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise Mistake("--device cuda: this machine has no CUDA device that torch can use")
        if _native.cuda_error is not None:
            raise Mistake(f"--device cuda: {_native.explain_missing_cuda()}")
