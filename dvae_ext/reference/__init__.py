"""The ops in plain PyTorch, under the same names: oracle of the tests in float64 and baseline of the benchmarks."""

from dvae_ext.reference.overlap_exponential import overlap_exponential_icdf, overlap_exponential_log_prob
from dvae_ext.reference.overlap_logistic import overlap_logistic_icdf, overlap_logistic_log_prob
from dvae_ext.reference.rbm_gibbs import rbm_gibbs_
from dvae_ext.reference.rbm_log_z_exact import rbm_log_z_exact
from dvae_ext.reference.rbm_temper import rbm_temper_
from dvae_ext.reference.spike_exponential import spike_exponential_icdf

__all__ = [
    "overlap_exponential_icdf",
    "overlap_exponential_log_prob",
    "overlap_logistic_icdf",
    "overlap_logistic_log_prob",
    "rbm_gibbs_",
    "rbm_log_z_exact",
    "rbm_temper_",
    "spike_exponential_icdf",
]
