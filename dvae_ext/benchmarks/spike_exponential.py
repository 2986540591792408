"""Spike-and-exponential smoothing at β = 5."""

from dvae_ext.benchmarks.elementwise import elementwise

# Forward: e^-l and a logarithm; backward: e^-l and an exponential of βζ.
BENCHMARKS = [elementwise("spike_exponential_icdf", (5.0,), elementary=4, first_gradient=False)]
