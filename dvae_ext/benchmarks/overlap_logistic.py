"""Smoothing by two logistics."""

from dvae_ext.benchmarks.elementwise import elementwise

PARAMETERS = (0.0, 1.0, 0.1)

# Forward: e^-|l|, and the logarithm of a ratio; backward: e^-|l| and the densities of both components. The log-density
# takes the exponential of each component and a logarithm.
BENCHMARKS = [
    elementwise("overlap_logistic_icdf", PARAMETERS, elementary=5, first_gradient=False),
    elementwise("overlap_logistic_log_prob", PARAMETERS, elementary=6, first_gradient=True),
]
