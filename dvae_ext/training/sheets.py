"""Sample sheets: prior samples, and reconstructions beside the data."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dvae_ext.data import Dataset
from dvae_ext.models import Model
from dvae_ext.models.base import evaluating

from .files import write_atomically


def spread(images: Tensor, count: int) -> Tensor:
    """``count`` images from all over the set: files are often sorted by class."""
    return images[torch.linspace(0, len(images) - 1, min(count, len(images)), device=images.device).long()]


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Draws inside come from ``seed`` and leave torch's generators outside as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield torch.Generator(device).manual_seed(seed)


def image_grid(images: Tensor, image_shape: tuple[int, int], columns: int) -> np.ndarray:
    """Images side by side, separated by a line one pixel wide.

    Args:
        images: ``[n, height * width]`` in [0, 1].
        image_shape: Height and width.
        columns: Images in a row; the last row may be shorter.

    Returns:
        uint8 array ``[rows * (height + 1) + 1, columns * (width + 1) + 1]``.

    Example:
        >>> image_grid(torch.ones(3, 4), (2, 2), columns=2).tolist()[1]
        [96, 255, 255, 96, 255, 255, 96]
    """
    height, width = image_shape
    pixels = (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    rows = -(-len(pixels) // columns)
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), 96, np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
        grid[top : top + height, left : left + width] = image.reshape(height, width)
    return grid


def prior_and_reconstructions(
    model: Model, dataset: Dataset, num_samples: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean images of prior samples ``[num_samples, D]``, and test images and their reconstructions in turn."""
    with evaluating(model), isolated_rng(seed, device) as generator:
        samples = model.generate(num_samples, generator)
        data = spread(dataset.test, max(1, num_samples // 2)).to(device).float()
        pairs = torch.stack([data, model.reconstruct(data)], dim=1).flatten(0, 1)
    return samples, pairs


def prior_by_chain(model: Model, chains: int, length: int, generator: torch.Generator) -> Tensor:
    """Mean images of prior samples ``[chains * length, D]``, chain after chain.

    A prior without chains gives independent samples.
    """
    by_chain = getattr(model, "generate_chains", None)
    if by_chain is not None:
        return by_chain(chains, length, generator=generator).flatten(0, 1)
    return model.generate(chains * length, generator)


def write_sheet(
    path: Path, model: Model, dataset: Dataset, size: int, seed: int, device: torch.device, title: str
) -> None:
    """Write a PNG with two labelled panels: prior samples by chain, and pairs of test image and reconstruction.

    Args:
        path: PNG file.
        model: A trained model.
        dataset: Its data.
        size: Rows and columns of each panel.
        seed: Seed of the samples.
        device: Where the model is.
        title: Line above the panels.

    Raises:
        RunError: if the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with evaluating(model), isolated_rng(seed, device) as generator:
        samples = prior_by_chain(model, size, size, generator)
        data = spread(dataset.test, size * size // 2).to(device).float()
        pairs = torch.stack([data, model.reconstruct(data)], dim=1).flatten(0, 1)
    chains = "each row one chain of the prior" if hasattr(model, "generate_chains") else "samples of the prior"
    panels = ((chains, samples, size), ("test images, each followed by its reconstruction", pairs, size // 2 * 2))
    figure = Figure(figsize=(11, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for axes, (label, images, columns) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.imshow(
            image_grid(images, dataset.info.image_shape, columns),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest",
        )
        axes.set_title(label, fontsize=9)
        axes.set_axis_off()
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_atomically(path, image.getvalue())


def write_grid(path: Path, grid: np.ndarray) -> None:
    """Write a grid of ``image_grid`` as PNG, enlarged so that small images can be seen."""
    from matplotlib.image import imsave

    factor = max(1, 400 // grid.shape[1])
    image = io.BytesIO()
    imsave(image, grid.repeat(factor, axis=0).repeat(factor, axis=1), format="png", cmap="gray", vmin=0, vmax=255)
    write_atomically(path, image.getvalue())
