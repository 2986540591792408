"""What a run is made of, and its form on disk."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from dataclasses import dataclass
from typing import Any

import torch

from dvae_ext.data import DATASETS, DataError
from dvae_ext.models import MODELS

FLOAT32 = torch.finfo(torch.float32)


class RunError(RuntimeError):
    """Something is wrong with a configuration or a run folder; the message is one sentence for the user."""


def reason(error: Exception) -> str:
    """The first line of a library's error, without torch's place in its source and the full stop."""
    line = str(error).partition("\n")[0]
    return re.sub(r"^\[enforce fail at .*?\] .*?\. ", "", line).rstrip(".") or type(error).__name__


@dataclass
class TrainingConfig:
    """The loop; what concerns the optimiser is in the model's configuration."""

    steps: int = 20_000
    """Number of updates."""
    batch_size: int = 100
    """Images in a batch; under torchrun, of each process."""
    seed: int = 0
    """Seed of parameters, data order, binarisation and noise."""
    log_every: int = 50
    """Steps between two lines of metrics, each a mean over the steps since the last."""
    validate_every: int = 1000
    """Steps between two estimates of the validation likelihood; the best parameters are kept."""
    valid_samples: int = 20
    """Importance samples for each validation image."""
    valid_examples: int = 1000
    """Validation images used during training, the first ones."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    test_samples: int = 1000
    """Importance samples for each test image at the end."""
    device: str = "auto"
    """Device to train on: auto (a GPU if there is one), cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_range(vars(self), "training.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("seed", "device") and value < 1:
                raise RunError(f"training.{field.name} must be at least 1, got {value}")


# What differs from the defaults above. Digits are the demonstration: small enough for a laptop within two minutes.
TRAINING_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"steps": 5_000, "validate_every": 500, "valid_examples": 200, "valid_samples": 100},
    "caltech101": {"validate_every": 500},
}


@dataclass
class RunConfig:
    """Everything that determines a run.

    Args:
        model: A key of ``dvae_ext.models.MODELS``.
        preset: The preset that ``model_config`` started from; None for the defaults of the model.
        data: A key of ``dvae_ext.data.DATASETS``.
        data_dir: Folder of the data files, None for data sets that need none.
        binarisation: "static", "dynamic" or "none".
        training: The loop.
        model_config: An instance of the model's config class.
    """

    model: str
    preset: str | None
    data: str
    data_dir: str | None
    binarisation: str
    training: TrainingConfig
    model_config: Any

    @property
    def images(self) -> str:
        """The data set and what its pixels are, for titles and tables."""
        return f"{self.data} ({'grey' if self.binarisation == 'none' else f'{self.binarisation} binarisation'})"

    def to_json(self) -> str:
        """Indented JSON with every value resolved."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Inverse of ``to_json``; fields of ``training`` and ``model_config`` that are absent have today's defaults.

        Raises:
            RunError: if the text is not such a configuration.
        """
        try:
            content = json.loads(text)
        except RecursionError:
            raise RunError("not valid JSON (nested too deeply)") from None
        except ValueError as error:  # JSONDecodeError, or an integer of too many digits
            raise RunError(f"not valid JSON ({error})") from None
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or set(content) != names:
            raise RunError(f"expected an object with the keys {', '.join(sorted(names))}")
        hints = typing.get_type_hints(cls)
        check_types(content, {name: hints[name] for name in names - {"training", "model_config"}})
        check_name("model", content["model"], MODELS)
        content["training"] = from_fields(TrainingConfig, content["training"], "training")
        config_class = MODELS[content["model"]].config_class
        content["model_config"] = from_fields(config_class, content["model_config"], "model_config")
        return cls(**content)

    def absent_from(self, text: str) -> list[str]:
        """Fields that the JSON ``text``, from which this configuration was read, does not hold, with their values."""
        held, whole = json.loads(text), json.loads(self.to_json())
        return [
            f"{part}.{name} = {json.dumps(value)}"
            for part in ("training", "model_config")
            for name, value in whole[part].items()
            if name not in held[part]
        ]


