"""Class labels of the data sets that have them, in the order of their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .dataset import DataError
from .files import Source, read_bytes
from .loaders import FASHION_MNIST, MNIST, needed

LABELLED = ("digits", "mnist", "fashion-mnist")


def load_labels(name: str, data_dir: Path | str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Classes 0 … 9 of the training, validation and test images that :func:`dvae_ext.data.load` returns.

    Args:
        name: digits, mnist or fashion-mnist.
        data_dir: as for ``load``.

    Returns:
        Three int64 tensors ``[n]``.

    Raises:
        DataError: a data set without labels, or files that are missing or damaged.

    Example:
        >>> [len(labels) for labels in load_labels("digits")]
        [1297, 200, 300]
    """
    if name not in LABELLED:
        raise DataError(f"data set {name} has no labels here; those that have: {', '.join(LABELLED)}")
    if name == "digits":
        from sklearn.datasets import load_digits

        target = load_digits().target
        train = target[np.random.RandomState(0).permutation(len(target))]
        parts = [train[:1297], train[1297:1497], train[1497:]]
    else:
        source = MNIST if name == "mnist" else FASHION_MNIST
        folder = needed(name, None if data_dir is None else Path(data_dir))
        train = read_idx_labels(source, folder, "train", 60_000)
        parts = [train[:50_000], train[50_000:], read_idx_labels(source, folder, "t10k", 10_000)]
    first, second, third = (torch.from_numpy(np.ascontiguousarray(part, dtype=np.int64)) for part in parts)
    return first, second, third


def read_idx_labels(source: Source, folder: Path, split: str, rows: int) -> np.ndarray:
    """``*-labels-idx1-ubyte[.gz]``: a header of 8 bytes, then a byte for each image."""
    stem = f"{split}-labels-idx1-ubyte"
    path = source.find(folder, (stem, stem + ".gz", stem.replace("-idx1", ".idx1")))
    content = read_bytes(path, source)
    if content[:8] != np.array([0x801, rows], ">u4").tobytes() or len(content) != 8 + rows:
        raise source.damaged(path, f"{len(content)} bytes, expected the IDX header of {rows} labels and {rows} bytes")
    return np.frombuffer(content, np.uint8, offset=8)
