"""Bounds and gradient estimators."""

from dvae_ext.objectives.bernoulli import bernoulli_log_likelihood, log_likelihood_of_samples
from dvae_ext.objectives.mutual_divergence import mutual_divergence_penalty
from dvae_ext.objectives.rbm_kl import rbm_kl
from dvae_ext.objectives.schedule import exponential_annealing, linear_warmup, piecewise_constant

__all__ = [
    "bernoulli_log_likelihood",
    "exponential_annealing",
    "linear_warmup",
    "log_likelihood_of_samples",
    "mutual_divergence_penalty",
    "piecewise_constant",
    "rbm_kl",
]
