"""What the smoothed binary distributions share: parameters, shapes and sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property, logits_to_probs, probs_to_logits

from dvae_ext import rng
from dvae_ext.ops._arguments import scalar


def common_dtype(values: Iterable[Tensor | float]) -> torch.dtype:
    """The dtype of arithmetic among floating point tensors (those without dimensions yield to the others) and numbers.

    Example:
        >>> common_dtype([torch.zeros(2), torch.tensor(1.0, dtype=torch.float64), 8])
        torch.float32
    """
    tensors = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    deciding = [tensor for tensor in tensors if tensor.ndim > 0] or tensors
    return reduce(torch.promote_types, (tensor.dtype for tensor in deciding)) if deciding else torch.get_default_dtype()


def as_tensor(value: Tensor | float, dtype: torch.dtype, device: torch.device | None) -> Tensor:
    """A tensor in the dtype, where it is; a number on the device."""
    return value.to(dtype) if isinstance(value, Tensor) else scalar(value, dtype, device)


def check_probabilities(value: Tensor | float) -> None:
    """Refuses what an inverse CDF has no value for."""
    if not (isinstance(value, Tensor) and bool(torch.all((value >= 0) & (value <= 1)))):
        raise ValueError("value: expected a tensor of probabilities in [0, 1]")


class SmoothedBernoulli(Distribution, ABC):
    r"""Base of q(ζ) = Σ_z q(z) r(ζ|z) with z ~ Bernoulli(σ(logits)) (DVAE++ eq. 2).

    A subclass names the parameters of r in ``shape_parameters`` and implements ``_icdf``, ``_log_prob``, ``cdf`` and
    ``posterior_logits``. The Bernoulli is given by exactly one of ``logits`` and ``probs``; probabilities are clamped
    to [ε, 1 − ε] of their dtype, as torch.distributions does, so pass logits where the tails matter. Parameters, and
    values given to the methods, may be of several floating point dtypes: they are promoted as in arithmetic.

    Raises:
        ValueError: both or none of ``logits`` and ``probs`` given; with validation, a parameter outside its constraint.
        TypeError: ``logits`` or ``probs`` not floating point.
    """

    has_rsample = True
    shape_parameters: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        logits: Tensor | float | None,
        probs: Tensor | float | None,
        parameters: Mapping[str, Tensor | float],
        validate_args: bool | None,
    ) -> None:
        if logits is not None and probs is None:
            name, given = "logits", logits
        elif probs is not None and logits is None:
            name, given = "probs", probs
        else:
            raise ValueError("expected exactly one of logits and probs, got " + ("none" if logits is None else "both"))
        if isinstance(given, Tensor) and not given.is_floating_point():
            raise TypeError(f"{name}: expected a floating point tensor, got {given.dtype}")
        values = (given, *parameters.values())
        dtype = common_dtype(values)
        device = next((value.device for value in values if isinstance(value, Tensor)), None)
        given, *others = torch.broadcast_tensors(*(as_tensor(value, dtype, device) for value in values))
        self.__dict__[name] = given
        self._given = name
        for parameter, value in zip(parameters, others, strict=True):
            setattr(self, parameter, value)
        super().__init__(given.shape, validate_args=validate_args)

    @lazy_property
    def logits(self) -> Tensor:
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        return logits_to_probs(self.logits, is_binary=True)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SmoothedBernoulli:
        new = self._get_checked_instance(type(self), _instance)
        batch_shape = torch.Size(batch_shape)
        new._given = self._given
        for name in (self._given, *self.shape_parameters):
            new.__dict__[name] = getattr(self, name).expand(batch_shape)
        super(SmoothedBernoulli, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw ζ of shape ``sample_shape + batch_shape`` by the inverse CDF of uniforms from torch's generator.

        The uniforms have float32's precision at least, ζ the dtype of the parameters.
        """
        return self._icdf(rng.uniform(self._extended_shape(sample_shape), self.logits)).to(self.logits.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        """Inverse CDF at ``value`` in [0, 1], broadcast against the batch shape; differentiable in the parameters.

        Uniform values give samples, but not where they were drawn in half precision, which is too coarse
        (:func:`dvae_ext.rng.uniform`).

        Raises:
            ValueError: with validation, a value outside [0, 1] or NaN.
        """
        if self._validate_args:
            check_probabilities(value)
        return self._icdf(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density log q(ζ) at ``value``, broadcast against the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob(value)

    @abstractmethod
    def posterior_logits(self, value: Tensor) -> Tensor:
        """Logits of q(z = 1 | ζ): ``logits + log r(ζ|1) − log r(ζ|0)`` (DVAE++ section 5)."""

    @abstractmethod
    def _icdf(self, rho: Tensor) -> Tensor: ...

    @abstractmethod
    def _log_prob(self, value: Tensor) -> Tensor: ...

    def _arguments(self, value: Tensor | float) -> tuple[Tensor, ...]:
        """``value``, ``logits`` and the parameters of r in the order of ``shape_parameters``, in one dtype."""
        tensor = self._promoted(value)
        parameters = (self.logits, *(getattr(self, name) for name in self.shape_parameters))
        return tensor, *(parameter.to(tensor.dtype) for parameter in parameters)

    def _promoted(self, value: Tensor | float) -> Tensor:
        """``value`` in the dtype of arithmetic with the parameters."""
        return as_tensor(value, common_dtype((value, self.logits)), self.logits.device)
