"""The cases of the same name in dvae_ext.benchmarks, under pytest-benchmark."""

from bench.suite import suite

test_coarse_grain = suite("coarse_grain_sample", "coarse_grain_kl")
