"""Restricted Boltzmann machines: the module, its persistent chains and its partition function."""

from __future__ import annotations

from dvae_ext.rbm.chains import PersistentChains
from dvae_ext.rbm.log_z import LogZEstimate, log_z
from dvae_ext.rbm.rbm import RBM

__all__ = ["RBM", "LogZEstimate", "PersistentChains", "log_z"]
