"""Training batches as a pure function of the step, so that a run can stop and continue anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from .dataset import DataError


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """A 63-bit seed for one purpose: equal arguments give equal seeds, any other arguments an unrelated one.

    Example:
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 3)
        True
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 4)
        False
    """
    text = ":".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class TrainingBatches:
    """Batches of training images, shuffled without replacement in every epoch.

    The order comes from (seed, epoch) and the binarisation noise from (seed, step, rank): nothing has to be saved to
    continue a run. The images left over at the end of an epoch, fewer than a batch, are dropped; as the order changes,
    they differ from epoch to epoch.

    Args:
        images: ``[n, num_pixels]``: bits (uint8), or grey values (float32 in [0, 1]).
        batch_size: Images in a batch, of each process.
        seed: Seed of the run.
        rank: Index of this process.
        world_size: Number of processes, which share every epoch.
        device: Where the batches are needed; the images are kept there.
        binarise: Whether grey values are binarised anew at every step.

    Raises:
        DataError: if there are fewer images than ``batch_size * world_size``.

    Example:
        >>> batches = TrainingBatches(torch.eye(4, dtype=torch.uint8), batch_size=2, seed=0)
        >>> torch.cat([batches(0), batches(1)]).sum(dim=0)  # one epoch holds every image once
        tensor([1., 1., 1., 1.])
    """

    def __init__(
        self,
        images: Tensor,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        binarise: bool = True,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {batch_size}")
        if images.shape[0] < batch_size * world_size:
            raise DataError(
                f"batch_size {batch_size} on {world_size} process(es) needs {batch_size * world_size} training images, "
                f"the data set has {images.shape[0]}"
            )
        self.images = images.to(device)
        self.dynamic = binarise and images.dtype != torch.uint8
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.steps_per_epoch = images.shape[0] // (batch_size * world_size)
        self.noise = torch.Generator(device)
        self.epoch = -1
        self.order = torch.empty(0, dtype=torch.int64, device=device)

    def __call__(self, step: int) -> Tensor:
        """The batch of ``step`` (counted from 0): float32 ``[batch_size, num_pixels]``, zeros and ones unless grey."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self.epoch:
            shuffle = torch.Generator("cpu").manual_seed(derive_seed(self.seed, "order", epoch))
            order = torch.randperm(self.images.shape[0], generator=shuffle, device="cpu")
            self.order = order.to(self.images.device)
            self.epoch = epoch
        begin = (position * self.world_size + self.rank) * self.batch_size
        batch = self.images.index_select(0, self.order[begin : begin + self.batch_size])
        if not self.dynamic:
            return batch.float()
        self.noise.manual_seed(derive_seed(self.seed, "binarisation", step, self.rank))
        uniform = torch.rand(batch.shape, generator=self.noise, dtype=torch.float32, device=batch.device)
        return torch.lt(uniform, batch, out=uniform)


def evaluation_batches(images: Tensor, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """All images in order, as float32 batches on ``device``; the last batch may be smaller."""
    for batch in images.split(batch_size):
        yield batch.to(device).float()
