"""Bounds and gradient estimators."""

from dvae_ext.objectives.bernoulli import bernoulli_kl, bernoulli_log_likelihood
from dvae_ext.objectives.mutual_divergence import mutual_divergence_penalty
from dvae_ext.objectives.rbm_kl import log_z_with_gradient, rbm_kl
from dvae_ext.objectives.schedule import exponential_annealing, linear_warmup, piecewise_constant

__all__ = [
    "bernoulli_kl",
    "bernoulli_log_likelihood",
    "exponential_annealing",
    "linear_warmup",
    "log_z_with_gradient",
    "mutual_divergence_penalty",
    "piecewise_constant",
    "rbm_kl",
]
