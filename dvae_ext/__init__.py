"""Fast, exact building blocks for variational autoencoders with discrete latents.

``dvae_ext.ops`` holds the functional ops, ``dvae_ext.distributions`` the torch.distributions classes on them,
``dvae_ext.rbm`` restricted Boltzmann machines, ``dvae_ext.models`` the papers' systems. Submodules load on first use.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from dvae_ext._version import __version__

_SUBMODULES = (
    "data",
    "distributions",
    "evaluation",
    "models",
    "nn",
    "objectives",
    "ops",
    "rbm",
    "reference",
    "rng",
    "training",
)
__all__ = ["__version__", *_SUBMODULES]


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"dvae_ext.{name}")
    raise AttributeError(f"module 'dvae_ext' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
