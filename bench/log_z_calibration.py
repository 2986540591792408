"""Whether log Z's error bar can be trusted, and what it costs beside annealed importance sampling.

    python -m bench.log_z_calibration [--seeds 200] [--sweeps 2048] [--ais-runs 20] [--out bench/results/log_z.json]

For each RBM of known log Z: how often the truth lies within two standard errors, and root-mean-square errors and CPU
seconds (one thread, so that they mean the same on a busy machine) of tempering and of AIS with the same Gibbs kernel.
The JSON is written after every model; the table at the end is that of docs/log_z.md.
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
from python_tests.rbm.known_models import MODELS, model

AIS = {"chains": 512, "num_betas": 500}


def timed(*args: Any, **options: Any) -> tuple[LogZEstimate, float]:
    started = time.process_time()
    return log_z(*args, **options), time.process_time() - started


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(sum(x * x for x in values) / len(values))


def judge(name: str, seeds: int, sweeps: int, ais_runs: int) -> dict[str, Any]:
    rbm = model(name)
    exact = log_z(rbm, "exact").value
    runs = [timed(rbm, sweeps=sweeps, seed=seed) for seed in range(seeds)]
    estimates = [estimate for estimate, _ in runs]
    errors = [estimate.value - exact for estimate in estimates]
    silent = [(e, x) for e, x in zip(estimates, errors, strict=True) if not e.warnings]
    inside = sum(abs(x) <= 2 * e.std_error for e, x in silent)
    annealed = [timed(rbm, "ais", seed=seed, **AIS) for seed in range(ais_runs)]
    ais_errors = [estimate.value - exact for estimate, _ in annealed]
    seconds = sum(s for _, s in runs) / seeds
    ais_seconds = sum(s for _, s in annealed) / ais_runs
    return {
        "model": name,
        "exact": exact,
        "seeds": seeds,
        "sweeps": sweeps,
        "inside": inside,
        "without_warning": len(silent),
        "warnings": Counter(warning.split(",")[0][:40] for e in estimates for warning in e.warnings),
        "rmse": root_mean_square(errors),
        "mean_std_error": sum(e.std_error for e in estimates) / seeds,
        "seconds": seconds,
        "levels": len(estimates[0].betas),
        "references": Counter(e.reference for e in estimates),
        "barrier": sum(e.barrier for e in estimates) / seeds,
        "round_trips": sum(e.round_trips for e in estimates) / seeds,
        "ais": AIS,
        "ais_rmse": root_mean_square(ais_errors),
        "ais_seconds": ais_seconds,
        "advantage": (root_mean_square(ais_errors) ** 2 * ais_seconds) / (root_mean_square(errors) ** 2 * seconds),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| RBM | log Z | within 2 standard errors | warned | RMSE (mean standard error) | CPU s | AIS: RMSE, CPU s "
        "| RMSE²·s, AIS over tempering |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = 100 * row["inside"] / max(1, row["without_warning"])
        lines.append(
            f"| {row['model']} | {row['exact']:.2f} | {row['inside']} of {row['without_warning']} ({share:.1f} %) "
            f"| {row['seeds'] - row['without_warning']} | {row['rmse']:.4f} ({row['mean_std_error']:.4f}) "
            f"| {row['seconds']:.2f} | {row['ais_rmse']:.4f}, {row['ais_seconds']:.2f} | {row['advantage']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--sweeps", type=int, default=2048)
    parser.add_argument("--ais-runs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("bench/results/log_z.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in MODELS:
        rows.append(judge(name, options.seeds, options.sweeps, options.ais_runs))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
