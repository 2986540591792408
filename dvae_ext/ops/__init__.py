"""The functional ops: fast, exact, differentiable, traceable, on CPU and CUDA tensors.

Derivatives exist in reverse mode (``backward``, ``torch.autograd.grad``). Forward mode (``torch.func.jvp``, ``jacfwd``,
``torch.autograd.forward_ad``) raises ``NotImplementedError``: torch.library takes no formulas for it. The transforms
``torch.func.grad`` and ``jacrev`` are refused by torch itself for ops of torch.library.
"""

from dvae_ext.ops.coarse_grain_kl import coarse_grain_kl
from dvae_ext.ops.coarse_grain_sample import coarse_grain_sample
from dvae_ext.ops.mutual_posterior_divergence import mutual_posterior_divergence
from dvae_ext.ops.overlap_exponential import overlap_exponential_icdf, overlap_exponential_log_prob
from dvae_ext.ops.overlap_logistic import overlap_logistic_icdf, overlap_logistic_log_prob
from dvae_ext.ops.pairwise_kl_bernoulli import pairwise_kl_bernoulli
from dvae_ext.ops.pairwise_kl_normal import pairwise_kl_normal
from dvae_ext.ops.rbm_gibbs import rbm_gibbs_
from dvae_ext.ops.rbm_log_z_exact import rbm_log_z_exact
from dvae_ext.ops.rbm_temper import rbm_temper_
from dvae_ext.ops.spike_exponential import spike_exponential_icdf

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
