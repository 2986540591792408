"""The registry of models: one file per system."""

from __future__ import annotations

from dvae_ext.models import dvae
from dvae_ext.models.base import Model, ModelSpec

MODELS: dict[str, ModelSpec] = {
    "dvae": ModelSpec(dvae.DVAEConfig, dvae.DVAE, dvae.PRESETS),
}

__all__ = ["MODELS", "Model", "ModelSpec"]
