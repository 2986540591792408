"""ReLU networks of the continuous and categorical autoencoders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def _glorot(module: nn.Sequential) -> nn.Sequential:
    """Glorot uniform kernels and zero biases."""
    for layer in module:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return module


def relu_mlp(in_features: int, hidden: Sequence[int], out_features: int) -> nn.Sequential:
    """Dense ReLU layers and a linear output, Glorot initialisation (CG-BPEF-VAE section 4).

    Raises:
        ValueError: a width below 1.

    Example:
        >>> import torch
        >>> relu_mlp(784, [400, 400], 20)(torch.zeros(3, 784)).shape
        torch.Size([3, 20])
    """
    widths = [in_features, *hidden, out_features]
    if min(widths) < 1:
        raise ValueError(f"expected widths of at least 1, got {widths}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths[:-1]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return _glorot(nn.Sequential(*layers, nn.Linear(widths[-2], out_features)))


def svhn_encoder(out_features: int) -> nn.Sequential:
    """Images ``[B, 1024]`` of 32 x 32 to features: the five layers of CG-BPEF-VAE appendix E and a linear output.

    Example:
        >>> import torch
        >>> svhn_encoder(20)(torch.zeros(3, 1024)).shape
        torch.Size([3, 20])
    """
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 32, 32))]
    layers += [nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(64, 128, 5), nn.ReLU(), nn.Flatten(), nn.Linear(128, out_features)]
    return _glorot(nn.Sequential(*layers))


def svhn_decoder(in_features: int) -> nn.Sequential:
    """Latents ``[B, in_features]`` to logits ``[B, 1024]`` of 32 x 32 images (CG-BPEF-VAE appendix E).

    Example:
        >>> import torch
        >>> svhn_decoder(20)(torch.zeros(3, 20)).shape
        torch.Size([3, 1024])
    """
    layers: list[nn.Module] = [nn.Linear(in_features, 128), nn.ReLU(), nn.Unflatten(1, (128, 1, 1))]
    layers += [nn.ConvTranspose2d(128, 64, 5, stride=4, padding=1, output_padding=1), nn.ReLU()]
    for fan_in, fan_out in ((64, 32), (32, 16), (16, 1)):
        layers += [nn.ConvTranspose2d(fan_in, fan_out, 5, stride=2, padding=2, output_padding=1), nn.ReLU()]
    return _glorot(nn.Sequential(*layers[:-1], nn.Flatten()))
