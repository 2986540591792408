"""Classifiers on representations."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dvae_ext.evaluation import probe
from dvae_ext.evaluation.probes import balanced


def blobs(distance: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(600) % 3
    centres = distance * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return centres[labels] + torch.randn(600, 2, generator=generator), labels


def test_separated_classes_are_found_and_mixed_ones_are_not() -> None:
    for distance, low, high in ((30.0, 99.0, 100.0), (0.0, 20.0, 47.0)):
        train, train_labels = blobs(distance)
        test, test_labels = blobs(distance, seed=1)
        scores = probe(train, train_labels, test, test_labels, clusters=[3, 6], label_counts=[30, None], seeds=3)
        assert list(scores) == ["k-means 3", "k-means 6", "knn 30", "knn all", "linear 30", "linear all"]
        for name, score in scores.items():
            assert low <= score.mean <= high, (name, score)
        assert scores["knn 30"].seeds == 3
        assert scores["knn all"].seeds == 1


def test_a_cluster_has_the_label_of_the_sample_nearest_its_centre() -> None:
    """Majority of the left cluster is class 1, but the sample nearest its centre is of class 0."""
    train = torch.tensor([[-1.0], [0.0], [1.0], [100.0], [101.0]])
    train_labels = torch.tensor([1, 0, 1, 2, 2])
    scores = probe(train, train_labels, train, train_labels, clusters=[2], label_counts=[None], seeds=2)
    assert scores["k-means 2"].mean == pytest.approx(60.0)


def test_balanced_takes_the_same_number_of_each_class() -> None:
    labels = np.repeat(np.arange(4), [100, 50, 30, 5])
    rows = balanced(labels, 20, seed=0)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5, 5]
    assert len(set(rows.tolist())) == 20
    assert np.bincount(labels[balanced(labels, 40, seed=1)]).sum() == 40
    assert not np.array_equal(rows, balanced(labels, 20, seed=1))


def test_ten_neighbours_vote_by_their_distance() -> None:
    """MAE's protocol. The first point: one near example of class 0 outweighs nine far ones of class 1.

    The second: three of the five nearest are of class 0, seven of the ten nearest of class 1, all about as far.
    """
    near, far = [0.1, *range(10, 19)], [110 + i / 10 for i in range(10)]
    for position, places, classes, expected in (
        (0.0, near, [0] + [1] * 9, {10: 0, 5: 0}),
        (100.0, far, [0] * 3 + [1] * 7, {10: 1, 5: 0}),
    ):
        train, labels = torch.tensor([*places, 1000.0])[:, None], torch.tensor([*classes, 2])
        for neighbours, label in expected.items():
            options: dict[str, Any] = {} if neighbours == 10 else {"neighbours": neighbours}  # ten by default
            test, test_labels = torch.tensor([[position]]), torch.tensor([label])
            scores = probe(train, labels, test, test_labels, clusters=[], label_counts=[None], **options)
            assert scores["knn all"].mean == 100.0


def test_labels_outside_the_classes_are_refused() -> None:
    x, y = torch.arange(6.0)[:, None], torch.tensor([0, 1, 2, 0, 1, 2])
    for labels, message in (
        (torch.tensor([0, 1, 2, 0, 1, 7]), "test_labels: expected classes of train_labels, 0, 1, 2, got 7"),
        (
            torch.tensor([0, 1, 2, 0, 1, -1]),
            r"test_labels: expected integer classes of at least 0, got torch.int64, -1",
        ),
        (y / 2, "test_labels: expected integer classes of at least 0, got torch.float32, 0.0, 0.5, 1.0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            probe(x, y, x, labels, clusters=[2], label_counts=[None])
    with pytest.raises(ValueError, match="train_labels: expected integer classes"):
        probe(x, y - 1, x, y, clusters=[2], label_counts=[None])
    broken = x.clone()
    broken[2] = math.nan
    with pytest.raises(ValueError, match="test: expected finite features, got 1 of 6 rows that are not"):
        probe(x, y, broken, y, clusters=[2], label_counts=[None])
    with pytest.raises(ValueError, match="neighbours: expected at least 1, got 0"):
        probe(x, y, x, y, clusters=[2], label_counts=[None], neighbours=0)


def test_bad_arguments() -> None:
    x, y = torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(ValueError, match="train_labels: expected one for each row"):
        probe(x, y[:4], x, y)
    with pytest.raises(ValueError, match="clusters: expected at most the 5 training examples, got 30"):
        probe(x, y, x, y)
    with pytest.raises(ValueError, match="label_counts: expected at most the 5"):
        probe(x, y, x, y, clusters=[2], label_counts=[100])
