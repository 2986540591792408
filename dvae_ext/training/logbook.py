"""Where the numbers of a run go: a progress bar, JSON lines and TensorBoard."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

# Metrics shown in the progress bar, with their short names.
SHOWN = {
    "bound": "bound",
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
        if self.total is None:
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


class Logbook:
    """Writes the metrics of a run, continuing where a stopped run left off.

    Args:
        folder: Run folder; ``metrics.jsonl`` and ``tensorboard/`` are written there.
        step: Steps already done: later lines of an earlier attempt are removed.
        steps: Steps in all.
        quiet: Write and show nothing (every process but the first).
    """

    def __init__(self, folder: Path, step: int, steps: int, quiet: bool = False) -> None:
        self.quiet = quiet
        self.shown: dict[str, str] = {}
        self.valid: dict[str, str] = {}
        if quiet:
            return
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        path = folder / "metrics.jsonl"
        keep_lines_until(path, step)
        self.stream = open(path, "a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        interval = 0.2 if sys.stderr.isatty() else 30.0
        self.bar = tqdm(total=steps, initial=step, unit="step", mininterval=interval, dynamic_ncols=True)

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.quiet:
            self.bar.close()
            self.board.close()
            self.stream.close()

    def write(self, split: str, step: int, values: dict[str, float]) -> None:
        """One line of metrics, also as TensorBoard scalars."""
        if self.quiet:
            return
        self.stream.write(json_text({"split": split, "step": step, **values}) + "\n")
        self.stream.flush()
        for name, value in values.items():
            self.board.add_scalar(f"{split}/{name}", value, step)

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
            self.bar.write(text, file=sys.stderr)

    def image(self, name: str, step: int, image: Any) -> None:
        """A grey image ``[height, width]`` of uint8 for TensorBoard."""
        if not self.quiet:
            self.board.add_image(name, image, step, dataformats="HW")


def keep_lines_until(path: Path, step: int) -> None:
    """Drop the lines of ``path`` past ``step``, and a last line cut short when the run was killed."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    path.write_text("".join(kept), encoding="utf-8")
