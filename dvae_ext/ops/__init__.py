"""The functional ops: fast, exact, differentiable, traceable, on CPU and CUDA tensors."""

from dvae_ext.ops.overlap_exponential import overlap_exponential_icdf, overlap_exponential_log_prob
from dvae_ext.ops.overlap_logistic import overlap_logistic_icdf, overlap_logistic_log_prob
from dvae_ext.ops.rbm_gibbs import rbm_gibbs_
from dvae_ext.ops.rbm_log_z_exact import rbm_log_z_exact
from dvae_ext.ops.rbm_temper import rbm_temper_
from dvae_ext.ops.spike_exponential import spike_exponential_icdf

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
