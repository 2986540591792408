"""The feed-forward network of encoders and decoders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Tanh layers of the given widths and a linear output; no hidden widths give a linear map.

    Each hidden layer is linear, batch normalisation, tanh; the output layer is not normalised (DVAE++ appendix F).
    Kernels start as Glorot uniform, biases at zero.

    Args:
        in_features: width of the input ``[B, in_features]``.
        hidden: widths of the hidden layers.
        out_features: width of the output ``[B, out_features]``.
        batch_norm: normalise hidden layers.
        momentum: weight of the new batch in the running statistics, torch's convention.
        eps: added to the variance.

    Raises:
        ValueError: a width below 1.

    Example:
        >>> import torch
        >>> MLP(784, [200, 200], 100)(torch.zeros(8, 784)).shape
        torch.Size([8, 100])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        batch_norm: bool = True,
        momentum: float = 0.2,
        eps: float = 1e-2,
    ) -> None:
        widths = [in_features, *hidden, out_features]
        if min(widths) < 1:
            raise ValueError(f"expected widths of at least 1, got {widths}")
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths[:-1]):
            layers.append(nn.Linear(fan_in, fan_out, bias=not batch_norm))  # the normalisation has a shift of its own
            if batch_norm:
                layers.append(nn.BatchNorm1d(fan_out, momentum=momentum, eps=eps))
            layers.append(nn.Tanh())
        layers.append(nn.Linear(widths[-2], out_features))
        super().__init__(*layers)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
