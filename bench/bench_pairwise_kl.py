"""The cases of the same name in dvae_ext.benchmarks, under pytest-benchmark."""

from bench.suite import suite

test_pairwise_kl = suite("pairwise_kl_normal", "pairwise_kl_bernoulli")
