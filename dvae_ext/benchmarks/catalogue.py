"""Every benchmark, by the name of its op."""

from __future__ import annotations

from dvae_ext.benchmarks import (
    coarse_grain,
    mutual_posterior_divergence,
    overlap_exponential,
    overlap_logistic,
    pairwise_kl,
    rbm_gibbs,
    rbm_log_z_exact,
    rbm_temper,
    spike_exponential,
    training_step,
)
from dvae_ext.benchmarks.case import Benchmark

# What the package is about comes first: where compiling has a limit of time, later rows are measured without it.
_MODULES = (
    overlap_exponential,
    rbm_gibbs,
    training_step,
    overlap_logistic,
    spike_exponential,
    rbm_temper,
    rbm_log_z_exact,
    pairwise_kl,
    mutual_posterior_divergence,
    coarse_grain,
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.op: benchmark for module in _MODULES for benchmark in module.BENCHMARKS}
