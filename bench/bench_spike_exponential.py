"""The cases of the same name in dvae_ext.benchmarks, under pytest-benchmark."""

from bench.suite import suite

test_spike_exponential = suite("spike_exponential_icdf")
