"""One process or many: the few collective operations that training needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .config import RunError


@dataclass(frozen=True)
class Ranks:
    """This process among the others; every method is the identity when it is alone."""

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The value of the first process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def common_statistics(self, model: nn.Module) -> Iterator[None]:
        """Inside, the running statistics of the model's normalisations are the means of those of the processes.

        They are what a process alone may evaluate or save: in training each keeps those of its own batches, and has
        them again afterwards, so that a run does not depend on when it was saved. A collective operation.
        """
        if self.world_size == 1:
            yield
            return
        layers = [layer for layer in model.modules() if isinstance(layer, _NormBase)]
        found = [t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None]
        own = [statistic.clone() for statistic in found]
        for statistic in found:
            self.sum(statistic).div_(self.world_size)
        try:
            yield
        finally:
            for statistic, value in zip(found, own, strict=True):
                statistic.copy_(value)

    def on_first(self, work: Callable[[], Any]) -> Any:
        """What ``work()`` returns in the first process, for all; the others wait, and leave quietly where it fails."""
        if self.world_size == 1:
            return work()
        value, failure = None, None
        if self.first:
            try:
                value = work()
            except Exception as error:
                failure = error
        value, failed = self.broadcast((value, failure is not None))
        if failure is not None:
            raise failure
        if failed:
            raise SystemExit(2)  # the first process says why
        return value

    def share(self, tensor: Tensor) -> Tensor:
        """This process's part of the rows; the parts differ in length by at most one."""
        bounds = [tensor.shape[0] * i // self.world_size for i in range(self.world_size + 1)]
        return tensor[bounds[self.rank] : bounds[self.rank + 1]]


def resolve_device(name: str) -> torch.device:
    """The device of a run; under torchrun each process takes the GPU of its local rank.

    Raises:
        RunError: for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RunError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RunError(f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise RunError(f"device {name!r} was asked for, but torch sees no GPU")
        index = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise RunError(f"GPU {index} was asked for, but torch sees {torch.cuda.device_count()}")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started, unless that is done; a process without torchrun is alone."""
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
