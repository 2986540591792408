"""Blocks that several models share."""

from dvae_ext.nn.feedforward import relu_mlp, svhn_decoder, svhn_encoder
from dvae_ext.nn.mlp import MLP
from dvae_ext.nn.smoothing import ExponentialSmoothing, LogisticSmoothing, Smoothing, SpikeSmoothing

__all__ = [
    "MLP",
    "ExponentialSmoothing",
    "LogisticSmoothing",
    "Smoothing",
    "SpikeSmoothing",
    "relu_mlp",
    "svhn_decoder",
    "svhn_encoder",
]
