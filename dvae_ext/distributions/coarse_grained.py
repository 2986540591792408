"""Polynomial exponential families on [-1, 1] by coarse graining."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.distributions.utils import lazy_property

from dvae_ext import ops, rng


class CoarseGrained(Distribution):
    r"""The density :math:`p(z) \propto \exp(\sum_m c_m z^m)` on [-1, 1], handled on a grid of R points.

    Densities, moments and distribution functions are those of the density that is piecewise linear between the points.
    :meth:`rsample` draws Concrete vectors over the points and averages the points with them (CG-BPEF-VAE section 3.2):
    as the temperature falls the draws come to follow the probabilities of the points, and for fine grids the density;
    at higher temperatures they are drawn towards zero.

    Args:
        coefficients: c of the powers 1 … M, ``batch_shape + [M]``, with 1 ≤ M ≤ ``num_points`` - 2.
        temperature: T > 0 of the Concrete vectors.
        num_points: R.
        validate_args: check parameters and values, as everywhere in torch.distributions.

    Raises:
        ValueError: ``coefficients`` without dimensions, M above ``num_points`` - 2, temperature not positive.
        TypeError: ``coefficients`` is no floating point tensor.

    Example:
        >>> posterior = CoarseGrained(torch.tensor([[1.0, -8.0], [3.0, 0.0]]))
        >>> posterior.batch_shape, posterior.rsample((5,)).shape
        (torch.Size([2]), torch.Size([5, 2]))
        >>> posterior.mean
        tensor([0.0624, 0.6813])
    """

    has_rsample = True
    arg_constraints: ClassVar = {"coefficients": constraints.independent(constraints.real, 1)}
    support = constraints.interval(-1.0, 1.0)
    coefficients: Tensor

    def __init__(
        self,
        coefficients: Tensor,
        temperature: float = 0.5,
        num_points: int = 101,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(coefficients, Tensor) or not coefficients.is_floating_point():
            raise TypeError("coefficients: expected a floating point tensor")
        if coefficients.ndim == 0:
            raise ValueError("coefficients: expected at least one dimension, that of the powers")
        if not 1 <= coefficients.shape[-1] <= num_points - 2:
            raise ValueError(
                f"num_points: expected at least {coefficients.shape[-1] + 2} for a polynomial of order "
                f"{coefficients.shape[-1]} ≥ 1, got {num_points}"
            )
        if not temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        self.coefficients = coefficients
        self.temperature = float(temperature)
        self.num_points = num_points
        super().__init__(coefficients.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> CoarseGrained:
        new = self._get_checked_instance(CoarseGrained, _instance)
        batch_shape = torch.Size(batch_shape)
        new.coefficients = self.coefficients.expand(*batch_shape, self.coefficients.shape[-1])
        new.temperature, new.num_points = self.temperature, self.num_points
        super(CoarseGrained, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @lazy_property
    def grid(self) -> Tensor:
        """The points ζ ``[R]``."""
        index = torch.arange(self.num_points, dtype=self.coefficients.dtype, device=self.coefficients.device)
        return (2 * index - (self.num_points - 1)) / (self.num_points - 1)

    @lazy_property
    def logits(self) -> Tensor:
        """Normalised log-probabilities of the points, ``batch_shape + [R]``."""
        return self._polynomial(self.grid).log_softmax(-1)

    @property
    def probs(self) -> Tensor:
        """Probabilities of the points, the limit of :meth:`rsample` as T → 0: ``batch_shape + [R]``."""
        return self.logits.exp()

    @property
    def mean(self) -> Tensor:
        """Mean over the points."""
        return (self.probs * self.grid).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance over the points."""
        return (self.probs * (self.grid - self.mean[..., None]) ** 2).sum(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw z of shape ``sample_shape + batch_shape``, differentiable in the coefficients."""
        sample_shape = torch.Size(sample_shape)
        flat = self.coefficients.reshape(1, -1, self.coefficients.shape[-1])
        key = rng.key(device=flat.device)
        z = ops.coarse_grain_sample(flat, key, self.temperature, self.num_points, sample_shape.numel())
        return z.reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at ``value`` in [-1, 1], broadcast against the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        return self._polynomial(value[..., None])[..., 0] - self._log_normaliser

    def cdf(self, value: Tensor) -> Tensor:
        """P(z ≤ value), broadcast against the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        density, below, width = self._cells
        cell = ((value + 1) / width).floor().clamp(0, self.num_points - 2).to(torch.int64)
        density, below, cell, value = self._align(density, below, cell, value)
        left, right = density.gather(-1, cell)[..., 0], density.gather(-1, cell + 1)[..., 0]
        t = ((value - self.grid[cell[..., 0]]) / width).clamp(0, 1)
        return (below.gather(-1, cell)[..., 0] + width * t * (left + 0.5 * t * (right - left))).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """Inverse of :meth:`cdf` at probabilities ``value``, broadcast against the batch shape."""
        density, below, width = self._cells
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        value, below_all = value.expand(shape), below.expand(*shape, -1).contiguous()
        cell = torch.searchsorted(below_all, value[..., None].contiguous(), right=True) - 1
        cell = cell.clamp(0, self.num_points - 2)
        density = density.expand(*shape, -1)
        left, right = density.gather(-1, cell)[..., 0], density.gather(-1, cell + 1)[..., 0]
        target = (value - below_all.gather(-1, cell)[..., 0]).clamp(min=0) / width
        # The root of (right - left) t² / 2 + left t = target in the form that does not cancel.
        root = (left**2 + 2 * (right - left) * target).clamp(min=0).sqrt()
        t = (2 * target / (left + root).clamp(min=torch.finfo(left.dtype).tiny)).clamp(0, 1)
        return self.grid[cell[..., 0]] + width * t

    def _polynomial(self, x: Tensor) -> Tensor:
        """Σ_m c_m x^m by Horner's rule, ``batch_shape + [n]`` from ``x [..., n]``."""
        coefficients = self.coefficients
        total = coefficients[..., -1:].expand(torch.broadcast_shapes(x.shape, coefficients[..., -1:].shape))
        for m in range(coefficients.shape[-1] - 2, -1, -1):
            total = total * x + coefficients[..., m : m + 1]
        return total * x

    @lazy_property
    def _log_normaliser(self) -> Tensor:
        """Log of the integral by the trapezoidal rule."""
        values = self._polynomial(self.grid)
        weights = torch.full_like(self.grid, 2 / (self.num_points - 1))
        weights[0] = weights[-1] = 1 / (self.num_points - 1)
        return (values + weights.log()).logsumexp(-1)

    @property
    def _cells(self) -> tuple[Tensor, Tensor, float]:
        """Density at the points, probability below each of them, and their distance."""
        width = 2 / (self.num_points - 1)
        density = (self._polynomial(self.grid) - self._log_normaliser[..., None]).exp()
        areas = 0.5 * width * (density[..., 1:] + density[..., :-1])
        return density, torch.cat([torch.zeros_like(areas[..., :1]), areas.cumsum(-1)], -1), width

    def _align(self, density: Tensor, below: Tensor, cell: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        points = (*shape, density.shape[-1])
        return density.expand(points), below.expand(points), cell.expand(shape)[..., None], value.expand(shape)


@register_kl(CoarseGrained, CoarseGrained)
def _kl_coarse_grained(q: CoarseGrained, p: CoarseGrained) -> Tensor:
    """KL of the categorical limits (CG-BPEF-VAE eq. 4)."""
    if q.num_points != p.num_points or q.coefficients.shape[-1] != p.coefficients.shape[-1]:
        raise ValueError(
            f"expected equal num_points and orders, got {q.num_points} and {p.num_points}, "
            f"{q.coefficients.shape[-1]} and {p.coefficients.shape[-1]}"
        )
    shape = torch.broadcast_shapes(q.coefficients.shape, p.coefficients.shape)
    flat_q, flat_p = (x.coefficients.expand(shape).reshape(-1, shape[-1]) for x in (q, p))
    return ops.coarse_grain_kl(flat_q[None], flat_p, q.num_points).reshape(shape[:-1])
