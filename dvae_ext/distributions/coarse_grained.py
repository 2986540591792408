"""Polynomial exponential families on [-1, 1] by coarse graining."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.distributions.utils import lazy_property

from dvae_ext import ops, rng
from dvae_ext.distributions.smoothed_bernoulli import as_tensor, check_probabilities, common_dtype


class CoarseGrained(Distribution):
    r"""The density :math:`p(z) \propto \exp(\sum_m c_m z^m)` on [-1, 1], handled on a grid of R points.

    The density is linear between its values at the points: :meth:`log_prob`, :meth:`cdf`, :meth:`icdf`, :attr:`mean`
    and :attr:`variance` are exactly those of this one density, which lies within O(R⁻²) of the polynomial's.
    :meth:`rsample` draws Concrete vectors over the points and averages the points with them (CG-BPEF-VAE section 3.2).
    It follows the density in the limit alone: as the temperature falls the draws come to lie on the points, with
    :attr:`probs`, which is the density up to O(1/R) (the two ends count whole, their cells are half as wide as the
    others); at higher temperatures they are drawn towards zero. The KL divergence is that of the limits (eq. 4).

    Args:
        coefficients: c of the powers 1 … M, ``batch_shape + [M]``, with 1 ≤ M ≤ ``num_points`` - 2.
        temperature: T > 0 of the Concrete vectors, a number.
        num_points: R.
        validate_args: check parameters and values, as everywhere in torch.distributions.

    Raises:
        ValueError: ``coefficients`` without dimensions, M above ``num_points`` - 2, temperature not positive.
        TypeError: ``coefficients`` is no floating point tensor, or the temperature is one.

    Example:
        >>> posterior = CoarseGrained(torch.tensor([[1.0, -8.0], [3.0, 0.0]]))
        >>> posterior.batch_shape, posterior.rsample((5,)).shape
        (torch.Size([2]), torch.Size([5, 2]))
        >>> posterior.mean
        tensor([0.0624, 0.6716])
    """

    has_rsample = True
    arg_constraints: ClassVar = {"coefficients": constraints.real}  # a real vector's check refuses empty batches
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
        if isinstance(temperature, Tensor):
            raise TypeError("temperature: expected a number, got a tensor, which would have no gradient")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature: expected a positive finite number, got {temperature}")
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
        """Mean of the density."""
        mass, centre, _ = self._hats
        return (mass * centre).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance of the density."""
        mass, centre, spread = self._hats
        return (mass * (spread + (centre - self.mean[..., None]) ** 2)).sum(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw z of shape ``sample_shape + batch_shape``, differentiable in the coefficients."""
        sample_shape = torch.Size(sample_shape)
        flat = self.coefficients.reshape(1, self.batch_shape.numel(), self.coefficients.shape[-1])
        key = rng.key(device=flat.device)
        z = ops.coarse_grain_sample(flat, key, self.temperature, self.num_points, sample_shape.numel())
        return z.reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at ``value`` in [-1, 1], broadcast against the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        value = self._promoted(value)
        left, right, t = self._cell(value, self._polynomial(self.grid))
        # Log of the interpolated density: with the larger of its two terms made 1, neither can overflow. Past the
        # exponent's bound the other factor is 0.
        bound = math.log(torch.finfo(left.dtype).max) - 1
        with torch.no_grad():
            level = torch.maximum(left + torch.log1p(-t), right + torch.log(t))
        sides = (1 - t) * (left - level).clamp(max=bound).exp() + t * (right - level).clamp(max=bound).exp()
        outside = (value < -1) | (value > 1)
        return torch.where(outside, -torch.inf, level + torch.log(sides) - self._log_normaliser)

    def cdf(self, value: Tensor) -> Tensor:
        """P(z ≤ value), broadcast against the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        density, below, width = self._cells
        left, right, t, below_cell = self._cell(self._promoted(value), density, below)
        return (below_cell + width * t * (left + 0.5 * t * (right - left))).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """Inverse of :meth:`cdf` at probabilities ``value``, broadcast against the batch shape.

        Raises:
            ValueError: with validation, a value outside [0, 1] or NaN; without, it gives NaN.
        """
        if self._validate_args:
            check_probabilities(value)
        value = self._promoted(value)
        density, below, width = self._cells
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        value, below_all = value.expand(shape), below.to(value.dtype).expand(*shape, -1).contiguous()
        cell = torch.searchsorted(below_all, value[..., None].contiguous(), right=True) - 1
        cell = cell.clamp(0, self.num_points - 2)
        density = density.expand(*shape, -1)
        left, right = density.gather(-1, cell)[..., 0], density.gather(-1, cell + 1)[..., 0]
        target = (value - below_all.gather(-1, cell)[..., 0]).clamp(min=0) / width
        # The root of (right - left) t² / 2 + left t = target in the form that does not cancel.
        root = (left**2 + 2 * (right - left) * target).clamp(min=0).sqrt()
        t = (2 * target / (left + root).clamp(min=torch.finfo(left.dtype).tiny)).clamp(0, 1)
        return torch.where((value >= 0) & (value <= 1), self.grid[cell[..., 0]] + width * t, torch.nan)

    def _promoted(self, value: Tensor | float) -> Tensor:
        """The value in the dtype of arithmetic with the coefficients."""
        return as_tensor(value, common_dtype((value, self.coefficients)), self.coefficients.device)

    def _polynomial(self, x: Tensor) -> Tensor:
        """Σ_m c_m x^m by Horner's rule, ``batch_shape + [n]`` from ``x [..., n]``."""
        coefficients = self.coefficients
        total = coefficients[..., -1:].expand(torch.broadcast_shapes(x.shape, coefficients[..., -1:].shape))
        for m in range(coefficients.shape[-1] - 2, -1, -1):
            total = total * x + coefficients[..., m : m + 1]
        return total * x

    @property
    def _cell_width(self) -> float:
        return 2 / (self.num_points - 1)

    @lazy_property
    def _log_masses(self) -> Tensor:
        """Log of the unnormalised mass of each point's hat function, ``batch_shape + [R]``: half at the ends."""
        weights = torch.full_like(self.grid, self._cell_width)
        weights[0] = weights[-1] = self._cell_width / 2
        return self._polynomial(self.grid) + weights.log()

    @lazy_property
    def _log_normaliser(self) -> Tensor:
        """Log of the integral: the trapezoidal rule is exact between the points."""
        return self._log_masses.logsumexp(-1)

    @property
    def _hats(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mass, mean and variance of the hat functions that make up the density; those at the ends are halves."""
        width = self._cell_width
        centre, spread = self.grid.clone(), torch.full_like(self.grid, width**2 / 6)
        centre[0], centre[-1] = -1 + width / 3, 1 - width / 3
        spread[0] = spread[-1] = width**2 / 18
        return self._log_masses.softmax(-1), centre, spread

    @property
    def _cells(self) -> tuple[Tensor, Tensor, float]:
        """Density at the points, probability below each of them, and their distance."""
        width = self._cell_width
        density = (self._polynomial(self.grid) - self._log_normaliser[..., None]).exp()
        areas = 0.5 * width * (density[..., 1:] + density[..., :-1])
        return density, torch.cat([torch.zeros_like(areas[..., :1]), areas.cumsum(-1)], -1), width

    def _cell(self, value: Tensor, at_points: Tensor, *of_cells: Tensor) -> tuple[Tensor, ...]:
        """``at_points`` left and right of each value, its place t ∈ [0, 1] between them, and ``of_cells`` there."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        value = value.expand(shape)
        cell = ((value + 1) / self._cell_width).floor().nan_to_num().clamp(0, self.num_points - 2).to(torch.int64)

        def gather(table: Tensor, index: Tensor) -> Tensor:
            return table.expand(*shape, table.shape[-1]).gather(-1, index[..., None])[..., 0]

        t = ((value - self.grid[cell]) / self._cell_width).clamp(0, 1)
        return gather(at_points, cell), gather(at_points, cell + 1), t, *(gather(table, cell) for table in of_cells)


@register_kl(CoarseGrained, CoarseGrained)
def _kl_coarse_grained(q: CoarseGrained, p: CoarseGrained) -> Tensor:
    """KL of the categorical limits (CG-BPEF-VAE eq. 4)."""
    if q.num_points != p.num_points or q.coefficients.shape[-1] != p.coefficients.shape[-1]:
        raise ValueError(
            f"expected equal num_points and orders, got {q.num_points} and {p.num_points}, "
            f"{q.coefficients.shape[-1]} and {p.coefficients.shape[-1]}"
        )
    shape = torch.broadcast_shapes(q.coefficients.shape, p.coefficients.shape)
    flat_q, flat_p = (x.coefficients.expand(shape).reshape(shape[:-1].numel(), shape[-1]) for x in (q, p))
    return ops.coarse_grain_kl(flat_q[None], flat_p, q.num_points).reshape(shape[:-1])
