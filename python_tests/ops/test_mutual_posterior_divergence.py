"""MAE's regularisers against float64, in one process and across ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext import ops, reference

COTANGENT = (0.7, -1.3, 0.2)


def posteriors(batch: int, dims: int, spread: float = 1.0, logvar_range: float = 2.0, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(batch, dims, generator=generator, dtype=torch.float64)
    logvar = logvar_range * (2 * torch.rand(batch, dims, generator=generator, dtype=torch.float64) - 1)
    return [mean, logvar]


def values_and_gradients(function, inputs: list[Tensor], weights=COTANGENT) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    values = function(*leaves)
    loss = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return [*(value.detach() for value in values), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize(("batch", "dims"), [(3, 1), (17, 5), (64, 16), (65, 37)])
def test_float64_equals_the_reference(batch: int, dims: int, device: torch.device) -> None:
    inputs = [x.to(device) for x in posteriors(batch, dims)]
    ours = values_and_gradients(ops.mutual_posterior_divergence, inputs)
    theirs = values_and_gradients(reference.mutual_posterior_divergence, inputs)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_output_has_its_own_gradient(index: int, device: torch.device) -> None:
    weights = [float(n == index) for n in range(3)]
    inputs = [x.to(device) for x in posteriors(9, 4)]
    ours = values_and_gradients(ops.mutual_posterior_divergence, inputs, weights)
    theirs = values_and_gradients(reference.mutual_posterior_divergence, inputs, weights)
    for mine, expected in zip(ours[3:], theirs[3:], strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("spread", "logvar_range"), [(1.0, 1.0), (1e4, 20.0), (0.0, 1e-2), (1e-2, 0.0), (1.0, 20.0), (6.0, 0.5)]
)
def test_float32_against_float64(spread: float, logvar_range: float, device: torch.device) -> None:
    inputs = [x.float().to(device) for x in posteriors(70, 20, spread, logvar_range)]
    ours = values_and_gradients(ops.mutual_posterior_divergence, inputs)
    theirs = values_and_gradients(reference.mutual_posterior_divergence, [x.double() for x in inputs])
    for mine, expected in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(mine.double(), expected, rtol=3e-6, atol=0)
    for mine, expected in zip(ours[3:], theirs[3:], strict=True):
        scale = expected.abs().amax(dim=0, keepdim=True)
        assert ((mine.double() - expected).abs() <= 2e-5 * scale).all()


def test_softplus_tails_are_exact(device: torch.device) -> None:
    """Every divergence above 30: softplus(-KL) is far below the spacing of float32 at 1."""
    mean = torch.tensor([[0.0, 0.0], [8.0, 9.0], [-8.5, -10.5]], device=device)
    logvar = torch.zeros(3, 2, device=device)
    diverse, _, _ = ops.mutual_posterior_divergence(mean, logvar)
    expected = reference.mutual_posterior_divergence(mean.double(), logvar.double())[0]
    assert 0 < expected < 1e-13
    torch.testing.assert_close(diverse.double(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    "function",
    [ops.mutual_posterior_divergence, reference.mutual_posterior_divergence],
    ids=["op", "reference"],
)
def test_variances_beyond_the_range_of_float32(function, device: torch.device) -> None:
    for logvar in ([89.0, 89.0, 89.5], [-100.0, -101.0, -100.5]):
        inputs = [torch.zeros(3, 1, device=device), torch.tensor(logvar, device=device)[:, None]]
        ours = values_and_gradients(function, inputs)
        theirs = values_and_gradients(reference.mutual_posterior_divergence, [x.double() for x in inputs])
        for mine, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.double(), expected, rtol=2e-5, atol=1e-7)
    # One of the two divergences is infinite in float32: the diversity and its gradient are not.
    inputs = [torch.tensor([[0.0], [3.0]], device=device), torch.tensor([[-80.0], [80.0]], device=device)]
    diverse, smooth, mpd, *gradients = values_and_gradients(function, inputs, (1.0, 0.0, 0.0))
    assert 0 <= diverse < 1e-34
    assert smooth == mpd == torch.inf
    assert all(gradient.abs().max() < 1e-30 for gradient in gradients)


def test_definition_by_loops() -> None:
    """MAE eqs. 4-8 written out pair by pair."""
    mean, logvar = posteriors(4, 3)
    kl = torch.stack(
        [
            0.5
            * ((logvar[i] - logvar[j]).exp() - 1 - logvar[i] + logvar[j] + (mean[i] - mean[j]) ** 2 / logvar[j].exp())
            for i in range(4)
            for j in range(4)
            if i != j
        ]
    )
    diverse, smooth, mpd = ops.mutual_posterior_divergence(mean, logvar)
    torch.testing.assert_close(diverse, F.softplus(-kl).mean(0).sum())
    torch.testing.assert_close(mpd, kl.sum(1).mean())
    torch.testing.assert_close(smooth, (((kl.sum(1) - mpd) ** 2).sum() / 11).sqrt())


def test_equal_posteriors_have_zero_gradient(device: torch.device) -> None:
    inputs = [torch.full((5, 3), 0.3, device=device), torch.full((5, 3), -1.0, device=device)]
    diverse, smooth, mpd, *gradients = values_and_gradients(ops.mutual_posterior_divergence, inputs)
    assert smooth == 0
    assert mpd == 0
    torch.testing.assert_close(diverse, torch.full((), 3 * 0.6931471805599453, device=device))
    # exp(d) - 1 is a product of two-float exponentials less one: zero to the square of a rounding.
    assert all((gradient.abs() < 1e-12).all() for gradient in gradients)


def test_two_posteriors(device: torch.device) -> None:
    inputs = [x.to(device) for x in posteriors(2, 3)]
    ours = values_and_gradients(ops.mutual_posterior_divergence, inputs)
    theirs = values_and_gradients(reference.mutual_posterior_divergence, inputs)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype: torch.dtype, device: torch.device) -> None:
    inputs = [x.to(device, dtype) for x in posteriors(10, 5)]
    ours = values_and_gradients(ops.mutual_posterior_divergence, inputs)
    wide = values_and_gradients(ops.mutual_posterior_divergence, [x.float() for x in inputs])
    for mine, expected in zip(ours, wide, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.float(), expected, rtol=0.02, atol=2e-3)


def test_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in posteriors(5, 3)]
    assert torch.autograd.gradcheck(lambda m, v: tuple(ops.mutual_posterior_divergence(m, v)), inputs)


def test_nan_in_nan_out(device: torch.device) -> None:
    mean, logvar = (x.float().to(device) for x in posteriors(6, 3))
    logvar[2, 1] = float("nan")
    assert all(value.isnan() for value in ops.mutual_posterior_divergence(mean, logvar))


@pytest.mark.not_interpreted("sets the threads of the CPU kernels; the interpreter has one")
def test_same_for_any_number_of_threads() -> None:
    inputs = [x.float() for x in posteriors(130, 9)]
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(values_and_gradients(ops.mutual_posterior_divergence, inputs))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_opcheck() -> None:
    inputs = [x.float().requires_grad_() for x in posteriors(6, 3)]
    torch.library.opcheck(torch.ops.dvae_ext.mutual_posterior_divergence.default, inputs)


def test_compiles_into_one_graph() -> None:
    inputs = [x.float() for x in posteriors(12, 3)]
    compiled = torch.compile(ops.mutual_posterior_divergence, fullgraph=True, backend="aot_eager")
    for mine, expected in zip(
        values_and_gradients(compiled, inputs),
        values_and_gradients(ops.mutual_posterior_divergence, inputs),
        strict=True,
    ):
        assert torch.equal(mine, expected)


def test_bad_arguments() -> None:
    mean, logvar = posteriors(4, 3)
    with pytest.raises(ValueError, match="mean has 1 rows, expected at least 2"):
        ops.mutual_posterior_divergence(mean[:1], logvar[:1])
    with pytest.raises(ValueError, match=r"logvar has shape \[4, 2\], expected \[4, 3\] like mean"):
        ops.mutual_posterior_divergence(mean, logvar[:, :2])
    with pytest.raises(TypeError, match=r"logvar has dtype torch\.float32"):
        ops.mutual_posterior_divergence(mean, logvar.float())


def test_second_order_is_an_error() -> None:
    mean, logvar = (x.requires_grad_() for x in posteriors(4, 3))
    loss = sum(ops.mutual_posterior_divergence(mean, logvar))
    (gradient,) = torch.autograd.grad(loss, mean, create_graph=True)
    with pytest.raises(RuntimeError, match="mutual_posterior_divergence has no second-order gradient"):
        gradient.sum().backward()


MEMORY_PROGRAM = """
import resource, torch
from dvae_ext import ops
def step(batch):
    mean, logvar = (torch.zeros(batch, 64, requires_grad=True) for _ in range(2))
    sum(ops.mutual_posterior_divergence(mean, logvar)).backward()