def from_fields(config_class: type, values: Any, where: str) -> Any:
    """An instance of a config dataclass from a JSON object; lists become tuples, as no config holds a list."""
    known = {field.name for field in dataclasses.fields(config_class)}
    if not isinstance(values, dict) or set(values) - known:
        unknown = ", ".join(sorted(set(values) - known)) if isinstance(values, dict) else repr(values)
        raise RunError(f"{where} has unknown fields ({unknown}); known: {', '.join(sorted(known))}")
    values = {key: tuplify(value) for key, value in values.items()}
    check_types(values, typing.get_type_hints(config_class), f"{where}.")
    check_range(values, f"{where}.")
    try:
        return config_class(**values)
    except (TypeError, ValueError) as error:
        raise RunError(f"{where}: {error}") from None


def check_range(values: dict[str, Any], prefix: str = "") -> None:
    """Raise a sentence that names the first integer that 64 bits do not hold, or number that float32 does not."""
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise RunError(f"{prefix}{name} is {number!s:.30}, expected an integer of 64 bits")
            if isinstance(number, float) and number != 0 and not FLOAT32.tiny <= abs(number) <= FLOAT32.max:
                raise RunError(
                    f"{prefix}{name} is {number:g}, expected a number that float32 holds: "
                    f"0, or {FLOAT32.tiny:.2g} to {FLOAT32.max:.2g} in size"
                )


def check_types(values: dict[str, Any], hints: dict[str, Any], prefix: str = "") -> None:
    """Raise a sentence that names the first value that is not of its field's type."""
    for name, value in values.items():
        if name in hints and not has_type(value, hints[name]):
            expected = getattr(hints[name], "__name__", None) if isinstance(hints[name], type) else hints[name]
            raise RunError(f"{prefix}{name} is {value!r}, expected {str(expected).replace('None', 'null')}")


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value from JSON fits a field's annotation: plain types, unions and tuples of them.

    Example:
        >>> has_type((1, 2), tuple[int, ...]), has_type(2, float), has_type(True, int), has_type("a", int | None)
        (True, True, False, False)
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(wanted) and all(map(has_type, value, wanted))
    if parts:
        return any(has_type(value, part) for part in parts)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return hint is Any or isinstance(value, hint)


def tuplify(value: Any) -> Any:
    """Lists, also nested ones, as tuples."""
    return tuple(tuplify(item) for item in value) if isinstance(value, list) else value


def check_name(kind: str, name: str, known: Any) -> None:
    """Raise a sentence with the known names if ``name`` is not among them."""
    if name not in known:
        raise RunError(f"unknown {kind} {name!r}; known: {', '.join(known) or 'none'}")


def default_config(
    model: str, data: str, preset: str | None = None, binarisation: str | None = None, data_dir: str | None = None
) -> RunConfig:
    """The configuration of a model, data set and preset, before any field is overridden.

    Without a preset, the one with the name of the data set is taken if there is one, else the model's defaults.

    Raises:
        RunError: for an unknown model or preset.
        DataError: for an unknown data set or binarisation.

    Example:
        >>> default_config("dvae", "digits").training.steps
        5000
    """
    check_name("model", model, MODELS)
    if data not in DATASETS:
        raise DataError(f"unknown data set {data!r}; known: {', '.join(DATASETS)}")
    spec = MODELS[model]
    if preset is None and data in spec.presets:
        preset = data
    if preset is not None:
        check_name(f"preset of model {model}", preset, spec.presets)
    return RunConfig(
        model=model,
        preset=preset,
        data=data,
        data_dir=data_dir,
        binarisation=binarisation or DATASETS[data].binarisations[0],
        training=TrainingConfig(**TRAINING_DEFAULTS.get(data, {})),
        model_config=spec.config_class(**(spec.presets[preset] if preset else {})),
    )
