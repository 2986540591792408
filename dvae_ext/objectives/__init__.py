"""Bounds and gradient estimators."""

from dvae_ext.objectives.bernoulli import bernoulli_log_likelihood
from dvae_ext.objectives.rbm_kl import rbm_kl
from dvae_ext.objectives.schedule import linear_warmup, piecewise_constant

__all__ = [
    "bernoulli_log_likelihood",
    "linear_warmup",
    "piecewise_constant",
    "rbm_kl",
]
