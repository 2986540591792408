"""The containers that every loader returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

# Validation and test images are binarised once, with this seed, for every run: likelihoods of different runs then
# speak of the same test set. RandomState is used because NumPy guarantees its stream forever.
BINARISATION_SEED = 2018

GREY_NOTE = (
    "Images are grey, not binarised: the numbers are cross-entropies of grey values, as in part of the literature, and "
    "no likelihoods; they cannot be compared with those of binary images."
)


class DataError(RuntimeError):
    """A data set that is unknown, missing, damaged, or asked for in a form it does not have."""


@dataclass(frozen=True)
class DataInfo:
    """What a model has to know about the data before it is built.

    Args:
        name: Name of the data set, as in ``dvae_ext.data.DATASETS``.
        image_shape: Height and width.
        train_mean: Mean training image, flattened, float32 ``[height * width]`` in [0, 1].
    """

    name: str
    image_shape: tuple[int, int]
    train_mean: Tensor

    @property
    def num_pixels(self) -> int:
        """Height times width."""
        return self.image_shape[0] * self.image_shape[1]


@dataclass(frozen=True)
class Dataset:
    """Images of one data set, flattened row by row.

    ``train`` holds grey values (float32 in [0, 1]) under dynamic binarisation, to be binarised anew at every step, and
    bits (uint8) under static binarisation; ``valid`` and ``test`` then hold bits. Without binarisation all three hold
    grey values, and what models report of them is a cross-entropy, not a likelihood: a note says so.

    Args:
        info: Name, image shape and mean training image.
        train: ``[num_train, num_pixels]``.
        valid: ``[num_valid, num_pixels]``, as said above.
        test: ``[num_test, num_pixels]``, as said above.
        binarisation: "static", "dynamic" or "none".
        notes: Sentences that belong beside every number computed on these images.
    """

    info: DataInfo
    train: Tensor
    valid: Tensor
    test: Tensor
    binarisation: str
    notes: tuple[str, ...] = field(default=())


def binarise_once(images: np.ndarray, salt: int) -> np.ndarray:
    """Bernoulli draw of every pixel with a fixed seed; ``salt`` separates the splits of one data set."""
    uniform = np.random.RandomState(BINARISATION_SEED + salt).random_sample(images.shape)
    return (uniform < images).astype(np.uint8)


def make_dataset(
    name: str,
    image_shape: tuple[int, int],
    train: np.ndarray,
    valid: np.ndarray,
    test: np.ndarray,
    binarisation: str,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Build a ``Dataset`` from arrays ``[n, num_pixels]``: bits (uint8) or grey values (float32 in [0, 1])."""

    def fixed(images: np.ndarray, salt: int) -> np.ndarray:
        return images if images.dtype == np.uint8 or binarisation == "none" else binarise_once(images, salt)

    if binarisation == "none":
        notes = (*notes, GREY_NOTE)

    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Dataset(
        info=DataInfo(name, image_shape, torch.from_numpy(mean)),
        train=torch.from_numpy(train if binarisation == "dynamic" else fixed(train, 0)),
        valid=torch.from_numpy(fixed(valid, 1)),
        test=torch.from_numpy(fixed(test, 2)),
        binarisation=binarisation,
        notes=notes,
    )
