"""Runs the L = 1 half of Table 1(a) of CG-BPEF-VAE, three seeds a row; writes docs/results/table1.json and the table of
docs/cg_bpef_vae.md.

    python docs/reproduce_table1.py DATA_DIR [--runs runs/table1] [--steps 10000] [--seeds 3]

A row is one command, which is printed; finished runs are kept, so the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
BEGIN, END = "<!-- table1 -->\n", "<!-- /table1 -->\n"
# Row, model, preset, term 2 and L of the paper.
ROWS = [
    ("Gauss-VAE", "vae", "table1", 80.2, 101.3),
    ("Cat-VAE, T = 0.5", "cat-vae", "table1-t0.5", 86.5, 105.8),
    ("Cat-VAE, T = 0.8", "cat-vae", "table1-t0.8", 84.2, 101.5),
    ("CG-BPEF-VAE, T = 0.5", "cg-bpef-vae", "table1-t0.5", 77.8, 97.4),
    ("CG-BPEF-VAE, T = 0.8", "cg-bpef-vae", "table1-t0.8", 75.9, 92.8),
]


def command(model: str, preset: str, seed: int, steps: int, data_dir: str, out: Path) -> list[str]:
    options = {
        "--data": "mnist",
        "--binarisation": "none",
        "--data-dir": data_dir,
        "--preset": preset,
        "--steps": steps,
        "--seed": seed,
    }
    options |= {"--test-samples": 100, "--valid-samples": 5, "--log-every": 500, "--out": out}
    return [sys.executable, "-m", "dvae_ext.cli", "train", model, *(str(x) for pair in options.items() for x in pair)]


def collect(runs: Path, seeds: int) -> list[dict]:
    """One entry for each row: the numbers of every seed that is finished."""
    entries = []
    for row, model, preset, term2, total in ROWS:
        reports = [runs / f"{model}-{preset}-{seed}" / "report.json" for seed in range(seeds)]
        found = [json.loads(path.read_text()) for path in reports if path.exists()]
        trained = [report["bounds"].get("relaxed", report["bounds"]["bound"]) for report in found]
        entries.append(
            {
                "row": row,
                "paper": {"term2": term2, "free_energy": total},
                "term2": [-bound["reconstruction"] for bound in trained],
                "free_energy": [-bound["value"] for bound in trained],
                "categorical_free_energy": [-report["bounds"]["bound"]["value"] for report in found],
                "log_likelihood": [report["test"]["log_likelihood"] for report in found],
                "steps": [report["steps"] for report in found],
            }
        )
    return entries


def cell(values: list[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def table(entries: list[dict]) -> str:
    lines = [
        "| | term₂, paper | term₂, ours | 𝓛, paper | 𝓛, ours | 𝓛 of exact latents (T → 0) | 100-sample bound | runs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in entries:
        paper = entry["paper"]
        lines.append(
            f"| {entry['row']} | {paper['term2']} | {cell(entry['term2'])} | {paper['free_energy']} | "
            f"{cell(entry['free_energy'])} | {cell(entry['categorical_free_energy'])} | "
            f"{cell([-value for value in entry['log_likelihood']])} | {len(entry['term2'])} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir")
    parser.add_argument("--runs", type=Path, default=Path("runs/table1"))
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for seed in range(options.seeds):
        for _, model, preset, _, _ in ROWS:
            out = options.runs / f"{model}-{preset}-{seed}"
            if not (out / "report.json").exists():
                line = command(model, preset, seed, options.steps, options.data_dir, out)
                print(shlex.join(line), flush=True)
                subprocess.run(line, check=True)
            entries = collect(options.runs, options.seeds)
            (DOCS / "results" / "table1.json").write_text(json.dumps(entries, indent=2) + "\n")
            page = DOCS / "cg_bpef_vae.md"
            before, rest = page.read_text().split(BEGIN)
            page.write_text(before + BEGIN + table(entries) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
