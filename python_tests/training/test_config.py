"""Configurations: defaults, presets, and the form on disk."""

import json
import math
import re

import pytest
import toy

from dvae_ext.data import DataError
from dvae_ext.training import RunConfig, RunError, RunFolder, TrainingConfig, default_config


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
    for text in ("{", "[" * 100_000, '{"model": ' * 100_000, "9" * 5000):
        with pytest.raises(RunError, match=r"^not valid JSON"):
            RunConfig.from_json(text)
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


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("training", "steps", 2**63),
        ("training", "seed", -(10**30)),
        ("model_config", "beta", 1e40),
        ("model_config", "learning_rate", math.nan),
        ("model_config", "learning_rate_factors", [0.1, 1.0, 1e300, 1.0, 1.0]),
        ("model_config", "weight_decay", 1e-60),
        ("model_config", "num_chains", 10**25),
    ],
)
def test_numbers_that_nothing_can_hold_are_named(part, name, value):
    content = json.loads(default_config("dvae", "digits").to_json())
    content[part][name] = value
    expected = "an integer of 64 bits" if isinstance(value, int) else "a number that float32 holds"
    with pytest.raises(RunError, match=rf"^{part}\.{name} is .*, expected {expected}"):
        RunConfig.from_json(json.dumps(content))


def test_absent_fields_are_named_with_the_defaults_that_stand_in(tmp_path):
    whole = json.loads(default_config("toy", "digits").to_json())
    del whole["training"]["test_samples"], whole["model_config"]["widths"]
    run = RunFolder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(whole))
    config = run.config()
    assert config.training.test_samples == 1000
    assert run.notes == [
        f"{tmp_path / 'config.json'} lacks fields, today's defaults are taken: "
        "training.test_samples = 1000, model_config.widths = [16]"
    ]
