"""Whether the error bar of log Z can be trusted, and what tempering costs beside annealed importance sampling.

    python -m bench.log_z_calibration [--seeds 100] [--sweeps 2048] [--ais-runs 3] [--out bench/results/log_z.json]

For each RBM of known log Z: how often the truth lies within two standard errors, how far it ever lay outside, how often
a warning was raised for nothing, and root-mean-square errors and CPU seconds (one thread, so that they mean the same on
a busy machine) of tempering and of AIS with the same Gibbs kernel. The JSON is written after every model, and a model
that it holds is not run again; the table at the end is that of docs/log_z.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from dvae_ext.rbm import LogZEstimate, log_z
from python_tests.rbm.known_models import HARD_MODELS, MODELS, exact_log_z, model

AIS = {"chains": 512, "num_betas": 500}
SEED = 7000  # of the first run; the method was chosen on others


def timed(*args: Any, **options: Any) -> tuple[LogZEstimate, float]:
    started = time.process_time()
    return log_z(*args, **options), time.process_time() - started


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(sum(x * x for x in values) / len(values))


def judge(name: str, seeds: int, sweeps: int, ais_runs: int) -> dict[str, Any]:
    rbm = model(name)
    exact = exact_log_z(rbm)
    runs = [timed(rbm, sweeps=sweeps, seed=SEED + seed) for seed in range(seeds)]
    estimates = [estimate for estimate, _ in runs]
    errors = [estimate.value - exact for estimate in estimates]
    scores = [error / estimate.std_error for error, estimate in zip(errors, estimates, strict=True)]
    silent = [score for score, estimate in zip(scores, estimates, strict=True) if not estimate.warnings]
    warned = [score for score, estimate in zip(scores, estimates, strict=True) if estimate.warnings]
    annealed = [timed(rbm, "ais", seed=seed, **AIS) for seed in range(ais_runs)]
    ais_errors = [estimate.value - exact for estimate, _ in annealed]
    seconds = sum(s for _, s in runs) / seeds
    ais_seconds = sum(s for _, s in annealed) / ais_runs
    return {
        "model": name,
        "exact": exact,
        "seeds": seeds,
        "sweeps": sweeps,
        "without_warning": len(silent),
        "inside": sum(abs(score) <= 2 for score in silent),
        "largest_silent_score": max(map(abs, silent), default=math.nan),
        "root_mean_square_score": root_mean_square(silent) if silent else math.nan,
        "warned": len(warned),
        "warned_but_right": sum(abs(score) <= 2 for score in warned),
        "warnings": Counter(warning.split(":")[0][:60] for e in estimates for warning in e.warnings),
        "rmse": root_mean_square(errors),
        "mean_std_error": sum(e.std_error for e in estimates) / seeds,
        "seconds": seconds,
        "levels": len(estimates[0].betas),
        "references": Counter(e.reference for e in estimates),
        "barrier": sum(e.barrier for e in estimates) / seeds,
        "round_trips": sum(e.round_trips for e in estimates) / seeds,
        "most_stuck": max(e.stuck for e in estimates),
        "ais": AIS,
        "ais_rmse": root_mean_square(ais_errors),
        "ais_warned": sum(bool(estimate.warnings) for estimate, _ in annealed),
        "ais_seconds": ais_seconds,
        "advantage": (root_mean_square(ais_errors) ** 2 * ais_seconds) / (root_mean_square(errors) ** 2 * seconds),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| RBM | log Z | within 2 standard errors | farthest | warned (of them right) | RMSE (mean standard error) "
        "| CPU s | AIS: RMSE, CPU s | RMSE²·s, AIS over tempering |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['exact']:.2f} | {row['inside']} of {row['without_warning']} "
            f"| {row['largest_silent_score']:.1f} | {row['warned']} ({row['warned_but_right']}) "
            f"| {row['rmse']:.2g} ({row['mean_std_error']:.2g}) "
            f"| {row['seconds']:.2f} | {row['ais_rmse']:.2g}, {row['ais_seconds']:.2f} | {row['advantage']:.2g} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--sweeps", type=int, default=2048)
    parser.add_argument("--ais-runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/results/log_z.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    asked = {"seeds": options.seeds, "sweeps": options.sweeps}
    rows: list[dict[str, Any]] = []
    if options.out.exists():
        rows = [row for row in json.loads(options.out.read_text(encoding="utf-8")) if asked.items() <= row.items()]
    done = {row["model"]: row for row in rows}
    rows = []
    for name in (*MODELS, *HARD_MODELS):
        rows.append(done.get(name) or judge(name, options.seeds, options.sweeps, options.ais_runs))
        partial = options.out.with_suffix(".partial")
        partial.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(options.out)
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
