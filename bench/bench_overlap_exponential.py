"""The cases of the same name in dvae_ext.benchmarks, under pytest-benchmark."""

from bench.suite import suite

test_overlap_exponential = suite("overlap_exponential_icdf", "overlap_exponential_log_prob")
