"""The folder of a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dvae_ext.data import Dataset, derive_seed, load
from dvae_ext.models import MODELS, Model

from .checkpoint import CheckpointError, CheckpointStore, check_form
from .config import RunConfig, RunError, reason
from .files import locked, saving, write_atomically


class RunFolder:
    """Paths of one run, and what is stored under them.

    ``config.json`` (resolved configuration), ``version.txt`` (package version), ``metrics.jsonl``, ``tensorboard/``,
    ``checkpoints/``, ``samples/``, ``samples.png``, ``report.json`` and ``report.md``; ``.lock`` while a
    process trains.

    Args:
        path: The folder.
        numbered: A new run takes the next free name after ``path``, ``path-2``, ``path-3`` ..., where it is taken.
    """

    def __init__(self, path: Path | str, numbered: bool = False) -> None:
        self.path = Path(path)
        self.numbered = numbered
        self.notes: list[str] = []
        """Sentences about this run for whoever uses it."""

    @property
    def checkpoints(self) -> CheckpointStore:
        """Its checkpoints."""
        return CheckpointStore(self.path / "checkpoints")

    @contextmanager
    def writing(self, new: tuple[RunConfig, str] | None = None) -> Iterator[None]:
        """Be the only process that writes to the run.

        Args:
            new: Configuration and package version of a run that begins; its folder is made.

        Raises:
            RunError: if another process writes to it, or it cannot be made; for a new run, if it holds one already.
        """
        if new is not None:
            self._make()
        with locked(self.path) as note:
            self.notes += [note] if note else []
            if new is not None:
                self._begin(*new)
            with saving(self.path / "samples"):
                (self.path / "samples").mkdir(exist_ok=True)
            self.checkpoints.remove_leftovers()
            yield

    def _make(self) -> None:
        base = self.path
        for number in itertools.count(2):
            try:
                # Of two processes that want the same name only one can make it.
                self.path.mkdir(parents=True, exist_ok=not self.numbered)
                return
            except OSError as error:
                if not self.numbered or not isinstance(error, FileExistsError):
                    raise RunError(f"cannot make the run folder {self.path}: {error.strerror}") from error
                self.path = base.with_name(f"{base.name}-{number}")

    def _begin(self, config: RunConfig, version: str) -> None:
        if (self.path / "config.json").exists():
            raise RunError(
                f"{self.path} already holds a run; continue it with --resume {self.path}, or choose another --out"
            )
        write_atomically(self.path / "version.txt", f"{version}\n".encode())
        write_atomically(self.path / "config.json", config.to_json().encode())

    def config(self, data_dir: Path | str | None = None) -> RunConfig:
        """The stored configuration, with another data folder if one is given; ``notes`` name the fields it lacks.

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
        if filled := config.absent_from(text):
            self.notes.append(f"{path} lacks fields, today's defaults are taken: {', '.join(filled)}")
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
        content, problems = self.checkpoints.load_best()
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
    except (MemoryError, OverflowError, RuntimeError) as error:  # torch has RuntimeError for sizes that are absurd
        raise RunError(f"model {config.model} cannot be built, it may be too large: {reason(error)}") from None
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
        CheckpointError: if names, shapes or types differ, or a number is not finite.
    """
    try:
        check_form(dict(state), dict(model.state_dict()), "model")
        model.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{what} does not fit the model in config.json: {reason(error)}") from None
