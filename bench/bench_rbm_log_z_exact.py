"""The cases of the same name in dvae_ext.benchmarks, under pytest-benchmark."""

from bench.suite import suite

test_rbm_log_z_exact = suite("rbm_log_z_exact")
