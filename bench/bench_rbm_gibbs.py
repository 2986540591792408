"""The cases of the same name in dvae_ext.benchmarks, under pytest-benchmark."""

from bench.suite import suite

test_rbm_gibbs = suite("rbm_gibbs_")
