"""Ctrl-C, SIGTERM and SIGHUP end a run between two steps, with a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds within which a second signal is the first one again: a shell hangs up beside its terminal, torchrun passes on
# the Ctrl-C that its processes have had from the terminal.
ECHO = 1.0


class StopRequested(BaseException):
    """Raised inside ``Interrupts.at_once`` when a signal arrives; no ``except Exception`` may take it for a fault."""


class Interrupted(Exception):
    """A run stopped by a signal after its checkpoint was saved.

    Args:
        signum: The signal.
        step: Updates done, all of them in the checkpoint.
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after {step} steps")
        self.signum, self.step = signum, step


class Interrupts:
    """While active, the first of ``SIGNALS`` is noted in ``signum``; one a second later acts as it would without us.

    A SIGHUP that is ignored, as under ``nohup``, stays so.

    Example:
        >>> with Interrupts() as interrupts:
        ...     interrupts.signum is None
        True
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._noted = 0.0
        self._at_once = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for signum in SIGNALS:
                if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
                    self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self._noted = signum, time.monotonic()
            if self._at_once:
                raise StopRequested
        elif time.monotonic() - self._noted > ECHO:
            self._restore()
            signal.raise_signal(signum)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For long work that changes no state of the run: a signal raises ``StopRequested`` instead of waiting."""
        if self.signum is not None:
            raise StopRequested
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