step(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(2048)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.not_interpreted("measures the CPU kernels' memory; the interpreter adds a stack for each CUDA thread")
def test_peak_memory_has_nothing_of_size_batch_batch_dims() -> None:
    """2048 posteriors of 64 dimensions: under 64 MiB, where one tensor of all pairs and dimensions has 1 GiB."""
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM], capture_output=True, text=True, check=True, cwd=root, timeout=120
    )
    assert int(result.stdout) < 64 * 1024


RANK_PROGRAM = """
import sys, torch
import torch.distributed as dist
from dvae_ext import ops
rank, sizes, folder = int(sys.argv[1]), [3, 5], sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
torch.manual_seed(0)
mean, logvar = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)
rows = slice(0, 3) if rank == 0 else slice(3, 8)
shift = torch.zeros(4, dtype=torch.float64, requires_grad=True)
values = ops.mutual_posterior_divergence(mean[rows] * (1 + shift), logvar[rows] + shift, group=dist.group.WORLD)
sum(weight * value for weight, value in zip((0.7, -1.3, 0.2), values)).backward()
dist.all_reduce(shift.grad)
torch.save([*(value.detach() for value in values), shift.grad / 2], f"{folder}/{rank}.pt")
"""


def test_gathers_the_posteriors_of_all_ranks(tmp_path: Path, interpreted: bool) -> None:
    """Two ranks with batches of different size: values and averaged gradients equal one process on all rows."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DVAE_EXT_INTERPRET": str(int(interpreted))}
    processes = [
        subprocess.Popen([sys.executable, "-c", RANK_PROGRAM, str(rank), str(tmp_path)], cwd=root, env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    torch.manual_seed(0)
    mean, logvar = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)
    shift = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    values = ops.mutual_posterior_divergence(mean * (1 + shift), logvar + shift)
    sum(weight * value for weight, value in zip(COTANGENT, values, strict=True)).backward()
    for rank in range(2):
        *rank_values, gradient = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for mine, expected in zip(rank_values, values, strict=True):
            torch.testing.assert_close(mine, expected.detach(), rtol=1e-14, atol=0)
        torch.testing.assert_close(gradient, shift.grad, rtol=1e-12, atol=1e-14)
