"""The exact partition function and its gradient, against direct enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dvae_ext import ops, reference

# One unit on a side, sides equal, either side smaller, one or several groups of bits.
SHAPES = [(1, 1), (1, 7), (3, 2), (5, 40), (6, 6), (7, 3), (9, 4), (8, 70), (9, 11)]
LARGER = [(12, 33), (33, 12), (15, 17), (17, 21)]
PARAMETERS = ["weight", "visible_bias", "hidden_bias"]


def make(n_visible: int, n_hidden: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n_visible + 100 * n_hidden)
    shapes = ((n_visible, n_hidden), (n_visible,), (n_hidden,))
    return [(scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype) for shape in shapes]


def check(arguments: list[Tensor]) -> None:
    for x in arguments:
        x.requires_grad_()
    value, expected = ops.rbm_log_z_exact(*arguments), reference.rbm_log_z_exact(*arguments)
    assert value.dtype == torch.float64
    assert value.shape == ()
    torch.testing.assert_close(value, expected, rtol=1e-14, atol=1e-12)
    gradient, expected_gradient = (torch.autograd.grad(3 * x, arguments) for x in (value, expected))
    tolerance = {"rtol": 1e-6, "atol": 1e-7} if arguments[0].dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    for mine, theirs in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 10.0, 1000.0])
def test_equals_enumeration(shape: tuple[int, int], scale: float, device: torch.device) -> None:
    check([x.to(device) for x in make(*shape, scale)])


@pytest.mark.parametrize("shape", LARGER)
@pytest.mark.parametrize("scale", [0.3, 1.0, 30.0])
def test_equals_enumeration_of_more_units(shape: tuple[int, int], scale: float) -> None:
    check(make(*shape, scale))


def test_float32_is_summed_in_float64(device: torch.device) -> None:
    check([x.to(device) for x in make(8, 13, dtype=torch.float32)])


@pytest.mark.parametrize("spread", [50.0, 200.0, 400.0, 1e5])
def test_a_few_units_with_huge_fields(spread: float, device: torch.device) -> None:
    """Units whose exponentials overflow stand beside units that stay in the tables."""
    weight, visible_bias, hidden_bias = make(7, 20)
    weight[:, ::5] *= spread
    hidden_bias[1::7] -= spread
    check([x.to(device) for x in (weight, visible_bias, hidden_bias)])


def test_zero_weights_factorise(device: torch.device) -> None:
    _, visible_bias, hidden_bias = make(5, 9, 3.0)
    value = ops.rbm_log_z_exact(
        torch.zeros(5, 9, dtype=torch.float64).to(device), *(x.to(device) for x in (visible_bias, hidden_bias))
    )
    expected = sum(math.log1p(math.exp(x)) for x in [*visible_bias.tolist(), *hidden_bias.tolist()])
    assert abs(value.item() - expected) < 1e-13


def test_non_contiguous_arguments() -> None:
    weight, visible_bias, hidden_bias = make(6, 9)
    strided = torch.stack([visible_bias, visible_bias], 1)[:, 0]
    assert torch.equal(
        ops.rbm_log_z_exact(weight.T.contiguous().T, strided, hidden_bias),
        ops.rbm_log_z_exact(weight, visible_bias, hidden_bias),
    )


@pytest.mark.not_interpreted("sets the threads of the CPU kernels; the interpreter has one")
def test_same_bits_for_any_number_of_threads() -> None:
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        arguments = [x.requires_grad_() for x in make(17, 19)]
        value = ops.rbm_log_z_exact(*arguments)
        results.append([value.detach(), *torch.autograd.grad(value, arguments)])
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_parameter_that_is_not_finite_gives_nan(name: str, bad: float, device: torch.device) -> None:
    arguments = [x.to(device) for x in make(4, 6)]
    arguments[PARAMETERS.index(name)].view(-1)[-1] = bad
    for x in arguments:
        x.requires_grad_()
    value = ops.rbm_log_z_exact(*arguments)
    assert value.isnan()
    assert all(x.isnan().all() for x in torch.autograd.grad(value, arguments))


def test_gradcheck_and_opcheck(device: torch.device) -> None:
    arguments = [x.to(device).requires_grad_() for x in make(3, 4)]
    assert torch.autograd.gradcheck(ops.rbm_log_z_exact, arguments)
    torch.library.opcheck(torch.ops.dvae_ext.rbm_log_z_exact.default, arguments)


def test_second_order_is_an_error() -> None:
    arguments = [x.requires_grad_() for x in make(3, 4)]
    (gradient,) = torch.autograd.grad(ops.rbm_log_z_exact(*arguments), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="rbm_log_z_exact has no second-order gradient"):
        gradient.sum().backward()


def test_compiles_without_graph_break() -> None:
    arguments = make(4, 6)
    compiled = torch.compile(lambda *x: 2 * ops.rbm_log_z_exact(*x), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), 2 * ops.rbm_log_z_exact(*arguments))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w, a, b: (w[0], a, b), RuntimeError, r"weight is .*, expected \[n_visible, n_hidden\]"),
        (lambda w, a, b: (w[:0], a[:0], b), RuntimeError, "at least one unit on each side"),
        (lambda w, a, b: (w, a[:-1], b), RuntimeError, r"visible_bias has shape \[3\], expected \[4\]"),
        (lambda w, a, b: (w, a, b[None]), RuntimeError, r"hidden_bias has shape \[1, 6\], expected \[6\]"),
        (lambda w, a, b: (w, a.float(), b), RuntimeError, "visible_bias has dtype Float, expected Double"),
        (lambda w, a, b: (w.long(), a, b), TypeError, "weight has dtype int64, expected float32, float64"),
        (lambda w, a, b: (w, a, [0.0] * 6), TypeError, "hidden_bias is list, expected a tensor"),
    ],
)
def test_bad_input(change, error, message) -> None:
    with pytest.raises(error, match=message):
        ops.rbm_log_z_exact(*change(*make(4, 6)))


def test_too_many_units_names_the_way_out() -> None:
    with pytest.raises(RuntimeError, match=r"smaller side of weight has 31 units, expected at most 30.*log_z"):
        ops.rbm_log_z_exact(torch.zeros(31, 40), torch.zeros(31), torch.zeros(40))
