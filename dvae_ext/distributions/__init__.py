"""Binary variables smoothed into continuous ones, in the interface of torch.distributions."""

from dvae_ext.distributions.overlap_exponential import OverlapExponential
from dvae_ext.distributions.overlap_logistic import OverlapLogistic
from dvae_ext.distributions.smoothed_bernoulli import SmoothedBernoulli
from dvae_ext.distributions.spike_exponential import SpikeExponential

__all__ = ["OverlapExponential", "OverlapLogistic", "SmoothedBernoulli", "SpikeExponential"]
