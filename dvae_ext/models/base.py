"""What training, evaluation and the command line expect of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

if TYPE_CHECKING:
    from dvae_ext.data import DataInfo
    from dvae_ext.rbm import LogZEstimate


class Model(nn.Module, ABC):
    """A latent-variable model of images ``x [B, D]`` with values in [0, 1]."""

    config: Any
    smallest_batch: int = 1
    """Images that a process has in a training batch at least; statistics over the batch need two."""

    def forward(self, x: Tensor, step: int, total_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The same as :meth:`training_loss`, so that wrappers that call the module work."""
        return self.training_loss(x, step, total_steps)

    @abstractmethod
    def training_loss(self, x: Tensor, step: int, total_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, a mean over the batch, and detached scalar metrics for display.

        "loss" is among the metrics where its value says something; "bound" and "kl" where they are what the names say.
        """

    def after_step(self, step: int) -> None:
        """What follows an update of the parameters, such as moving the chains."""

    @abstractmethod
    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler]:
        """The optimiser and its schedule over ``steps`` updates."""

    def initialise(self, data_mean: Tensor) -> None:
        """Set what depends on the data; ``data_mean [D]`` is the mean training image."""

    @abstractmethod
    def log_weights(self, x: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        """log p̃(x, z) − log q(z|x) for z ~ q(z|x), ``[num_samples, B]``, in the binary limit.

        With an RBM prior p̃ lacks the partition function: subtract ``log_partition().value``.
        """

    def log_partition(self, method: str = "auto", quick: bool = False) -> LogZEstimate | None:
        """log Z of the prior, at a small part of the cost if ``quick``; None for a normalised prior."""
        return None

    @abstractmethod
    def generate(self, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Mean images ``[num_samples, D]`` of latents drawn from the prior."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images ``[B, D]`` of latents drawn from q(z|x)."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside the block; the mode before it is restored."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


@dataclass(frozen=True)
class ModelSpec:
    """An entry of the registry: how to configure and build one model."""

    config_class: type
    build: Callable[[Any, DataInfo], Model]
    presets: Mapping[str, Mapping[str, Any]]
