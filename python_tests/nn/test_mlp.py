"""The feed-forward block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dvae_ext.nn import MLP


def test_layers() -> None:
    assert [type(layer) for layer in MLP(5, [], 3)] == [nn.Linear]
    assert [type(layer) for layer in MLP(5, [4], 3)] == [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Linear]
    assert [type(layer) for layer in MLP(5, [4], 3, batch_norm=False)] == [nn.Linear, nn.Tanh, nn.Linear]
    network = MLP(5, [4, 6], 3)
    norm = network[1]
    assert norm.momentum == 0.2
    assert norm.eps == 1e-2
    assert network(torch.randn(7, 5)).shape == (7, 3)


def test_widths_are_checked() -> None:
    with pytest.raises(ValueError, match="widths of at least 1"):
        MLP(5, [0], 3)
