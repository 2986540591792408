"""The folder of a run."""

from __future__ import annotations

from pathlib import Path

import torch

from dvae_ext.data import Dataset, derive_seed, load
from dvae_ext.models import MODELS, Model

from .checkpoint import CheckpointError, CheckpointStore, read_checkpoint, write_atomically
from .config import RunConfig, RunError


class RunFolder:
    """Paths of one run, and what is stored under them.

    ``config.json`` (resolved configuration), ``version.txt`` (package version), ``metrics.jsonl``, ``tensorboard/``,
    ``checkpoints/``, ``samples/``, ``samples.png``, ``report.json`` and ``report.md``.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoints = CheckpointStore(self.path / "checkpoints")

    def create(self, config: RunConfig, version: str) -> None:
        """Make the folder and write the configuration.

        Raises:
            RunError: if it holds a run already, or cannot be made.
        """
        if (self.path / "config.json").exists():
            way = (
                f"already holds a run; continue it with --resume {self.path}"
                if self.checkpoints.steps()
                else "holds a run that ended before its first checkpoint; delete the folder"
            )
            raise RunError(f"{self.path} {way}, or choose another --out")
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {self.path}: {error.strerror}") from error
        write_atomically(self.path / "version.txt", f"{version}\n".encode())
        write_atomically(self.path / "config.json", config.to_json().encode())

    def config(self, data_dir: Path | str | None = None) -> RunConfig:
        """The stored configuration, with another data folder if one is given.

        Raises:
            RunError: if the folder holds no run, or its configuration cannot be read.
        """
        path = self.path / "config.json"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise RunError(f"{self.path} holds no run: it has no readable config.json") from None
        try:
            config = RunConfig.from_json(text)
        except RunError as error:
            raise RunError(f"{path} cannot be used: {error}") from None
        if data_dir is not None:
            config.data_dir = str(Path(data_dir).resolve())
        return config

    def load_dataset(self, config: RunConfig) -> Dataset:
        """The data set of the run."""
        return load(config.data, config.data_dir, config.binarisation)

    def load_model(self, config: RunConfig, dataset: Dataset, device: torch.device) -> tuple[Model, int, list[str]]:
        """The model with the best validation likelihood, in evaluation mode.

        Returns:
            The model, the step of its parameters, and sentences about checkpoints that had to be passed over (where the
            best one is not usable, the newest is taken).

        Raises:
            CheckpointError: if no checkpoint can be used.
        """
        problems: list[str] = []
        try:
            content = read_checkpoint(self.checkpoints.best)
        except CheckpointError as error:
            content, more = self.checkpoints.load_newest()
            problems = [str(error), *more, f"step {content['step']} is used instead"]
        model = build_model(config, dataset, rank=0)
        load_parameters(model, content["model"], f"the checkpoint of step {content['step']}")
        return model.to(device).eval(), content["step"], problems


def build_model(config: RunConfig, dataset: Dataset, rank: int) -> Model:
    """A new model; each process draws its own chains, DDP then makes the parameters equal.

    Raises:
        RunError: if the configuration does not suit the images, or the batches are too small for the model.
    """
    torch.manual_seed(derive_seed(config.training.seed, "model", rank))
    try:
        model = MODELS[config.model].build(config.model_config, dataset.info)
    except ValueError as error:
        raise RunError(f"model {config.model} cannot be built for {config.data}: {error}") from None
    if config.training.batch_size < model.smallest_batch:
        raise RunError(
            f"training.batch_size is {config.training.batch_size}, expected at least {model.smallest_batch}: this "
            "model computes statistics over the batch"
        )
    model.initialise(dataset.info.train_mean)
    return model


def load_parameters(model: Model, state: dict[str, torch.Tensor], what: str) -> None:
    """``load_state_dict`` with an error of one sentence.

    Raises:
        CheckpointError: if names or shapes differ.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{what} does not fit the model in config.json: {reason}") from None
