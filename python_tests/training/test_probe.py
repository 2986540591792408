"""Probes of a run: the protocol is that of the evaluation, and a mistake is a sentence."""

import dataclasses
import json
import math

import pytest
import torch

from dvae_ext.training import RunError, RunFolder, default_config, probe_run, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A few steps of the smallest model with features."""
    config = default_config("vae", "digits")
    config.model_config = dataclasses.replace(config.model_config, latents=2, hidden=())
    for name, value in {"device": "cpu", "steps": 3, "test_samples": 1, "valid_samples": 1}.items():
        setattr(config.training, name, value)
    folder = RunFolder(tmp_path_factory.mktemp("probe") / "run")
    train(config, folder)
    return folder


def test_neighbours_are_an_option(run):
    config = run.config()
    dataset = run.load_dataset(config)
    (ten, _), (one, problems) = (probe_run(run, config, dataset, CPU, neighbours=count) for count in (10, 1))
    assert problems == []
    assert ten["linear all"] == one["linear all"]
    assert ten["knn all"] != one["knn all"]
    assert json.loads((run.path / "probes.json").read_text())["knn all"]["mean"] == one["knn all"].mean
    with pytest.raises(RunError, match="run cannot be probed: neighbours: expected at least 1, got 0"):
        probe_run(run, config, dataset, CPU, neighbours=0)


def test_features_that_are_not_finite_are_a_sentence(run, monkeypatch):
    config = run.config()
    dataset = run.load_dataset(config)
    model, step, problems = run.load_model(config, dataset, CPU)
    with torch.no_grad():
        model.encoder[-1].bias.fill_(math.nan)
    monkeypatch.setattr(RunFolder, "load_model", lambda *_: (model, step, problems))
    with pytest.raises(RunError, match="run cannot be probed: train: expected finite features, got 1,297 of 1,297"):
        probe_run(run, config, dataset, CPU)
