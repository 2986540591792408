"""Checkpoint files: complete or absent, never half written, and never trusted unread."""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

FORMAT = "dvae_ext checkpoint 2"
KEEP = 2


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read, or used; the message names the file."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that ``path`` holds either its old content or all of the new one, also after a power cut.

    Raises:
        CheckpointError: if the disk is full or the folder is not writable; ``path`` is then untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"cannot save {path}: {error.strerror}; earlier checkpoints are intact") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint on the CPU.

    Raises:
        CheckpointError: if the file is missing, torn, or not a checkpoint of this package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()  # compares every checksum, torch.load does not
        content = None if torn else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint {path}") from None
    except Exception as error:  # zipfile, pickle and torch raise many kinds of errors on foreign bytes
        reason = str(error).partition("\n")[0].rstrip(".")
        raise CheckpointError(f"{path} is torn or not a checkpoint ({type(error).__name__}: {reason})") from None
    if torn:
        raise CheckpointError(f"{path} is torn: its part {torn} does not match its checksum")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} is not a checkpoint of this version: expected {FORMAT!r}, found {found!r}")
    return content


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
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot make {self.folder}: {error.strerror}") from error
        write_atomically(path, buffer.getvalue())

    def load_newest(self) -> tuple[dict[str, Any], list[str]]:
        """The newest usable checkpoint, and a sentence about each newer one that had to be passed over.

        Raises:
            CheckpointError: if there is none.
        """
        problems: list[str] = []
        for step in self.steps():
            try:
                return read_checkpoint(self.path(step)), problems
            except CheckpointError as error:
                problems.append(str(error))
        if not problems:
            raise CheckpointError(f"no checkpoint in {self.folder}")
        raise CheckpointError("; ".join([f"no usable checkpoint in {self.folder}", *problems]))
