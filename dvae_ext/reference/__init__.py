"""The ops in plain PyTorch, under the same names: oracle of the tests in float64 and baseline of the benchmarks."""

from dvae_ext.reference.coarse_grain_kl import coarse_grain_kl
from dvae_ext.reference.coarse_grain_sample import coarse_grain_sample
from dvae_ext.reference.mutual_posterior_divergence import mutual_posterior_divergence
from dvae_ext.reference.overlap_exponential import overlap_exponential_icdf, overlap_exponential_log_prob
from dvae_ext.reference.overlap_logistic import overlap_logistic_icdf, overlap_logistic_log_prob
from dvae_ext.reference.pairwise_kl_bernoulli import pairwise_kl_bernoulli
from dvae_ext.reference.pairwise_kl_normal import pairwise_kl_normal
from dvae_ext.reference.rbm_gibbs import rbm_gibbs_
from dvae_ext.reference.rbm_log_z_exact import rbm_log_z_exact
from dvae_ext.reference.rbm_temper import rbm_temper_
from dvae_ext.reference.spike_exponential import spike_exponential_icdf

__all__ = [
    "coarse_grain_kl",
    "coarse_grain_sample",
    "mutual_posterior_divergence",
    "overlap_exponential_icdf",
    "overlap_exponential_log_prob",
    "overlap_logistic_icdf",
    "overlap_logistic_log_prob",
    "pairwise_kl_bernoulli",
    "pairwise_kl_normal",
    "rbm_gibbs_",
    "rbm_log_z_exact",
    "rbm_temper_",
    "spike_exponential_icdf",
]
