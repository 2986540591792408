"""Checkpoint files: complete or absent, never half written, and never trusted unread."""

from __future__ import annotations

import io
import math
import operator
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import RunError, reason
from .files import saving, write_atomically

FORMAT = "dvae_ext checkpoint 2"
KEEP = 2


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read, or used; the message names the file."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint on the CPU: at least its "step" and the tensors of its "model" are there.

    Raises:
        CheckpointError: if the file is missing, torn, or not a checkpoint of this package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch stores its parts as they are; what unpacks to more than the file is made to fill the memory.
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("its parts are larger than the file")
            torn = archive.testzip()  # compares every checksum, torch.load does not
        content = None if torn else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint {path}") from None
    except Exception as error:  # zipfile, pickle and torch raise many kinds of errors on foreign bytes
        kind = type(error).__name__
        raise CheckpointError(f"{path} is torn or not a checkpoint ({kind}: {reason(error)})") from None
    if torn:
        raise CheckpointError(f"{path} is torn: its part {torn} does not match its checksum")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = repr(content.get("format") if isinstance(content, dict) else type(content).__name__)
        raise CheckpointError(f"{path} is not a checkpoint of this version: expected {FORMAT!r}, found {found:.80}")
    step, model = content.get("step"), content.get("model")
    if type(step) is not int or step < 0:
        raise CheckpointError(f"{path} is damaged: its step is {step!r:.80}, expected a number of updates")
    if not isinstance(model, dict) or not all(type(key) is str and type(model[key]) is Tensor for key in model):
        raise CheckpointError(f"{path} is damaged: its model is not a set of named tensors")
    return content


def check_form(value: Any, template: Any, where: str) -> None:
    """Compare what was read with what the running program would write: types, keys, lengths, shapes; numbers finite.

    Args:
        value: From a file.
        template: A value of the same form: nested dicts, lists and tuples of tensors and numbers; NaN allows any.
        where: Its name in the message.

    Raises:
        ValueError: a sentence with the place that differs first.

    Example:
        >>> check_form({"a": torch.ones(2)}, {"a": torch.zeros(2)}, "model")
        >>> check_form({"a": torch.ones(2)}, {"a": torch.zeros(3)}, "model")
        Traceback (most recent call last):
            ...
        ValueError: model.a is torch.float32 [2], expected torch.float32 [3]
    """
    if type(value) is not type(template):
        raise ValueError(f"{where} is of type {type(value).__name__}, expected {type(template).__name__}")
    if isinstance(template, Tensor):
        found, expected = (f"{tensor.dtype} {list(tensor.shape)}" for tensor in (value, template))
        if found != expected:
            raise ValueError(f"{where} is {found}, expected {expected}")
        if value.layout != torch.strided or value.device.type != "cpu" or value.requires_grad:
            raise ValueError(f"{where} is no plain tensor")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{where} holds NaN or infinity")
    elif isinstance(template, dict):
        if different := value.keys() ^ template.keys():
            first = min(different, key=str)
            raise ValueError(f"{where} {'lacks' if first in template else 'has an unknown'} {first!r:.80}")
        for key in template:
            check_form(value[key], template[key], f"{where}.{key}")
    elif isinstance(template, list | tuple):
        if len(value) != len(template):
            raise ValueError(f"{where} has {len(value)} parts, expected {len(template)}")
        for i, (part, expected) in enumerate(zip(value, template, strict=True)):
            check_form(part, expected, f"{where}[{i}]")
    elif isinstance(template, float) and math.isfinite(template) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, expected a finite number")


