"""The cases of the same name in dvae_ext.benchmarks, under pytest-benchmark."""

from bench.suite import suite

test_mutual_posterior_divergence = suite("mutual_posterior_divergence")
