"""The ops that change their arguments: tensors that share memory, and calls that are interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dvae_ext import ops, rng
from dvae_ext.ops import _in_place
from python_tests.ops.test_rbm_gibbs import Machine
from python_tests.ops.test_rbm_temper import BETAS, Run, equal, make


def overlaps(device: torch.device | None = None) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """What came, by the sentence it earns: arguments of a machine of 4 visible and 4 hidden units."""
    rows, square, long = (torch.zeros(shape, device=device) for shape in ((7, 4), (4, 4), (40,)))
    return {
        "rows": ("hidden shares memory with visible", {"visible": rows[:5], "hidden": rows[2:]}),
        "the same": ("hidden shares memory with visible", {"visible": rows, "hidden": rows}),
        "transposed": ("hidden shares memory with visible", {"visible": square, "hidden": square.T}),
        "expanded": (
            "hidden has several elements in one place",
            {"visible": rows, "hidden": long[:4].expand(7, 4)},
        ),
        "windows": (
            "visible has several elements in one place",
            {"visible": long.unfold(0, 4, 2)[:7], "hidden": rows},
        ),
        "weight": ("weight shares memory with visible", {"visible": square, "weight": square}),
        "bias": ("hidden_bias shares memory with hidden", {"hidden": square, "hidden_bias": square[1]}),
    }


@pytest.mark.parametrize("case", overlaps())
def test_states_that_share_memory_are_refused(case: str, device: torch.device) -> None:
    sentence, change = overlaps(device)[case]
    chains = change["visible" if "visible" in change else "hidden"].shape[0]
    shapes = {
        "visible": (chains, 4),
        "hidden": (chains, 4),
        "weight": (4, 4),
        "visible_bias": (4,),
        "hidden_bias": (4,),
    }
    arguments = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()} | change
    before = {name: tensor.clone() for name, tensor in arguments.items()}
    with pytest.raises(RuntimeError, match=f"^rbm_gibbs_: {sentence}, expected a tensor "):
        ops.rbm_gibbs_(**arguments, key=rng.key(0, device), sweeps=1)
    assert all(torch.equal(arguments[name], before[name]) for name in arguments)


def test_shared_memory_is_found_where_the_default_device_is_another() -> None:
    sentence, change = overlaps()["windows"]
    zeros = {name: torch.zeros(4) for name in ("visible_bias", "hidden_bias")}
    arguments = {**change, **zeros, "weight": torch.zeros(4, 4), "key": rng.key(0)}
    torch.set_default_device("meta")
    try:
        with pytest.raises(RuntimeError, match=sentence):
            ops.rbm_gibbs_(**arguments, sweeps=1)
    finally:
        torch.set_default_device(None)


def test_states_that_interleave_are_not_refused(device: torch.device) -> None:
    """Columns of one matrix lie among each other and share nothing."""
    apart, joined = (Machine(6, 5, 9, device, seed=14) for _ in range(2))
    both = torch.cat([joined.visible, joined.hidden], 1)
    joined.visible, joined.hidden = both[:, :6], both[:, 6:]
    apart.sweep(3)
    joined.sweep(3)
    assert torch.equal(both, torch.cat([apart.visible, apart.hidden], 1))


def interrupt_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the key is advanced for the piece after this one."""
    calls = []

    def advance(key: Tensor, sweeps: int) -> Tensor:
        calls.append(sweeps)
        if len(calls) == call:
            raise KeyboardInterrupt
        return advance_key(key, sweeps)

    advance_key = rng.advance_
    monkeypatch.setattr(_in_place.rng, "advance_", advance)


@pytest.mark.not_interpreted("cuts the calls of the CPU kernels; a call to a GPU returns at once")
@pytest.mark.parametrize("strided", [False, True])
def test_ctrl_c_leaves_whole_sweeps(strided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long call is made of pieces with the draws of one; Ctrl-C between two leaves the states of those made."""
    whole, parts, stopped, expected = (Machine(7, 6, 5, seed=15) for _ in range(4))
    for machine in (parts, stopped) if strided else ():
        machine.visible = machine.visible.t().contiguous().t()
    whole.sweep(40)
    expected.sweep(9)
    monkeypatch.setattr(_in_place, "_batches_in_a_piece", lambda *_: 3)
    ops.rbm_gibbs_(*parts.arguments(), 40)
    assert torch.equal(parts.visible, whole.visible)
    assert torch.equal(parts.hidden, whole.hidden)
    version = stopped.visible._version
    interrupt_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        ops.rbm_gibbs_(*stopped.arguments(), 40)
    assert torch.equal(stopped.visible, expected.visible)
    assert torch.equal(stopped.hidden, expected.hidden)
    assert stopped.visible._version > version
    assert stopped.key.tolist() == [10, 0]


@pytest.mark.not_interpreted("interrupts the CPU kernels; a call to a GPU returns at once")
def test_a_signal_ends_a_call_of_years() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    machine = Machine(200, 200, 1000, seed=16)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            machine.sweep(10**12)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ((machine.visible == 0) | (machine.visible == 1)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: {"level": run.travel}, "travel shares memory with level"),
        (
            lambda run: {"visible": run.statistics.view(torch.float32)[:, 4:8, :4]},
            "statistics shares memory with visible",
        ),
        (lambda run: {"weight": run.visible.view(-1)[: 4 * 5].view(4, 5)}, "weight shares memory with visible"),
        (lambda run: {"shifts": run.statistics.view(-1)[:3]}, "shifts shares memory with statistics"),
        (lambda run: {"level": run.level[:1].expand(2, 4)}, "level has several elements in one place"),
    ],
)
def test_arguments_that_share_memory(
    change: Callable[[Run], dict[str, Tensor]], message: str, device: torch.device
) -> None:
    run = make(4, 5, 2, BETAS, device=device)
    run = replace(run, **change(run))
    before = run.copy()
    with pytest.raises(RuntimeError, match=f"^rbm_temper_: {message}, expected a tensor "):
        run(ops.rbm_temper_, 2)
    assert equal(run, before)


@pytest.mark.not_interpreted("cuts the calls of the CPU kernels; a call to a GPU returns at once")
def test_ctrl_c_leaves_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    start = make(4, 5, 2, BETAS)
    whole, nine = start.copy()(ops.rbm_temper_, 24, batch=3), start.copy()(ops.rbm_temper_, 9, batch=3)
    monkeypatch.setattr(_in_place, "_batches_in_a_piece", lambda *_: 1)
    parts = start.copy()(ops.rbm_temper_, 24, batch=3)
    assert torch.equal(parts.visible, whole.visible)
    assert torch.equal(parts.level, whole.level)
    torch.testing.assert_close(parts.statistics, whole.statistics, rtol=1e-12, atol=1e-12)
    interrupt_at(3, monkeypatch)
    stopped = start.copy()
    with pytest.raises(KeyboardInterrupt):
        stopped(ops.rbm_temper_, 24, batch=3)
    assert torch.equal(stopped.visible, nine.visible)
    assert torch.equal(stopped.level, nine.level)
    torch.testing.assert_close(stopped.statistics, nine.statistics, rtol=1e-12, atol=1e-12)
