"""Probes of the representation of a finished run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from dvae_ext.data import Dataset, derive_seed, evaluation_batches
from dvae_ext.data.labels import load_labels
from dvae_ext.evaluation import HasPosteriorFeatures, Score, features, probe
from dvae_ext.models.base import evaluating

from .config import RunConfig, RunError
from .files import write_atomically
from .logbook import json_text
from .run import RunFolder
from .sheets import isolated_rng

FEATURE_BATCH = 200


def probe_run(
    run: RunFolder, config: RunConfig, dataset: Dataset, device: torch.device, neighbours: int = 10
) -> tuple[dict[str, Score], list[str]]:
    """Classify the test images by the mean latents of the run's best parameters; writes ``probes.json``.

    ``neighbours`` is that of :func:`dvae_ext.evaluation.probe`. Under dynamic binarisation the training images
    are binarised once, with a fixed seed.

    Returns:
        The scores, and sentences about checkpoints that had to be passed over.

    Raises:
        RunError: for a model that has no continuous or categorical posterior to take features from, features that are
            not finite, or fewer than one neighbour.
        DataError: for a data set without labels.
        CheckpointError: if the run has no usable checkpoint.
    """
    model: Any
    model, _, problems = run.load_model(config, dataset, device)
    if not isinstance(model, HasPosteriorFeatures) or not isinstance(model, nn.Module):
        raise RunError(f"model {config.model} has no posterior features to probe: its latents are binary")
    train_labels, _, test_labels = load_labels(config.data, config.data_dir)
    with evaluating(model), isolated_rng(derive_seed(config.training.seed, "probe"), device) as generator:
        train = dataset.train.to(device).float()
        if dataset.binarisation == "dynamic":
            train = torch.bernoulli(train, generator=generator)
        train, test = (
            features(model, evaluation_batches(images, FEATURE_BATCH, device)) for images in (train, dataset.test)
        )
    try:
        scores = probe(train, train_labels, test, test_labels, neighbours=neighbours)
    except ValueError as error:
        raise RunError(f"{run.path} cannot be probed: {error}") from None
    content = {name: asdict(score) for name, score in scores.items()}
    write_atomically(run.path / "probes.json", (json_text(content, indent=2) + "\n").encode())
    return scores, problems
