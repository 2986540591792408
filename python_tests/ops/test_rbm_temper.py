"""Parallel tempering: exact tempered marginals, statistics against enumeration, and what draws depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor

from dvae_ext import _native, ops, reference, rng
from dvae_ext.reference.rbm_temper import negative_free_energy

CPU = torch.device("cpu")


@dataclass
class Run:
    """The arguments of one call."""

    visible: Tensor
    level: Tensor
    travel: Tensor
    statistics: Tensor
    weight: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor
    reference_visible_bias: Tensor
    reference_hidden_bias: Tensor
    betas: Tensor
    shifts: Tensor
    key: Tensor

    def arguments(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def copy(self) -> Run:
        return Run(*(x.clone() for x in self.arguments()))

    def model(self) -> list[Tensor]:
        return self.arguments()[4:9]

    def __call__(self, op: Callable[..., None], sweeps: int, **options) -> Run:
        op(*self.arguments(), sweeps, **options)
        rng.advance_(self.key, sweeps)
        return self


def make(
    n_visible: int,
    n_hidden: int,
    ladders: int,
    betas: list[float],
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> Run:
    generator = torch.Generator().manual_seed(n_visible + 10 * n_hidden)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    levels = len(betas)
    visible = (torch.rand(ladders, levels, n_visible, generator=generator) < 0.5).to(dtype)
    level = torch.rand(ladders, levels, generator=generator).argsort(1)
    statistics = torch.zeros(ladders, 9, levels, dtype=torch.float64)
    statistics[:, :2] = -torch.inf
    run = Run(
        visible,
        level,
        torch.zeros_like(level),
        statistics,
        scale * normal(n_visible, n_hidden),
        scale * normal(n_visible),
        scale * normal(n_hidden),
        0.5 * normal(n_visible),
        0.5 * normal(n_hidden),
        torch.tensor(betas, dtype=torch.float64),
        torch.zeros(levels - 1, dtype=torch.float64),
        rng.key(5),
    )
    return Run(*(x.to(device) for x in run.arguments()))


def exact_path(run: Run) -> tuple[Tensor, Tensor]:
    """Marginal means of the visible units ``[levels, n_visible]`` and log Z of each level, by enumeration."""
    n_visible = run.weight.shape[0]
    states = (torch.arange(1 << n_visible)[:, None] >> torch.arange(n_visible) & 1).double()
    model = [x.double().cpu() for x in run.model()]
    log_p = torch.stack([negative_free_energy(states, *model, beta) for beta in run.betas.cpu()])
    log_z = torch.logsumexp(log_p, 1)
    return torch.exp(log_p - log_z[:, None]) @ states, log_z


def largest_z(run: Run, op: Callable[..., None], calls: int, thinning: int = 4, **options) -> float:
    """Largest standard score of the marginals of all levels against enumeration, ladders being independent."""
    exact, _ = exact_path(run)
    total = torch.zeros(run.visible.shape, dtype=torch.float64, device=run.visible.device)
    run(op, 20, **options)
    for _ in range(calls):
        run(op, thinning, **options)
        order = run.level.argsort(1)[..., None].expand_as(run.visible)
        total += run.visible.gather(1, order)
    means = (total / calls).cpu()
    std_error = (means.var(0) / len(means)).sqrt()
    return ((means.mean(0) - exact) / std_error.clamp(min=1e-3 / len(means))).abs().max().item()


BETAS = [0.0, 0.35, 0.7, 1.0]


def two_modes(ladders: int, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Run:
    """All visible units off, or all on: at beta = 1 equally likely and hard to leave, in between mostly off."""
    run = make(6, 20, ladders, [0.0, 0.25, 0.5, 0.75, 1.0], 0.0, dtype, device)
    run.weight.fill_(0.7)
    run.visible_bias.fill_(-20 * (math.log1p(math.exp(6 * 0.7)) - math.log(2)) / 6)
    run.reference_visible_bias.zero_()
    run.reference_hidden_bias.zero_()
    return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_marginals_of_every_level_are_exact(dtype: torch.dtype, device: torch.device, interpreted: bool) -> None:
    """30 marginals: 4.5 standard errors are exceeded by chance in 2 runs of 10,000, with the 32 ladders of the
    interpreter in 3 of 1,000, and the seed is fixed."""
    ladders, calls = (32, 5) if interpreted else (256, 60)
    assert largest_z(two_modes(ladders, dtype, device), ops.rbm_temper_, calls) < 4.5


def test_marginals_notice_a_swap_on_the_wrong_free_energy() -> None:
    """Swapping on beta F_1 in place of F_beta biases every level; the right free energy passes the same test."""

    def wrong(visible: Tensor, *model_and_beta: Tensor) -> Tensor:
        *model, beta = model_and_beta
        return beta * negative_free_energy(visible, *model, torch.ones_like(beta))

    assert largest_z(two_modes(128), reference.rbm_temper_, 20) < 4.5
    assert largest_z(two_modes(128), reference.rbm_temper_, 20, free_energy=wrong) > 20


def estimates(statistics: Tensor, shifts: Tensor, sweeps: int) -> Tensor:
    """Bridge, forward and reverse estimates ``[ladders, 3, pairs]`` of each pair from each ladder."""
    pairs = len(shifts)
    s = statistics[:, :, :pairs].cpu()
    count = torch.log(torch.tensor(float(sweeps)))
    return torch.stack([shifts.cpu() + torch.log(s[:, 2] / s[:, 3]), s[:, 0] - count, count - s[:, 1]], 1)


def test_statistics_recover_log_z(device: torch.device, interpreted: bool) -> None:
    run = make(5, 8, 32, BETAS, 0.7, torch.float64, device)
    _, log_z = exact_path(run)
    run.shifts.copy_(log_z.diff() + torch.tensor([0.2, -0.1, 0.05]))
    run(ops.rbm_temper_, 20)
    run.statistics.zero_()
    run.statistics[:, :2] = -torch.inf
    sweeps = 30 if interpreted else 1000
    run(ops.rbm_temper_, sweeps, batch=10)
    found = estimates(run.statistics, run.shifts, sweeps)
    z = (found.mean(0) - log_z.diff()) / (found.std(0) / 32**0.5)
    assert z.abs().max() < 4.5  # 9 numbers
    acceptance, sums = run.statistics[:, 4, :3].cpu() / sweeps, run.statistics[:, 5:8].cpu()
    assert ((acceptance > 0) & (acceptance < 1)).all()
    variance = sums[:, 1].sum(0) / (32 * sweeps) - (sums[:, 0].sum(0) / (32 * sweeps)) ** 2
    of_batches = sums[:, 2].sum(0) / (32 * sweeps) - 10 * (sums[:, 0].sum(0) / (32 * sweeps)) ** 2
    time = of_batches / variance
    slack = 4.5 * math.sqrt(2 / (32 * sweeps / 10))  # standard errors of a variance of so many batches
    assert abs(time[0] - 1) < slack  # draws at the reference are independent
    assert (time[1:] > 1 - slack).all()
    trips = run.statistics[:, 8].sum(1).mean().item()
    assert sweeps / 20 < trips < 4 * sweeps / 6  # of 4 replicas, each of which needs at least 6 sweeps


def test_one_sweep_of_the_statistics(device: torch.device) -> None:
    """The increments of the first sweep are those of the states that came in."""
    run = make(7, 6, 3, BETAS, 1.0, torch.float64, device)
    run.shifts.fill_(0.3)
    before = run.copy()
    run(ops.rbm_temper_, 1)
    at_level = before.visible.gather(1, before.level.argsort(1)[..., None].expand_as(before.visible))
    lower, upper = before.betas[:-1], before.betas[1:]

    def f(states: Tensor, beta: Tensor) -> Tensor:
        return negative_free_energy(states, *before.model(), beta)

    forward = f(at_level[:, :-1], upper) - f(at_level[:, :-1], lower)
    backward = f(at_level[:, 1:], lower) - f(at_level[:, 1:], upper)
    x = torch.cat([forward - 0.3, -backward[:, -1:] - 0.3], 1)
    expected = [forward, backward, torch.sigmoid(forward - 0.3), torch.sigmoid(backward + 0.3)]
    expected.append(torch.exp((forward + backward).clamp(max=0)))
    for row, value in enumerate(expected):
        torch.testing.assert_close(run.statistics[:, row, :3], value, rtol=1e-11, atol=1e-12)
    for row, value in ((5, x), (6, x**2), (7, x**2)):
        torch.testing.assert_close(run.statistics[:, row], value, rtol=1e-11, atol=1e-12)


def test_journeys_are_counted() -> None:
    """Levels that always swap carry replicas to and fro like a conveyor belt."""
    run = make(3, 4, 2, [0.0, 0.5, 1.0], 0.0)
    run.weight.zero_()
    for name in ("visible_bias", "hidden_bias", "reference_visible_bias", "reference_hidden_bias"):
        getattr(run, name).zero_()  # every level is the same distribution
    run(ops.rbm_temper_, 61)
    assert (run.statistics[:, 4, :2] == 61).all()
    # 3 levels, one pair a sweep: a replica needs 6 sweeps from the bottom to the top and back.
    assert ((run.statistics[:, 8] >= 8) & (run.statistics[:, 8] <= 10)).all()


def equal(a: Run, b: Run) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.arguments()[:4], b.arguments()[:4], strict=True))


def test_draws_depend_on_neither_threads_nor_split(device: torch.device) -> None:
    start = make(9, 14, 6, BETAS, device=device)
    whole = start.copy()(ops.rbm_temper_, 7)
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        again = start.copy()(ops.rbm_temper_, 7)
        torch.set_num_threads(before)
        assert equal(whole, again)
    parts = []
    for first, last in ((0, 1), (1, 6)):
        state = {
            name: getattr(start, name)[first:last].clone() for name in ("visible", "level", "travel", "statistics")
        }
        part = replace(start, **state, key=start.key.clone())
        parts.append(part(ops.rbm_temper_, 7, first_ladder=first))
    for name in ("visible", "level", "travel", "statistics"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
    in_two = start.copy()(ops.rbm_temper_, 3)(ops.rbm_temper_, 4)
    assert torch.equal(in_two.visible, whole.visible)
    assert torch.equal(in_two.level, whole.level)
    torch.testing.assert_close(in_two.statistics, whole.statistics, rtol=1e-12, atol=1e-12)


SHAPES = [(1, 1, 2), (1, 5, 3), (6, 1, 3), (5, 3, 1), (20, 17, 9), (33, 65, 4)]


@pytest.mark.not_interpreted("switches the interpreter itself, to compare the backends")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_kernel_makes_the_same_draws(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    if not _native.interpreter_built():
        pytest.skip("the interpreter is built in place only: python setup.py build_ext --inplace")
    n_visible, n_hidden, levels = shape
    start = make(n_visible, n_hidden, 3, torch.linspace(0, 1, levels).tolist(), dtype=dtype)
    on_cpu = start.copy()(ops.rbm_temper_, 4, batch=2)
    _native.set_interpreter(True)
    try:
        interpreted = start.copy()(ops.rbm_temper_, 4, batch=2)
    finally:
        _native.set_interpreter(False)
    for name in ("visible", "level", "travel"):
        assert torch.equal(getattr(on_cpu, name), getattr(interpreted, name))
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(on_cpu.statistics, interpreted.statistics, **tolerance)


@pytest.mark.not_interpreted("switches the interpreter itself, to compare the backends")
def test_weights_beyond_shared_memory() -> None:
    if not _native.interpreter_built():
        pytest.skip("the interpreter is built in place only: python setup.py build_ext --inplace")
    start = make(230, 270, 1, [0.0, 1.0], 0.05)
    on_cpu = start.copy()(ops.rbm_temper_, 1)
    _native.set_interpreter(True)
    try:
        interpreted = start.copy()(ops.rbm_temper_, 1)
    finally:
        _native.set_interpreter(False)
    assert torch.equal(on_cpu.visible, interpreted.visible)


def test_many_levels_and_strong_fields(device: torch.device) -> None:
    run = make(4, 5, 1, torch.linspace(0, 1, 20).tolist(), 300.0, device=device)
    run(ops.rbm_temper_, 5)
    assert run.statistics[:, 2:].isfinite().all()
    assert run.statistics[:, :2, :-1].isfinite().all()
    assert sorted(run.level[0].tolist()) == list(range(20))


def test_nothing_to_do() -> None:
    start = make(4, 5, 2, BETAS)
    assert equal(start.copy()(ops.rbm_temper_, 0), start)
    empty = make(4, 5, 0, BETAS)
    assert equal(empty.copy()(ops.rbm_temper_, 3), empty)


def test_opcheck(device: torch.device) -> None:
    torch.library.opcheck(
        torch.ops.dvae_ext.rbm_temper_.default, (*make(4, 5, 2, BETAS, device=device).arguments(), 2, 1, 0)
    )


def put(name: str, index: tuple[int, ...], value: float) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        getattr(run, name)[index] = value

    return change


def set_to(name: str, function: Callable[[Tensor], Tensor]) -> Callable[[Run], None]:
    return lambda run: setattr(run, name, function(getattr(run, name)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("visible", lambda x: x[0]), r"expected \[ladders, levels, n_visible\]"),
        (set_to("visible", lambda x: x[..., :3]), r"visible has shape \[2, 4, 3\], expected \[2, 4, 4\]"),
        (set_to("statistics", lambda x: x[:, :5]), r"statistics has shape \[2, 5, 4\], expected \[2, 9, 4\]"),
        (set_to("betas", lambda x: x.float()), "betas has dtype Float, expected Double"),
        (set_to("hidden_bias", lambda x: x.double()), "hidden_bias has dtype Double, expected Float"),
        (set_to("shifts", lambda x: x[:1]), r"shifts has shape \[1\], expected \[3\]"),
        (set_to("key", lambda x: x.int()), "key has dtype Int, expected int64"),
        (set_to("level", lambda x: x.T.contiguous().T), "level is not contiguous"),
    ],
)
def test_bad_tensors(change: Callable[[Run], None], message: str) -> None:
    run = make(4, 5, 2, BETAS)
    change(run)
    with pytest.raises(RuntimeError, match=message):
        run(ops.rbm_temper_, 2)


@pytest.mark.not_interpreted("only the CPU kernels inspect values: a CUDA kernel's verdict would have to be waited for")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("visible", (0, 0, 0), 0.5), "visible holds a state that is neither 0 nor 1"),
        (put("weight", (0, 0), torch.nan), "NaN or infinity"),
        (put("hidden_bias", (0,), torch.inf), "NaN or infinity"),
        (put("betas", (1,), torch.nan), "NaN or infinity"),
    ],
)
def test_bad_values(change: Callable[[Run], None], message: str) -> None:
    run = make(4, 5, 2, BETAS)
    change(run)
    with pytest.raises(RuntimeError, match=message):
        run(ops.rbm_temper_, 2)


@pytest.mark.parametrize("level", [7, -1, 2])
def test_levels_that_are_no_permutation(level: int, device: torch.device, interpreted: bool) -> None:
    """The CPU kernels say so; a CUDA kernel changes nothing but the statistics of that ladder, which become NaN."""
    run = make(4, 5, 2, BETAS, device=device)
    run.level[:] = torch.arange(4)
    run.level[0, 0] = level
    before = run.copy()
    if device.type == "cpu" and not interpreted:
        with pytest.raises(RuntimeError, match="level is no permutation"):
            run(ops.rbm_temper_, 2)
        assert equal(run, before)
    else:
        run(ops.rbm_temper_, 2)
        assert run.statistics[0].isnan().all()
        assert torch.equal(run.visible[0], before.visible[0])
        assert torch.equal(run.level[0], before.level[0])
        assert not run.statistics[1].isnan().any()


def test_bad_numbers_and_types() -> None:
    for sweeps, batch in ((3, 2), (-1, 1), (2, 0)):
        with pytest.raises(RuntimeError, match="expected sweeps to be a multiple of a positive batch"):
            make(4, 5, 2, BETAS)(ops.rbm_temper_, sweeps, batch=batch)
    with pytest.raises(RuntimeError, match="at most 512"):
        make(2, 2, 1, torch.linspace(0, 1, 513).tolist())(ops.rbm_temper_, 1)
    with pytest.raises(TypeError, match="visible has dtype bfloat16, expected float32, float64"):
        make(4, 5, 2, BETAS, dtype=torch.bfloat16)(ops.rbm_temper_, 1)
