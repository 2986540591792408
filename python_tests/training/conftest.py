import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import toy

from dvae_ext.models import MODELS
from dvae_ext.training import default_config


@pytest.fixture(autouse=True)
def registered_toy(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", toy.SPEC)


@pytest.fixture
def toy_config():
    """A run of 30 steps that logs, validates and saves at different intervals."""

    def build(**training):
        config = default_config("toy", "digits")
        config.training.device = "cpu"
        defaults = {
            "steps": 30,
            "log_every": 4,
            "validate_every": 6,
            "checkpoint_every": 10,
            "valid_examples": 50,
            "valid_samples": 3,
            "test_samples": 3,
        }
        for name, value in (defaults | training).items():
            setattr(config.training, name, value)
        return config

    return build
