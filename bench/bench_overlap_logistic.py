"""The cases of the same name in dvae_ext.benchmarks, under pytest-benchmark."""

from bench.suite import suite

test_overlap_logistic = suite("overlap_logistic_icdf", "overlap_logistic_log_prob")
