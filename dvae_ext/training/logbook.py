"""Where the numbers of a run go: a progress bar, JSON lines and TensorBoard."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from .files import saving, write_atomically

# Metrics shown in the progress bar, with their short names.
SHOWN = {
    "bound": "bound",
    "relaxed": "relaxed bound",
    "reconstruction": "reconstruction",
    "kl": "KL",
    "kl_without_log_z": "KL - log Z",
    "chain_free_energy": "F of chains",
}


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON of plain values; numbers that are not finite, for which it has no name, become null.

    Example:
        >>> json_text({"step": 5, "bound": float("nan")})
        '{"step": 5, "bound": null}'
    """

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {name: plain(part) for name, part in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(part) for part in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(plain(value), indent=indent, allow_nan=False)


class MetricWindow:
    """Sums of metrics on the device: reading one out every step would make the processor wait for the GPU."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.count = 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add the metrics of one step, 0-dim tensors."""
        values = torch.stack(tuple(metrics.values()))
        if self.total is None or self.names != list(metrics):  # a sum that another version began
            self.count = 0
            self.names, self.total = list(metrics), values
        else:
            self.total += values
        self.count += 1

    def take(self) -> tuple[list[str], Tensor]:
        """Names and means of the metrics since the last call."""
        assert self.total is not None, "take() needs at least one add()"
        mean = self.total / self.count
        self.total, self.count = None, 0
        return self.names, mean


class Terminal:
    """Standard error whose reader may go away, as a terminal does when its window is closed: training goes on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> None:
        """Write, if somebody reads."""
        with suppress(OSError):
            self.stream.write(text)

    def flush(self) -> None:
        """Flush, if somebody reads."""
        with suppress(OSError):
            self.stream.flush()


class Records:
    """A file that is appended to, line by line or event by event; each is on its way to the disk before the next.

    Args:
        path: The file; its folder is made.

    Raises:
        RunError: if it cannot be opened; so does ``write`` where the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with saving(path):
            path.parent.mkdir(exist_ok=True)
            self.stream = open(path, "ab")

    def write(self, content: bytes) -> None:
        """Append ``content``."""
        with saving(self.path):
            self.stream.write(content)
            self.stream.flush()

    def close(self) -> None:
        """Close the file; what could not be written has been told."""
        with suppress(OSError):
            self.stream.close()


class Board:
    """TensorBoard's event file. TensorBoard's own writer has a thread, whose errors end in a traceback.

    Args:
        folder: Where the file is made.
        step: Steps already done: later events of an earlier attempt are hidden.

    Raises:
        RunError: if the file cannot be written; so does every method.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads files in the order of their names: attempts may begin in the same second.
        seconds, fraction = divmod(time.time_ns(), 10**9)
        writer = f"{socket.gethostname()}.{os.getpid()}"
        self.file = Records(folder / f"events.out.tfevents.{seconds:010d}.{fraction:09d}.{writer}")
        self.event, self.records = Event, RecordWriter(self.file)
        self.write(file_version="brain.Event:2")
        self.write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, **fields: Any) -> None:
        """Append an event."""
        self.records.write(self.event(wall_time=time.time(), **fields).SerializeToString())


class Logbook:
    """Writes the metrics of a run, continuing where a stopped run left off.

    Args:
        folder: Run folder; ``metrics.jsonl`` and ``tensorboard/`` are written there.
        step: Steps already done: later lines of an earlier attempt are removed.
        steps: Steps in all.
        quiet: Write and show nothing (every process but the first).

    Raises:
        RunError: if a file cannot be written; so do ``write`` and ``image``.
    """

    def __init__(self, folder: Path, step: int, steps: int, quiet: bool = False) -> None:
        self.quiet = quiet
        self.shown: dict[str, str] = {}
        self.valid: dict[str, str] = {}
        if quiet:
            return
        from tqdm import tqdm

        path = folder / "metrics.jsonl"
        dropped = keep_lines_until(path, step)
        self.metrics = Records(path)
        self.board = Board(folder / "tensorboard", step)
        interval = 0.2 if sys.stderr.isatty() else 30.0
        self.terminal = Terminal(sys.stderr)
        self.bar = tqdm(
            total=steps, initial=step, unit="step", mininterval=interval, dynamic_ncols=True, file=self.terminal
        )
        for note in dropped:
            self.say(f"note: {note}")

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.quiet:
            self.bar.close()
            self.board.file.close()
            self.metrics.close()

    def write(self, split: str, step: int, values: dict[str, float]) -> None:
        """One line of metrics, also as TensorBoard scalars."""
        if self.quiet:
            return
        from torch.utils.tensorboard.summary import scalar

        self.metrics.write((json_text({"split": split, "step": step, **values}) + "\n").encode())
        for name, value in values.items():
            self.board.write(step=step, summary=scalar(f"{split}/{name}", value))

    def progress(self, step: int, values: dict[str, float]) -> None:
        """Move the bar to ``step`` and show the metrics that belong in it."""
        if self.quiet:
            return
        self.shown = {short: f"{values[name]:.2f}" for name, short in SHOWN.items() if name in values}
        self.bar.set_postfix(self.shown | self.valid, refresh=False)
        self.bar.update(step - self.bar.n)

    def validated(self, value: float, std_error: float) -> None:
        """Show the likelihood of the last validation in the bar."""
        if self.quiet:
            return
        self.valid = {"valid": f"{value:.2f} ± {std_error:.2f}"}
        self.bar.set_postfix(self.shown | self.valid)

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        if not self.quiet:
            self.bar.write(text, file=self.terminal)

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """A grey image ``[height, width]`` of uint8 for TensorBoard."""
        if self.quiet:
            return
        from torch.utils.tensorboard.summary import image as picture

        self.board.write(step=step, summary=picture(name, image, dataformats="HW"))


def keep_lines_until(path: Path, step: int) -> list[str]:
    """Drop the lines of ``path`` past ``step``, and those that are damaged, as the last one is where a run was killed.

    Returns:
        A sentence about each damaged line.

    Raises:
        RunError: if the file cannot be read, or not be written anew; it is then untouched.
    """
    with saving(path):
        content = path.read_bytes() if path.exists() else b""
    kept, damaged = [], []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            at = json.loads(line)["step"]
            if not isinstance(at, int):
                raise ValueError
            if at <= step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged.append(f"line {number} of {path} is damaged and was dropped")
    if b"".join(kept) != content:
        write_atomically(path, b"".join(kept))
    return damaged
