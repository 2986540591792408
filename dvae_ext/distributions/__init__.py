"""Smoothed binary variables and coarse-grained densities, in the interface of torch.distributions."""

from dvae_ext.distributions.coarse_grained import CoarseGrained
from dvae_ext.distributions.overlap_exponential import OverlapExponential
from dvae_ext.distributions.overlap_logistic import OverlapLogistic
from dvae_ext.distributions.smoothed_bernoulli import SmoothedBernoulli
from dvae_ext.distributions.spike_exponential import SpikeExponential

__all__ = ["CoarseGrained", "OverlapExponential", "OverlapLogistic", "SmoothedBernoulli", "SpikeExponential"]
