"""All models under autocast, under torch.compile, and where torch's default device is another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from dvae_ext.data import DataInfo
from dvae_ext.models import MODELS
from dvae_ext.models.base import Model

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {"latents": 3}),
    "mae": ("vae", {"latents": 3, "eta": 1.0, "gamma": 0.5}),
    "cat-vae": ("cat-vae", {"latents": 2, "categories": 3}),
    "cg-bpef-vae": ("cg-bpef-vae", {"latents": 2, "order": 3, "num_points": 7}),
    "dvae": ("dvae", {"latent_groups": (8, 8), "num_chains": 10, "generation_sweeps": 5}),
    "dvae-logistic": ("dvae", {"latent_groups": (8, 8), "num_chains": 10, "smoothing": "overlap_logistic"}),
    "dvae-spike": ("dvae", {"latent_groups": (8, 8), "num_chains": 10, "smoothing": "spike_exponential"}),
    "dvae-reference": ("dvae", {"latent_groups": (8, 8), "num_chains": 10, "ops": "reference"}),
}
INFO = DataInfo("test", (1, 16), torch.full((16,), 0.3))


def build(name: str) -> Model:
    torch.manual_seed(0)
    model, options = SMALL[name]
    spec = MODELS[model]
    return spec.build(spec.config_class(**{"hidden": (16,), **options}), INFO)


def images(batch: int = 20) -> Tensor:
    return (torch.rand(batch, 16, generator=torch.Generator().manual_seed(1)) < 0.3).float()


@pytest.mark.parametrize("name", SMALL)
def test_training_under_autocast(name: str) -> None:
    """With the same draws the loss and its terms are those of float32 to 1 %: the networks alone have 8 bits."""
    losses, gradients = [], []
    for enabled in (False, True):
        model = build(name)
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss, metrics = model.training_loss(images(500), 50, 100)
        loss.backward()
        assert {value.dtype for value in (loss, *metrics.values())} <= {torch.float32, torch.float64}
        losses.append({**{key: value.item() for key, value in metrics.items()}, "loss": loss.item()})
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        assert gradients[-1].isfinite().all()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert model.log_weights(images(5), 3).shape == (3, 5)
            assert model.reconstruct(images(5)).shape == model.generate(5).shape == (5, 16)
    assert losses[1] == pytest.approx(losses[0], rel=1e-2, abs=1e-3)
    # A spike at zero makes the gradient jump with a logit: 5 % where it is smooth, and a direction that agrees.
    similarity = torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    assert similarity > 0.99


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"dvae-reference"}))
def test_training_losses_compile_for_all_steps(name: str) -> None:
    """Of 13 steps, each with a temperature or KL weight of its own; a trace that starts anew is counted twice."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    losses = []
    for compiles in (False, True):
        model = build(name)
        call = torch.compile(model.training_loss, fullgraph=True, backend=counter) if compiles else model.training_loss
        torch.manual_seed(5)
        losses.append([call(images(), step, 40)[0].item() for step in range(0, 39, 3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert counter.frame_count <= 3


@pytest.fixture
def default_device_meta() -> Iterator[None]:
    """Every tensor whose device nobody names has no data, and does not mix with those of the model."""
    yield
    torch.set_default_device(None)


@pytest.mark.usefixtures("default_device_meta")
@pytest.mark.parametrize("name", SMALL)
def test_models_stay_on_their_device(name: str) -> None:
    model, x, mean = build(name), images(5), torch.full((16,), 0.4)
    torch.set_default_device("meta")
    model.initialise(mean)
    loss, _ = model.training_loss(x, 0, 10)
    loss.backward()
    optimizer, schedule = model.optimizer(10)
    optimizer.step()
    schedule.step()
    model.after_step(0)
    for result in (loss, model.log_weights(x, 3), model.reconstruct(x), model.generate(4)):
        assert result.device.type == "cpu"
        assert result.isfinite().all()


@pytest.mark.usefixtures("default_device_meta")
@pytest.mark.parametrize("name", SMALL)
def test_models_are_made_on_the_default_device(name: str) -> None:
    torch.set_default_device("meta")
    model = build(name)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
