"""Signals: the first is noted, its echo is not a second one."""

import os
import signal

import pytest
import torch

from dvae_ext.training import interrupt, read_checkpoint
from dvae_ext.training.interrupt import Interrupts


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_its_echo_too(signum, clock):
    before = signal.getsignal(signum)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signum)
        assert interrupts.signum == signum
        clock[0] += 0.5
        os.kill(os.getpid(), signum)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.signum == signum
    assert signal.getsignal(signum) is before


def test_a_second_ctrl_c_acts_at_once(clock):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts without it
    try:
        second_ctrl_c(clock)
    finally:
        signal.signal(signal.SIGINT, before)


def second_ctrl_c(clock):
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        clock[0] += 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.signum == signal.SIGINT


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.signum is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stop_is_taken_for_no_fault_of_what_it_interrupts(tmp_path, monkeypatch):
    """Reading a checkpoint turns every exception into a sentence about the file, and goes on with another."""
    torch.save({}, tmp_path / "best.pt")

    def load(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(torch, "load", load)
    with Interrupts() as interrupts, interrupts.at_once(), pytest.raises(interrupt.StopRequested):
        read_checkpoint(tmp_path / "best.pt")