def check_state(content: dict[str, Any], template: dict[str, Any], rank: int, path: Path) -> None:
    """Whether a checkpoint can be continued from, before anything of it is used.

    Args:
        content: From ``read_checkpoint``.
        template: The state that the running program would write now, with an optimiser that has made a step.
        rank: This process.
        path: The file, for messages.

    Raises:
        CheckpointError: if not; it says what differs.
    """
    try:
        if absent := template.keys() - content.keys():
            raise ValueError(f"it lacks {min(absent)}")
        for key in ("model", "optimizer", "scheduler", "validated"):
            check_form(content[key], template[key], key)
        # The rate moves with the steps; all else must be what config.json says.
        saved, expected = (
            [{**group, "lr": None} for group in state["optimizer"]["param_groups"]] for state in (content, template)
        )
        rates = (state["scheduler"].get("base_lrs") for state in (content, template))
        if saved != expected or not operator.eq(*rates):
            raise ValueError("its optimizer has other settings than config.json gives")
        if not 0 <= content["validated"] <= content["step"]:
            raise ValueError(f"validated is {content['validated']}, expected at most its step, {content['step']}")
        if content["best"] is not None:
            check_form(content["best"], (0, 0.0), "best")
        if content["valid"] is not None:
            check_form(content["valid"], (math.nan, math.nan), "valid")
        own, form = content["ranks"][rank], template["ranks"][rank]
        check_form(own, {**form, "cuda_rng": own.get("cuda_rng"), "window": own.get("window")}, f"ranks[{rank}]")
        torch.Generator().set_state(own["rng"])
        if form["cuda_rng"] is not None and own["cuda_rng"] is not None:
            check_form(own["cuda_rng"], form["cuda_rng"], f"ranks[{rank}].cuda_rng")
        elif not isinstance(own["cuda_rng"], Tensor | None):  # of a GPU, and continued on the CPU
            raise ValueError(f"ranks[{rank}].cuda_rng is of type {type(own['cuda_rng']).__name__}, expected Tensor")
        check_window(own["window"])
    except (AttributeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the model in config.json: {reason(error)}") from None


def check_window(window: Any) -> None:
    """Raise ValueError unless it holds the names, the sums and the count of ``MetricWindow``."""
    if type(window) is tuple and len(window) == 3:
        names, total, count = window
        if type(names) is list and all(type(name) is str for name in names) and type(count) is int:
            if total is None and count == 0:
                return
            if type(total) is Tensor and total.is_floating_point() and count > 0:
                return check_form(total, torch.zeros(len(names), dtype=total.dtype), "window")
    raise ValueError("window is not made of the names, sums and count of metrics")


class CheckpointStore:
    """The checkpoints of one run: the last two, and the one with the best validation likelihood.

    Args:
        folder: Where they lie; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.pt"

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, newest first."""
        matches = (re.fullmatch(r"step-(\d+)\.pt", path.name) for path in self.folder.glob("step-*.pt"))
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def path(self, step: int) -> Path:
        """File of one step."""
        return self.folder / f"step-{step:08d}.pt"

    def save(self, content: dict[str, Any], step: int) -> Path:
        """Write the checkpoint of ``step`` and remove all but the last two.

        Raises:
            CheckpointError: if it cannot be written; the earlier ones are then intact.
        """
        path = self.path(step)
        self._write(path, content)
        for old in self.steps()[KEEP:]:
            self.path(old).unlink(missing_ok=True)
        return path

    def save_best(self, content: dict[str, Any]) -> None:
        """Replace the checkpoint with the best validation likelihood."""
        self._write(self.best, content)

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **content}, buffer)
        try:
            with saving(path):
                self.folder.mkdir(exist_ok=True)  # a run folder that was deleted stays so: half of one is of no use
            write_atomically(path, buffer.getvalue())
        except RunError as error:
            raise CheckpointError(f"{error}; earlier checkpoints are intact") from error

    def remove_leftovers(self) -> None:
        """Remove what a killed process had not written to the end; for the only process that writes here."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """What a run can be continued from: newest first, and the best one where no other is left."""
        return [*map(self.path, self.steps()), *([self.best] if self.best.exists() else [])]

    def load_newest(self) -> tuple[dict[str, Any], list[str]]:
        """The newest usable checkpoint, and a sentence about each newer one that had to be passed over.

        Raises:
            CheckpointError: if there is none.
        """
        problems: list[str] = []
        for path in self.files():
            try:
                return read_checkpoint(path), problems
            except CheckpointError as error:
                problems.append(str(error))
        if not problems:
            raise CheckpointError(f"no checkpoint in {self.folder}")
        raise CheckpointError("; ".join([f"no usable checkpoint in {self.folder}", *problems]))

    def load_best(self) -> tuple[dict[str, Any], list[str]]:
        """The checkpoint with the best validation likelihood, or else the newest usable one and sentences that say so.

        Raises:
            CheckpointError: if there is none.
        """
        try:
            return read_checkpoint(self.best), []
        except CheckpointError as error:
            content, more = self.load_newest()
            return content, [str(error), *more, f"step {content['step']} is used instead"]
