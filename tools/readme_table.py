"""Writes the README's measured section from the files under bench/results, so that the two cannot disagree.

python tools/readme_table.py          rewrite the section
python tools/readme_table.py --check  fail if it differs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"
RESULTS = ROOT / "bench" / "results"


def op_tables(result: dict) -> list[str]:
    facts = result["facts"]
    load = f"load {result['load']:.1f} from other programs: read the ratios" if result["busy"] else "otherwise idle"
    lines = [
        f"{facts['threads']} threads, {facts['cpu kernels']}, torch {facts['torch']}, {load}. Medians of "
        f"{result['rounds']} rounds in which the implementations take turns; copy bandwidth "
        f"{result['copy_bandwidth'] / 1e9:.1f} GB/s, float32 product {result['matrix_rate'] / 1e9:.0f} GFLOP/s.",
        "",
        "| `overlap_exponential_icdf`, forward + backward | ops | eager | torch.compile | memory floor ÷ ops |",
        "|---|---|---|---|---|",
    ]
    for row in result["overlap_exponential_icdf"]:
        ours, eager, compiled = (row["seconds"][name]["median"] for name in ("ops", "eager", "torch.compile"))
        lines.append(
            f"| {row['elements']:,} elements | {1e3 * ours:.2f} ms | {eager / ours:.1f}× | {compiled / ours:.1f}× "
            f"| {row['floor'] / ours:.0%} |"
        )
    lines += [
        "",
        "| `rbm_gibbs_`, 1000 chains, 40 sweeps: million unit updates per second | ops | instruction floor ÷ ops "
        "| NumPy loop | eager `rand < p` | eager `bernoulli` | torch.compile |",
        "|---|---|---|---|---|---|---|",
    ]
    names = ("NumPy", "eager rand < p", "eager bernoulli", "torch.compile bernoulli")
    for row in result["rbm_gibbs"]:
        rate = {name: row["updates"] / s["median"] / 1e6 for name, s in row["seconds"].items()}
        best = row["updates"] / row["seconds"]["ops.rbm_gibbs_"]["min"] / 1e6
        others = " | ".join(f"{rate[name]:.0f}" for name in names)
        lines.append(
            f"| {row['shape'][0]} × {row['shape'][1]} | {rate['ops.rbm_gibbs_']:.0f} (best round {best:.0f}) "
            f"| {row['floor'] / row['seconds']['ops.rbm_gibbs_']['median']:.0%} | {others} |"
        )
    value, both = (result["rbm_log_z_exact"][name]["median"] for name in ("value", "value and gradient"))
    lines += ["", f"`rbm_log_z_exact`, 2²⁰ × 200, float64: {value:.3f} s, with its gradient {both:.2f} s."]
    return lines


def section() -> str:
    lines = ["## Measured", ""]
    for path in sorted(RESULTS.glob("*threads.json")):
        lines += op_tables(json.loads(path.read_text()))
    training = json.loads((RESULTS / "training.json").read_text())
    lines += [
        "",
        "### Static MNIST, 1-nonlinear, 20,000 steps",
        "![learning curve](docs/images/mnist_static_curve.png)",
        "![samples](docs/images/mnist_static_samples.png)",
        "",
        f"Test log-likelihood **{training['value']:.2f} ± {training['std_error']:.2f} nats** "
        f"({training['samples']:,} importance samples, {training['images']:,} images; log Z {training['log_z']:.3f} ± "
        f"{training['log_z_std_error']:.3f} by parallel tempering in {training['log_z_seconds']:.1f} s). The paper has "
        "-85.41 after 1,000,000 steps and 4,000 samples; this is 2 % of its training.",
        f"Training took {training['minutes']:.1f} minutes on two cores, validation included. A step takes "
        f"{training['native_ms']:.0f} ms with these ops and {training['reference_ms']:.0f} ms with the plain PyTorch "
        f"reference in their place, {training['reference_ms'] / training['native_ms']:.1f} times as much (medians of "
        f"interleaved runs of 20 steps): about {training['reference_ms'] * 20 / 60:.0f} minutes for the same run, "
        "extrapolated, not run.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    path = ROOT / "README.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    wanted = before + BEGIN + section() + END + after
    if "--check" in sys.argv[1:]:
        if wanted != text:
            sys.exit("README.md's measured section differs from bench/results: run python tools/readme_table.py")
    else:
        path.write_text(wanted)


if __name__ == "__main__":
    main()
