"""Block Gibbs sampling: each draw against float64 thresholds, and the stationary distribution against enumeration."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dvae_ext import ops, reference, rng
from dvae_ext.reference.philox import philox4x32, split_key, uniform_open

VISIBLE_STREAM = 1 << 31


class Machine:
    """A random RBM with random states."""

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        chains: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        state_dtype: torch.dtype | None = None,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype).to(device)

        self.weight = normal(n_visible, n_hidden) * scale / math.sqrt(max(n_visible, n_hidden))
        self.visible_bias, self.hidden_bias = 0.5 * normal(n_visible), 0.5 * normal(n_hidden)
        self.visible, self.hidden = (
            torch.randint(0, 2, (chains, units), generator=generator).to(device, state_dtype or dtype)
            for units in (n_visible, n_hidden)
        )
        self.key = rng.key(seed - 5, device=device)

    def arguments(self) -> list[Tensor]:
        return [self.visible, self.hidden, self.weight, self.visible_bias, self.hidden_bias, self.key]

    def sweep(self, sweeps: int = 1) -> None:
        ops.rbm_gibbs_(*self.arguments(), sweeps)
        rng.advance_(self.key, sweeps)


def assert_drawn(outputs: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor, key: Tensor, stream: int) -> None:
    """Every output is the one that float64 draws, except where the field is within rounding of its threshold."""
    tolerance = 1e-11 if weight.dtype == torch.float64 else 2e-5
    chains, units = outputs.shape
    words, (c2, c3) = split_key(key.cpu())
    blocks, rows = torch.arange((units + 3) // 4) | stream, torch.arange(chains).unsqueeze(1)
    uniform = uniform_open(philox4x32((blocks, rows, c2, c3), words).reshape(chains, -1)[:, :units], torch.float64)
    excess = bias.cpu().double() + inputs.cpu().double() @ weight.cpu().double() - torch.logit(uniform)
    assert ((outputs == 0) | (outputs == 1)).all()
    wrong = (outputs.cpu() == 1) != (excess > 0)
    assert excess[wrong].abs().max().item() < tolerance if wrong.any() else True


def assert_sweeps_are_drawn(machine: Machine, sweeps: int) -> None:
    for _ in range(sweeps):
        before, key = machine.visible.clone(), machine.key.clone()
        machine.sweep()
        assert_drawn(machine.hidden, before, machine.weight, machine.hidden_bias, key, 0)
        assert_drawn(machine.visible, machine.hidden, machine.weight.t(), machine.visible_bias, key, VISIBLE_STREAM)


SHAPES = [
    (1, 1, 1),
    (1, 1, 100),
    (3, 2, 5),
    (10, 8, 16),
    (20, 21, 17),
    (64, 64, 40),
    (131, 97, 81),
    (241, 239, 9),  # beyond the shared memory of every GPU
    (40, 3001, 3),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]},{s[2]}")
def test_every_draw_is_the_one_of_the_counter(device: torch.device, shape: tuple[int, int, int]) -> None:
    assert_sweeps_are_drawn(Machine(*shape, device, seed=1), sweeps=2)


@pytest.mark.parametrize(
    ("dtype", "state_dtype"),
    [(torch.float64, torch.float64), (torch.float32, torch.bfloat16), (torch.float64, torch.bfloat16)],
)
def test_dtypes(device: torch.device, dtype: torch.dtype, state_dtype: torch.dtype) -> None:
    assert_sweeps_are_drawn(Machine(37, 45, 19, device, dtype, state_dtype, seed=2), sweeps=3)
    assert_sweeps_are_drawn(Machine(199, 260, 9, device, dtype, state_dtype, seed=2), sweeps=1)


def test_large_machine_and_many_chains(interpreted: bool) -> None:
    assert_sweeps_are_drawn(Machine(784, 500, 1 if interpreted else 50, seed=3), sweeps=1)
    assert_sweeps_are_drawn(Machine(33, 27, 300 if interpreted else 10_000, seed=3), sweeps=2)


@pytest.mark.not_interpreted("chooses among the instruction sets of the CPU kernels")
@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_other_instruction_sets_draw_the_same(isa: str) -> None:
    code = (
        "from python_tests.ops.test_rbm_gibbs import *\n"
        "for dtype in (torch.float32, torch.float64):\n"
        "    assert_sweeps_are_drawn(Machine(45, 131, 37, 'cpu', dtype, seed=4), sweeps=2)\n"
        "    assert_sweeps_are_drawn(Machine(1, 3, 1, 'cpu', dtype, seed=4), sweeps=2)\n"
    )
    environment = {**os.environ, "DVAE_EXT_CPU": isa}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_reference_has_the_same_draws() -> None:
    """40 sweeps of 3,000 units; a tie would need a uniform within 1e-6 of its threshold: expected ties 0.03."""
    ours, theirs = Machine(40, 35, 40, seed=5), Machine(40, 35, 40, seed=5)
    ours.sweep(40)
    reference.rbm_gibbs_(*theirs.arguments(), 40)
    assert torch.equal(ours.visible, theirs.visible)
    assert torch.equal(ours.hidden, theirs.hidden)


def test_sweeps_can_be_split(device: torch.device) -> None:
    whole, parts = (Machine(23, 30, 11, device, seed=6) for _ in range(2))
    for machine in (whole, parts):
        machine.key[1] = 2**32 - 15  # the counter carries into its upper word on the way
    whole.sweep(40)
    parts.sweep(10)
    parts.sweep(30)
    assert torch.equal(whole.visible, parts.visible)
    assert torch.equal(whole.hidden, parts.hidden)
    assert not torch.equal(whole.visible, Machine(23, 30, 11, device, seed=6).visible)


def test_a_chain_does_not_depend_on_the_others(device: torch.device) -> None:
    many = Machine(30, 22, 75, device, seed=7)
    few = Machine(30, 22, 75, device, seed=7)
    few.visible, few.hidden = few.visible[:13].clone(), few.hidden[:13].clone()
    many.sweep(5)
    few.sweep(5)
    assert torch.equal(many.visible[:13], few.visible)
    assert torch.equal(many.hidden[:13], few.hidden)


@pytest.fixture
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.not_interpreted("sets the threads of the CPU kernels; the interpreter has one")
@pytest.mark.usefixtures("_restore_threads")
def test_threads_do_not_change_the_result() -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for dtype in (torch.float32, torch.float64):
            machine = Machine(70, 101, 333, dtype=dtype, seed=8)
            machine.sweep(6)
            results.append(torch.cat([machine.visible, machine.hidden], 1).float())
    assert all(torch.equal(results[i], results[i % 2]) for i in range(6))


def exact_moments(machine: Machine) -> tuple[Tensor, Tensor]:
    """E[s] and E[s sᵀ] of s = (v, h), by summing over the visible states."""
    weight, a, b = (t.double().cpu() for t in (machine.weight, machine.visible_bias, machine.hidden_bias))
    n = len(a)
    v = (torch.arange(2**n).unsqueeze(1) >> torch.arange(n) & 1).double()
    fields = b + v @ weight
    p = torch.softmax(v @ a + torch.nn.functional.softplus(fields).sum(1), 0).unsqueeze(1)
    s = torch.cat([v, torch.sigmoid(fields)], 1)  # hidden units given v: independent
    second = s.t() @ (p * s)
    mean = (p * s).sum(0)
    second.diagonal().copy_(mean)
    return mean, second


def test_moments_of_a_small_machine(device: torch.device, interpreted: bool) -> None:
    """18 marginals and 153 pair moments of a 10×8 RBM, each within 6 standard errors: false alarm 171 · 2e-9 = 3e-7."""
    chains = 1_000 if interpreted else 100_000
    machine = Machine(10, 8, chains, device, scale=2.5, seed=9)
    machine.sweep(20 if interpreted else 60)
    mean, second = exact_moments(machine)
    s = torch.cat([machine.visible, machine.hidden], 1).double().cpu()
    assert ((s.mean(0) - mean).abs() < 6 * (mean * (1 - mean) / chains).sqrt()).all()
    error = (second * (1 - second) / chains).sqrt()
    assert ((s.t() @ s / chains - second).abs() < 6 * error).all()
    independent = mean.outer(mean)  # the pairs are far enough from independent for the test to mean something
    assert ((second - independent).abs() > 12 * error).sum() > 20 or interpreted


def test_zero_weights_are_independent_coins(interpreted: bool) -> None:
    """Frequencies of 12 biased coins over all chains and sweeps, and agreement of successive sweeps: 6 standard
    errors each, false alarm 24 · 2e-9."""
    chains, sweeps = 1_000 if interpreted else 20_000, 5
    machine = Machine(7, 5, chains, seed=10)
    machine.weight.zero_()
    p = torch.sigmoid(torch.cat([machine.visible_bias, machine.hidden_bias])).double()
    history = []
    for _ in range(sweeps):
        machine.sweep()
        history.append(torch.cat([machine.visible, machine.hidden], 1).double())
    draws = torch.stack(history)
    assert ((draws.mean((0, 1)) - p).abs() < 6 * (p * (1 - p) / (chains * sweeps)).sqrt()).all()
    agreement = p * p + (1 - p) * (1 - p)
    observed = (draws[1:] == draws[:-1]).double().mean((0, 1))
    # Agreements of neighbouring pairs are correlated; twice the variance of independent ones bounds it.
    assert ((observed - agreement).abs() < 6 * (2 * agreement * (1 - agreement) / (chains * (sweeps - 1))).sqrt()).all()


@pytest.mark.parametrize("clamp", [18.0, 1000.0, math.inf])
def test_clamped_units_hold_exactly(device: torch.device, clamp: float) -> None:
    machine = Machine(24, 20, 50, device, scale=0.1, seed=11)
    signs = torch.where(torch.arange(24, device=device) % 3 == 0, -1.0, 1.0)
    machine.visible_bias = signs * clamp
    machine.hidden_bias[:2] = torch.tensor([clamp, -clamp], device=device)
    machine.weight[:, :2] = 0
    machine.weight[:, 2:] = machine.weight[:, 2:].clamp(-0.01, 0.01)
    for _ in range(5):
        machine.sweep(2)
        assert torch.equal(machine.visible, (signs > 0).float().expand(50, 24))
        assert (machine.hidden[:, 0] == 1).all()
        assert (machine.hidden[:, 1] == 0).all()
    assert 0 < machine.hidden[:, 2:].mean() < 1


def test_one_unit_and_one_chain(interpreted: bool) -> None:
    """A coin of probability σ(0.5), many sweeps of one chain: 6 standard errors, false alarm 2e-9."""
    sweeps = 1_000 if interpreted else 5_000
    machine = Machine(1, 1, 1, seed=12)
    machine.weight.zero_()
    machine.visible_bias.fill_(0.5)
    total = 0.0
    for _ in range(sweeps):
        machine.sweep()
        total += machine.visible.item()
    p = 1 / (1 + math.exp(-0.5))
    assert abs(total / sweeps - p) < 6 * math.sqrt(p * (1 - p) / sweeps)


def test_nothing_to_do_changes_nothing(device: torch.device) -> None:
    machine = Machine(6, 5, 4, device)
    before = machine.visible.clone(), machine.hidden.clone()
    ops.rbm_gibbs_(*machine.arguments(), 0)
    assert torch.equal(machine.visible, before[0])
    assert torch.equal(machine.hidden, before[1])
    empty = Machine(6, 5, 0, device)
    empty.sweep(3)
    assert empty.visible.shape == (0, 6)
    assert machine.key.tolist() == [-5, 0]


def test_a_side_without_units(device: torch.device) -> None:
    machine = Machine(1, 6, 9, device, seed=13)
    machine.visible, machine.weight = machine.visible[:, :0], machine.weight[:0]
    machine.visible_bias = machine.visible_bias[:0]
    machine.sweep()
    assert_drawn(machine.hidden, machine.visible, machine.weight, machine.hidden_bias, rng.key(8), 0)


def test_strided_arguments(device: torch.device) -> None:
    plain, strided = (Machine(12, 9, 10, device, seed=14) for _ in range(2))
    strided.visible = strided.visible.t().contiguous().t()
    strided.hidden = torch.stack([strided.hidden, strided.hidden], 2)[:, :, 0]
    strided.weight = strided.weight.t().contiguous().t()
    strided.visible_bias = strided.visible_bias.repeat_interleave(2)[::2]
    plain.sweep(3)
    strided.sweep(3)
    assert torch.equal(plain.visible, strided.visible)
    assert torch.equal(plain.hidden, strided.hidden)


def test_parameters_that_need_gradients_are_read() -> None:
    machine = Machine(5, 4, 3)
    for tensor in (machine.weight, machine.visible_bias, machine.hidden_bias):
        tensor.requires_grad_()
    machine.sweep(2)
    assert not machine.visible.requires_grad


def test_opcheck() -> None:
    machine = Machine(7, 6, 5)
    torch.library.opcheck(torch.ops.dvae_ext.rbm_gibbs_.default, (*machine.arguments(), 3))


def test_compiles_without_graph_breaks() -> None:
    def step(visible: Tensor, hidden: Tensor, weight: Tensor, a: Tensor, b: Tensor, key: Tensor) -> Tensor:
        ops.rbm_gibbs_(visible, hidden, weight * 2, a, b, key, 4)
        rng.advance_(key, 4)
        return visible.mean(0) + a

    eager, compiled = Machine(9, 7, 6, seed=15), Machine(9, 7, 6, seed=15)
    compiled_step = torch.compile(step, fullgraph=True, backend="aot_eager")  # traces all, spares a C++ compiler
    for _ in range(2):
        expected, result = step(*eager.arguments()), compiled_step(*compiled.arguments())
        torch.testing.assert_close(result, expected)
        assert torch.equal(compiled.visible, eager.visible)
        assert torch.equal(compiled.hidden, eager.hidden)
    assert compiled.key.tolist() == [10, 8]


BAD_INPUT = [
    ({"visible": [[0.0]]}, TypeError, "visible is list, expected a tensor"),
    (
        {"visible": torch.zeros(4, 3, dtype=torch.int64)},
        TypeError,
        "visible has dtype int64, expected float32, bfloat16",
    ),
    ({"visible": torch.zeros(4, 3).double()}, TypeError, "visible has dtype float64"),
    ({"hidden": torch.zeros(4, 2).bfloat16()}, TypeError, "hidden has dtype bfloat16, expected float32"),
    ({"weight": torch.zeros(3, 2).bfloat16()}, TypeError, "weight has dtype bfloat16, expected float32, float64"),
    ({"visible_bias": torch.zeros(3).double()}, TypeError, "visible_bias has dtype float64"),
    ({"hidden_bias": torch.zeros(2).half()}, TypeError, "hidden_bias has dtype float16"),
    ({"key": torch.zeros(2)}, TypeError, "key has dtype float32, expected int64"),
    ({"sweeps": 2.0}, TypeError, "sweeps is float, expected an integer"),
    ({"sweeps": True}, TypeError, "sweeps is bool, expected an integer"),
    ({"sweeps": -1}, ValueError, "sweeps is -1, expected 0 or more"),
    ({"weight": torch.zeros(3)}, ValueError, r"weight has shape \[3\], expected \[n_visible, n_hidden\]"),
    ({"weight": torch.zeros(2, 3)}, ValueError, r"visible has shape \[4, 3\], expected \[4, 2\]"),
    ({"visible": torch.zeros(3)}, ValueError, r"visible has shape \[3\], expected \[3, 3\]"),
    ({"hidden": torch.zeros(5, 2)}, ValueError, r"hidden has shape \[5, 2\], expected \[4, 2\]"),
    ({"visible_bias": torch.zeros(1, 3)}, ValueError, r"visible_bias has shape \[1, 3\], expected \[3\]"),
    ({"hidden_bias": torch.zeros(3)}, ValueError, r"hidden_bias has shape \[3\], expected \[2\]"),
    ({"key": torch.zeros(3, dtype=torch.int64)}, ValueError, r"key has shape \[3\], expected \[2\]"),
    ({"key": torch.zeros(2, dtype=torch.int64, device="meta")}, RuntimeError, "key is on meta, expected cpu"),
    ({"hidden": torch.zeros(4, 2, device="meta")}, RuntimeError, "hidden is on meta, expected cpu"),
]

BAD_VALUES = [
    ({"visible": torch.full((4, 3), 0.5)}, RuntimeError, "visible holds other values than 0 and 1"),
    ({"visible": torch.full((4, 3), math.nan)}, RuntimeError, "visible holds other values than 0 and 1"),
    ({"hidden": torch.full((4, 2), -1.0)}, RuntimeError, "hidden holds other values than 0 and 1"),
    ({"weight": torch.full((3, 2), math.nan)}, RuntimeError, "weight holds NaN or infinity"),
    ({"weight": torch.full((3, 2), math.inf)}, RuntimeError, "weight holds NaN or infinity"),
    ({"visible_bias": torch.tensor([0.0, math.nan, 0.0])}, RuntimeError, "visible_bias holds NaN"),
    ({"hidden_bias": torch.tensor([math.nan, 0.0])}, RuntimeError, "hidden_bias holds NaN"),
]


@pytest.mark.parametrize(("change", "error", "sentence"), BAD_INPUT)
def test_bad_input_is_named_and_states_are_left_alone(
    change: dict[str, object], error: type[Exception], sentence: str
) -> None:
    assert_named_and_states_left_alone(change, error, sentence)


@pytest.mark.not_interpreted("only the CPU kernels inspect values: a CUDA kernel's verdict would have to be waited for")
@pytest.mark.parametrize(("change", "error", "sentence"), BAD_VALUES)
def test_bad_values_are_named_and_states_are_left_alone(
    change: dict[str, object], error: type[Exception], sentence: str
) -> None:
    assert_named_and_states_left_alone(change, error, sentence)


def assert_named_and_states_left_alone(change: dict[str, object], error: type[Exception], sentence: str) -> None:
    arguments: dict[str, object] = {
        "visible": torch.ones(4, 3),
        "hidden": torch.ones(4, 2),
        "weight": torch.zeros(3, 2),
        "visible_bias": torch.zeros(3),
        "hidden_bias": torch.zeros(2),
        "key": rng.key(0),
        "sweeps": 5,
    }
    untouched = {name: value for name, value in arguments.items() if name in ("visible", "hidden")}
    with pytest.raises(error, match=f"rbm_gibbs_: {sentence}"):
        ops.rbm_gibbs_(**{**arguments, **change})  # type: ignore[arg-type]
    assert all((tensor == 1).all() for tensor in untouched.values())  # type: ignore[attr-defined]


@pytest.mark.not_interpreted("only the CPU kernels inspect values: a CUDA kernel's verdict would have to be waited for")
@pytest.mark.parametrize("bad", ["weight", "visible"])
def test_one_bad_value_among_many_is_found(bad: str) -> None:
    machine = Machine(300, 299, 500, seed=16)
    getattr(machine, bad)[-1, -1] = math.nan
    with pytest.raises(RuntimeError, match=f"{bad} holds"):
        machine.sweep()


def test_a_backward_pass_that_needs_states_from_before_the_sweeps_fails():
    weight = torch.ones(3, 2, requires_grad=True)
    visible, hidden = torch.ones(4, 3), torch.zeros(4, 2)
    loss = (visible @ weight).sum()
    ops.rbm_gibbs_(visible, hidden, torch.zeros(3, 2), torch.full((3,), -100.0), torch.zeros(2), rng.key(0), 1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
