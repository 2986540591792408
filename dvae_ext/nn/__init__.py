"""Blocks that several models share."""

from dvae_ext.nn.mlp import MLP
from dvae_ext.nn.smoothing import ExponentialSmoothing, LogisticSmoothing, Smoothing, SpikeSmoothing

__all__ = ["MLP", "ExponentialSmoothing", "LogisticSmoothing", "Smoothing", "SpikeSmoothing"]
