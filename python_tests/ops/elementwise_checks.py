"""Checks for every elementwise op: agreement with the reference, autograd, shapes, dtypes, tracing, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad


@dataclass(frozen=True)
class Case:
    op: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    names: tuple[str, str]
    parameters: tuple[float, ...]

    def inputs(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        first = torch.rand(shape, dtype=torch.float64, generator=generator)
        logits = 4 * torch.randn(shape, dtype=torch.float64, generator=generator)
        return [first.to(dtype).to(device), logits.to(dtype).to(device)]


def check_everything_common(case: Case, device: torch.device) -> None:
    agrees_with_reference(case, device)
    gradients_are_right(case, device)
    shapes_and_layouts(case, device)
    half_precision(case, device)
    sixteen_bits_beside_float32(case, device)
    nan_stays_nan(case, device)
    passes_opcheck(case, device)
    compiles_without_a_break(case, device)
    forward_mode_is_refused(case, device)
    numbers_outside_the_dtype_are_refused(case, device)
    bad_input_is_named(case, device)


def agrees_with_reference(case: Case, device: torch.device) -> None:
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        arguments = [x.requires_grad_() for x in case.inputs((1000,), dtype, device)]
        expected_arguments = [x.detach().cpu().double().requires_grad_() for x in arguments]
        result = case.op(*arguments, *case.parameters)
        expected = case.reference(*expected_arguments, *case.parameters)
        torch.testing.assert_close(result.cpu().double(), expected, rtol=tolerance, atol=tolerance)
        grads = torch.autograd.grad(result.sum(), arguments)
        expected_grads = torch.autograd.grad(expected.sum(), expected_arguments)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad.cpu().double(), expected_grad, rtol=10 * tolerance, atol=10 * tolerance)


def gradients_are_right(case: Case, device: torch.device) -> None:
    first, logits = (x.requires_grad_() for x in case.inputs((3, 4), torch.float64, device, seed=3))
    as_tensors = [torch.tensor(v, dtype=torch.float64, device=device, requires_grad=True) for v in case.parameters]
    assert torch.autograd.gradcheck(case.op, (first, logits, *as_tensors))
    full = [torch.full((3, 4), v, dtype=torch.float64, device=device, requires_grad=True) for v in case.parameters]
    assert torch.autograd.gradcheck(case.op, (first, logits, *full))
    # The gradient of one argument alone takes another path than all of them together.
    (alone,) = torch.autograd.grad(case.op(first, logits, *case.parameters).sum(), logits)
    together = torch.autograd.grad(case.op(first, logits, *as_tensors).sum(), (first, logits, *as_tensors))
    torch.testing.assert_close(alone, together[1], rtol=1e-13, atol=0)


def shapes_and_layouts(case: Case, device: torch.device) -> None:
    first, logits = case.inputs((6, 5), torch.float32, device)
    expected = case.op(first, logits, *case.parameters)
    assert expected.shape == (6, 5)
    torch.testing.assert_close(case.op(first.t(), logits.t(), *case.parameters), expected.t(), rtol=0, atol=0)
    strided = torch.stack([first, first], dim=-1)[..., 0]
    torch.testing.assert_close(case.op(strided, logits, *case.parameters), expected, rtol=0, atol=0)
    row = case.op(first, logits[:1], *case.parameters)
    torch.testing.assert_close(row[0], expected[0], rtol=0, atol=0)
    scalar = case.op(first[0, 0], logits[0, 0], *case.parameters)
    assert scalar.shape == ()
    torch.testing.assert_close(scalar, expected[0, 0], rtol=1e-6, atol=1e-7)
    for empty_shape in ((0,), (3, 0)):
        empty = [x.requires_grad_() for x in case.inputs(empty_shape, torch.float32, device)]
        result = case.op(*empty, *case.parameters)
        assert result.shape == empty_shape
        result.sum().backward()
        assert empty[1].grad is not None
        assert empty[1].grad.shape == empty_shape
    # Broadcast arguments get the gradient of every place that used them.
    shared = logits[:1].clone().requires_grad_()
    (grad,) = torch.autograd.grad(case.op(first, shared, *case.parameters).sum(), shared)
    spread = logits[:1].expand(6, 5).clone().requires_grad_()
    (spread_grad,) = torch.autograd.grad(case.op(first, spread, *case.parameters).sum(), spread)
    torch.testing.assert_close(grad, spread_grad.sum(0, keepdim=True), rtol=1e-5, atol=1e-6)


def half_precision(case: Case, device: torch.device) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        first, logits = case.inputs((300,), dtype, device)
        logits.requires_grad_()
        result = case.op(first, logits, *case.parameters)
        assert result.dtype == dtype
        wide_logits = logits.detach().float().requires_grad_()
        wide = case.op(first.float(), wide_logits, *case.parameters)
        torch.testing.assert_close(result, wide.to(dtype), rtol=0, atol=0)
        (grad,) = torch.autograd.grad(result.sum(), logits)
        (wide_grad,) = torch.autograd.grad(wide.sum(), wide_logits)
        torch.testing.assert_close(grad, wide_grad.to(dtype), rtol=0, atol=0)


def sixteen_bits_beside_float32(case: Case, device: torch.device) -> None:
    """The result is that of float32 tensors, the gradients have the dtypes of their arguments."""
    for dtype in (torch.bfloat16, torch.float16):
        first, logits = case.inputs((300,), torch.float32, device)
        logits = logits.to(dtype).requires_grad_()
        last = torch.full((300,), case.parameters[-1], device=device, dtype=dtype, requires_grad=True)
        result = case.op(first, logits, *case.parameters[:-1], last)
        assert result.dtype == torch.float32
        wide = [x.detach().float().requires_grad_() for x in (logits, last)]
        expected = case.op(first, wide[0], *case.parameters[:-1], wide[1])
        torch.testing.assert_close(result, expected, rtol=0, atol=0)
        gradients = torch.autograd.grad(result.sum(), (logits, last))
        for gradient, wide_gradient in zip(gradients, torch.autograd.grad(expected.sum(), wide), strict=True):
            torch.testing.assert_close(gradient, wide_gradient.to(dtype), rtol=0, atol=0)
        # A float32 parameter of one element is a number: 16-bit tensors stay what they are.
        number = torch.tensor(case.parameters[-1], device=device, requires_grad=True)
        narrow = case.op(first.to(dtype), logits, *case.parameters[:-1], number)
        torch.testing.assert_close(narrow, case.op(first.to(dtype), logits, *case.parameters), rtol=0, atol=0)
        assert torch.autograd.grad(narrow.sum(), number)[0].dtype == torch.float32


def nan_stays_nan(case: Case, device: torch.device) -> None:
    for poisoned in (0, 1):
        arguments = case.inputs((4,), torch.float32, device)
        arguments[poisoned][2] = math.nan
        arguments = [x.requires_grad_() for x in arguments]
        result = case.op(*arguments, *case.parameters)
        assert result.isnan().tolist() == [False, False, True, False]
        for grad in torch.autograd.grad(result[:2].sum(), arguments):
            assert grad[:2].isfinite().all()


def passes_opcheck(case: Case, device: torch.device) -> None:
    overload = getattr(torch.ops.dvae_ext, case.op.__name__).default
    first, logits = (x.requires_grad_() for x in case.inputs((2, 3), torch.float32, device))
    parameters = [torch.tensor(v, device=device, requires_grad=True) for v in case.parameters]
    torch.library.opcheck(overload, (first, logits, *parameters))
    arguments = [x.detach() for x in (first, logits, *parameters)]
    backward = getattr(torch.ops.dvae_ext, f"{case.op.__name__}_backward").default
    everything = (1 << len(arguments)) - 1
    for needed in (2, everything):
        torch.library.opcheck(backward, (torch.ones_like(arguments[0]), *arguments, needed))


def compiles_without_a_break(case: Case, device: torch.device) -> None:
    def model(first: Tensor, logits: Tensor) -> Tensor:
        return (case.op(first, torch.tanh(logits) * 3, *case.parameters) ** 2).sum()

    first, logits = case.inputs((5, 3), torch.float32, device)
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(model(first, logits), logits)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(first, logits), logits)
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)


def forward_mode_is_refused(case: Case, device: torch.device) -> None:
    first, logits = case.inputs((4,), torch.float32, device)
    sentence = f"{case.op.__name__}: {{}} carries a forward-mode tangent"
    tangent = torch.ones_like(logits)
    with pytest.raises(NotImplementedError, match=sentence.format("logits")):
        torch.func.jvp(lambda x: case.op(first, x, *case.parameters), (logits,), (tangent,))
    with pytest.raises(NotImplementedError, match=sentence.format(case.names[0])):
        torch.func.jacfwd(lambda x: case.op(x, logits, *case.parameters))(first)
    last = torch.tensor(case.parameters[-1], device=device)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(last, torch.ones_like(last))
        with pytest.raises(NotImplementedError, match="carries a forward-mode tangent"):
            case.op(first, logits, *case.parameters[:-1], dual)
        # Forward over reverse: the tangent is that of the gradient.
        leaf = logits.clone().requires_grad_()
        result = case.op(first, leaf, *case.parameters)
        with pytest.raises(NotImplementedError, match=sentence.format("the gradient")):
            torch.autograd.grad(result, leaf, forward_ad.make_dual(tangent, tangent))
        torch.testing.assert_close(result.detach(), case.op(first, logits, *case.parameters))


def numbers_outside_the_dtype_are_refused(case: Case, device: torch.device) -> None:
    first, logits = case.inputs((4,), torch.float32, device)
    for number in (1e39, 1e-46, 10**400):
        with pytest.raises(ValueError, match=r"expected a positive finite number from 1.2e-38 to 3.4e\+38, as float32"):
            case.op(first, logits, *case.parameters[:-1], number)
    assert case.op(first.double(), logits.double(), *case.parameters[:-1], 1e39).shape == (4,)


def bad_input_is_named(case: Case, device: torch.device) -> None:
    first, logits = case.inputs((4,), torch.float32, device)
    with pytest.raises(TypeError, match=f"{case.names[0]} is float, expected a tensor"):
        case.op(0.5, logits, *case.parameters)
    with pytest.raises(TypeError, match=f"{case.names[0]} has dtype int64, expected float32"):
        case.op(first.long(), logits, *case.parameters)
    with pytest.raises(TypeError, match=r"logits has dtype torch\.float64, expected torch\.float32"):
        case.op(first, logits.double(), *case.parameters)
    with pytest.raises(TypeError, match=r"logits has dtype torch\.float16, expected torch\.bfloat16"):
        case.op(first.bfloat16(), logits.half(), *case.parameters)
    with pytest.raises(TypeError, match=r"has dtype torch\.float32, expected torch\.float64"):
        case.op(first.double(), logits.double(), *case.parameters[:-1], torch.tensor(case.parameters[-1]))
    with pytest.raises(ValueError, match=r"the shapes do not broadcast together: .*logits \[3\]"):
        case.op(first, logits[:3], *case.parameters)
    with pytest.raises(TypeError, match="is str, expected a number or a tensor"):
        case.op(first, logits, *case.parameters[:-1], "8")
    with pytest.raises(RuntimeError, match="logits is on meta, expected"):
        case.op(first, logits.to("meta"), *case.parameters)
