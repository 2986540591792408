"""What a representation is good for: k-means, nearest neighbours and linear classifiers (MAE section 4.1.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """Test accuracy in percent over the seeds."""

    mean: float
    std: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + (f" ± {self.std:.1f}" if self.seeds > 1 else "")


def probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    clusters: Sequence[int] = (10, 20, 30),
    label_counts: Sequence[int | None] = (100, 1000, None),
    seeds: int = 5,
    neighbours: int = 10,
) -> dict[str, Score]:
    """Accuracy of simple classifiers on features, as in MAE Table 2.

    "k-means K": K clusters of the training features; a cluster has the label of the training example nearest its
    centre. "knn N" and "linear N": nearest neighbours, weighted by the inverse of their distance, and a linear
    classifier on standardised features, from N labelled examples, drawn anew for every seed with the same number of
    each class. A setting without randomness, all labels, runs once.

    Args:
        train: features ``[N, d]``.
        train_labels: integer classes ``[N]``.
        test: features ``[n, d]``.
        test_labels: integer classes ``[n]``.
        clusters: values of K.
        label_counts: labelled examples; None for all.
        seeds: repetitions.
        neighbours: of the nearest-neighbour classifier, at least 1; all labelled examples where they are fewer.

    Returns:
        Scores under the names above, for example "knn 100" and "linear all".

    Raises:
        ValueError: features that are not finite or do not match their labels, labels that are no integers of at least
            0, test labels that no training example has, more clusters or labels than examples, no neighbour.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(40) % 2
        >>> points = torch.randn(40, 3, generator=generator) + 10 * labels[:, None]
        >>> scores = probe(points[:20], labels[:20], points[20:], labels[20:], clusters=[2], label_counts=[4], seeds=2)
        >>> {name: score.mean for name, score in scores.items()}
        {'k-means 2': 100.0, 'knn 4': 100.0, 'linear 4': 100.0}
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    for name, features, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError(
                f"{name}_labels: expected one for each row of {name} {list(features.shape)}, got {list(labels.shape)}"
            )
        broken = int((~features.isfinite()).any(1).sum())
        if broken:
            raise ValueError(f"{name}: expected finite features, got {broken:,} of {len(features):,} rows that are not")
        if labels.is_floating_point() or labels.is_complex() or bool((labels < 0).any()):
            raise ValueError(
                f"{name}_labels: expected integer classes of at least 0, got {labels.dtype}, {_few(labels)}"
            )
    foreign = test_labels[~torch.isin(test_labels, train_labels)]
    if len(foreign):
        raise ValueError(f"test_labels: expected classes of train_labels, {_few(train_labels)}, got {_few(foreign)}")
    if neighbours < 1:
        raise ValueError(f"neighbours: expected at least 1, got {neighbours}")
    for name, counts in (("clusters", clusters), ("label_counts", [count or 0 for count in label_counts])):
        if max(counts, default=0) > len(train):
            raise ValueError(f"{name}: expected at most the {len(train)} training examples, got {max(counts)}")
    x, y = train.double().numpy(), train_labels.numpy()
    x_test, y_test = test.double().numpy(), test_labels.numpy()
    scores: dict[str, Score] = {}
    for k in clusters:
        scores[f"k-means {k}"] = _score([_cluster_accuracy(x, y, x_test, y_test, k, seed) for seed in range(seeds)])
    scaler = StandardScaler().fit(x)
    x, x_test = scaler.transform(x), scaler.transform(x_test)
    classifiers: dict[str, Callable[[np.ndarray], Any]] = {
        "knn": lambda labels: KNeighborsClassifier(min(neighbours, len(labels)), weights="distance"),
        "linear": lambda labels: LogisticRegression(max_iter=200),
    }
    for name, make in classifiers.items():
        for count in label_counts:
            accuracies = []
            for seed in range(seeds if count is not None else 1):
                rows = np.arange(len(y)) if count is None else balanced(y, count, seed)
                classifier = make(y[rows]).fit(x[rows], y[rows])
                accuracies.append(100 * float((classifier.predict(x_test) == y_test).mean()))
            scores[f"{name} {count or 'all'}"] = _score(accuracies)
    return scores


def _few(labels: Tensor) -> str:
    """The different values, the middle ones left out where they are many."""
    values = [str(value) for value in labels.unique().tolist()]
    return ", ".join(values if len(values) <= 10 else [*values[:5], "…", values[-1]])


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices of ``count`` examples with the same number of each class, up to one; fewer where a class runs out."""
    order = np.random.RandomState(seed).permutation(len(labels))
    # The n-th example of its class comes before all (n+1)-th ones.
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    return order[np.argsort(rank[order], kind="stable")][:count]


def _cluster_accuracy(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, k: int, seed: int) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin

    model = KMeans(k, n_init=1, random_state=seed).fit(x)
    cluster_labels = y[pairwise_distances_argmin(model.cluster_centers_, x)]
    return 100 * float((cluster_labels[model.predict(x_test)] == y_test).mean())


def _score(accuracies: list[float]) -> Score:
    std = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return Score(float(np.mean(accuracies)), std, len(accuracies))
