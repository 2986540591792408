"""Labels go with their images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dvae_ext.data import DataError, load
from dvae_ext.data.labels import load_labels


def nearest_accuracy(data, labels) -> float:
    """How often the nearest of the first 1000 training images has the label of a test image."""
    train, test = data.train[:1000].float(), data.test[:200].float()
    nearest = torch.cdist(test, train).argmin(1)
    return float((labels[0][:1000][nearest] == labels[2][:200]).float().mean())


def test_digits() -> None:
    labels = load_labels("digits")
    data = load("digits", binarisation="static")
    assert [len(part) for part in labels] == [len(data.train), len(data.valid), len(data.test)]
    assert nearest_accuracy(data, labels) > 0.8


def test_mnist(shared_data: Path) -> None:
    labels = load_labels("mnist", shared_data)
    assert [len(part) for part in labels] == [50_000, 10_000, 10_000]
    assert nearest_accuracy(load("mnist", shared_data, "static"), labels) > 0.75


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data set omniglot has no labels here"):
        load_labels("omniglot")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"short")
    with pytest.raises(DataError, match="is damaged or not the expected file"):
        load_labels("mnist", tmp_path)
