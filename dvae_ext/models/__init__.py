"""The registry of models: one file per system."""

from __future__ import annotations

from dvae_ext.models import cat_vae, cg_bpef_vae, dvae, vae
from dvae_ext.models.base import Model, ModelSpec

MODELS: dict[str, ModelSpec] = {
    "dvae": ModelSpec(dvae.DVAEConfig, dvae.DVAE, dvae.PRESETS),
    "vae": ModelSpec(vae.VAEConfig, vae.VAE, vae.PRESETS),
    "cat-vae": ModelSpec(cat_vae.CatVAEConfig, cat_vae.CatVAE, cat_vae.PRESETS),
    "cg-bpef-vae": ModelSpec(cg_bpef_vae.CGBPEFVAEConfig, cg_bpef_vae.CGBPEFVAE, cg_bpef_vae.PRESETS),
}

__all__ = ["MODELS", "Model", "ModelSpec"]
