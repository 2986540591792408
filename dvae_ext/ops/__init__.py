"""The functional ops: fast, exact, differentiable, traceable, on CPU and CUDA tensors.

Derivatives exist in reverse mode: ``backward``, ``torch.autograd.grad``, ``torch.func.grad``, ``vjp`` and ``jacrev``,
also under ``torch.func.vmap``, which runs the kernel once for each slice, and ``torch.compile``. A second derivative
that an op lacks is a ``RuntimeError``. Forward mode (``torch.func.jvp``, ``jacfwd``, ``hessian``,
``torch.autograd.forward_ad``) is a ``NotImplementedError``: no op has formulas for it. ``rbm_gibbs_`` and
``rbm_temper_``, which change their arguments, have no derivatives, and ``vmap`` refuses them.

Numbers among the arguments (β, temperatures, counts of samples and sweeps) may change from call to call of a compiled
function: it compiles a first graph for the first value and a second for all others.
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
