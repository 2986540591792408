"""Configurations: defaults, presets, and the form on disk."""

import json
import re

import pytest
import toy

from dvae_ext.data import DataError
from dvae_ext.training import RunConfig, RunError, TrainingConfig, default_config


def test_round_trip_through_json():
    config = default_config("toy", "mnist", preset="wide", data_dir="/data")
    config.training.steps = 77
    restored = RunConfig.from_json(config.to_json())
    assert restored == config
    assert restored.model_config == toy.ToyConfig(widths=(32,))
    assert isinstance(restored.model_config.widths, tuple)


def test_defaults_follow_the_data_set():
    digits = default_config("toy", "digits")
    assert digits.preset == "digits"
    assert digits.model_config.latents == 3
    assert digits.binarisation == "dynamic"
    static = default_config("toy", "mnist-static")
    assert static.preset is None
    assert static.training.steps == 20_000
    assert static.binarisation == "static"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nosuch", "digits"), RunError, "unknown model 'nosuch'; known: .*toy"),
        (("toy", "digits", "narrow"), RunError, "unknown preset of model toy 'narrow'; known: wide, digits"),
        (("toy", "cifar"), DataError, "unknown data set 'cifar'; known: digits"),
    ],
)
def test_unknown_names_list_the_known_ones(arguments, error, message):
    with pytest.raises(error, match=message):
        default_config(*arguments)


def test_damaged_json_is_explained():
    good = json.loads(default_config("toy", "digits").to_json())
    with pytest.raises(RunError, match="not valid JSON"):
        RunConfig.from_json("{")
    for bad in ([], {}, {**good, "more": 1}):
        with pytest.raises(RunError, match="expected an object with the keys binarisation, data"):
            RunConfig.from_json(json.dumps(bad))
    with pytest.raises(RunError, match="unknown model 'gone'"):
        RunConfig.from_json(json.dumps({**good, "model": "gone"}))
    with pytest.raises(RunError, match=r"model_config has unknown fields .wings.; known: break_at"):
        RunConfig.from_json(json.dumps({**good, "model_config": {"wings": 2}}))
    with pytest.raises(RunError, match="model_config: latents: expected at least 1, got 0"):
        RunConfig.from_json(json.dumps({**good, "model_config": {"latents": 0}}))


@pytest.mark.parametrize(
    ("part", "name", "value", "expected"),
    [
        (None, "model", ["dvae"], "str"),
        (None, "data_dir", 3, "str | null"),
        ("training", "steps", "ten", "int"),
        ("training", "steps", 2.5, "int"),
        ("training", "seed", True, "int"),
        ("model_config", "hidden", "wide", "tuple[int, ...]"),
        ("model_config", "hidden", [2, "wide"], "tuple[int, ...]"),
        ("model_config", "adam_betas", [0.9], "tuple[float, float]"),
        ("model_config", "learning_rate", None, "float"),
    ],
)
def test_values_of_another_type_are_named(part, name, value, expected):
    content = json.loads(default_config("dvae", "digits").to_json())
    (content if part is None else content[part])[name] = value
    where = name if part is None else f"{part}.{name}"
    shown = tuple(value) if part and isinstance(value, list) else value
    with pytest.raises(RunError, match=re.escape(f"{where} is {shown!r}, expected {expected}")):
        RunConfig.from_json(json.dumps(content))


@pytest.mark.parametrize("name", ["steps", "batch_size", "log_every", "validate_every", "test_samples"])
def test_counts_must_be_positive(name):
    with pytest.raises(RunError, match=f"training.{name} must be at least 1, got 0"):
        TrainingConfig(**{name: 0})
