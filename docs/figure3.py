"""The toy check of CG-BPEF-VAE Figure 3: KL of category distributions against KL of the relaxed z.

    python docs/figure3.py [--experiments 50] [--samples 20000]

A category distribution α on 100 points of [-1, 1] is drawn from a flat Dirichlet (high entropy) or from one with shape
0.5 (low entropy). At each temperature, z = Σ_r y_r ζ_r with y ~ Concrete(α, T) and z with y ~ Concrete(uniform, T) are
sampled and put into 100 intervals: their KL is the divergence that eq. 4, KL(α : uniform), stands for in training.
Writes docs/figures/figure3.png and docs/results/figure3.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).resolve().parent
POINTS = 100
GRID = np.linspace(-1, 1, POINTS, dtype=np.float32)
TEMPERATURES = [0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0, 1.3, 1.6]
SHAPES = {"flat": 1.0, "low entropy": 0.5}


def relaxed(log_alpha: np.ndarray, gumbel: np.ndarray, temperature: float) -> np.ndarray:
    """z of each row of Gumbel noise."""
    logits = (log_alpha + gumbel) / np.float32(temperature)
    y = np.exp(logits - logits.max(1, keepdims=True))
    return (y @ GRID) / y.sum(1)


def histogram(z: np.ndarray) -> np.ndarray:
    """Probabilities of the intervals; half a count in each keeps the divergence finite."""
    counts, _ = np.histogram(z, POINTS, (-1, 1))
    return (counts + 0.5) / (len(z) + 0.5 * POINTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=50)
    parser.add_argument("--samples", type=int, default=20_000)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    results: dict[str, dict[str, list[float]]] = {}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharex=True)
    for axis, (name, shape) in zip(axes, SHAPES.items(), strict=True):
        category, of_z = [], np.empty((options.experiments, len(TEMPERATURES)))
        for experiment in range(options.experiments):
            alpha = np.maximum(random.dirichlet(np.full(POINTS, shape)), 1e-30)
            category.append(float((alpha * np.log(alpha * POINTS)).sum()))
            noise = [random.gumbel(size=(options.samples, POINTS)).astype(np.float32) for _ in range(2)]
            for column, temperature in enumerate(TEMPERATURES):
                q = histogram(relaxed(np.log(alpha).astype(np.float32), noise[0], temperature))
                p = histogram(relaxed(np.zeros(POINTS, np.float32), noise[1], temperature))
                of_z[experiment, column] = (q * np.log(q / p)).sum()
        mean, std = of_z.mean(0), of_z.std(0, ddof=1)
        results[name] = {
            "temperature": TEMPERATURES,
            "kl_z_mean": mean.tolist(),
            "kl_z_std": std.tolist(),
            "kl_category_mean": [float(np.mean(category))],
            "kl_category_std": [float(np.std(category, ddof=1))],
        }
        axis.errorbar(TEMPERATURES, mean, std, marker="o", capsize=3, label="KL(z)")
        level, spread = np.mean(category), np.std(category, ddof=1)
        axis.axhline(level, color="C1", label="KL(category), eq. 4")
        axis.axhspan(level - spread, level + spread, color="C1", alpha=0.2)
        axis.set(title=f"{name}: Dirichlet({shape:g})", xlabel="temperature T", ylabel="nats", ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    (FOLDER / "figures").mkdir(exist_ok=True)
    (FOLDER / "results").mkdir(exist_ok=True)
    figure.savefig(FOLDER / "figures" / "figure3.png", dpi=120)
    (FOLDER / "results" / "figure3.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
