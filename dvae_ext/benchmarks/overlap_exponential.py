"""Smoothing by two exponentials at β = 8."""

from dvae_ext.benchmarks.elementwise import elementwise

# Forward: e^-|l|, a logarithm; backward: e^-|l|, and an exponential of βζ.
BENCHMARKS = [
    elementwise("overlap_exponential_icdf", (8.0,), elementary=4, first_gradient=False),
    elementwise("overlap_exponential_log_prob", (8.0,), elementary=4, first_gradient=True),
]
