"""The test likelihood of a finished run, written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dvae_ext import __version__
from dvae_ext.data import Dataset, derive_seed, evaluation_batches
from dvae_ext.evaluation import BoundEstimate, HasBoundTerms, active_units, bound
from dvae_ext.evaluation.likelihood import FEW_SAMPLES
from dvae_ext.models import Model
from dvae_ext.models.base import evaluating

from .config import RunConfig
from .distributed import Ranks
from .files import write_atomically
from .likelihood import EVALUATION_BATCH, Likelihood, estimate_likelihood
from .logbook import json_text
from .run import RunFolder
from .sheets import isolated_rng, write_sheet

# Rows and columns of the panels of samples.png.
SHEET_SIZE = 10


@dataclass(frozen=True)
class Report:
    """What a run came to.

    Args:
        run: The run folder.
        model: Name of the model.
        preset: Preset it started from.
        data: Name and binarisation of the data set.
        parameters: Number of trained parameters.
        steps: Updates of the whole run.
        selected_step: Step of the evaluated parameters.
        best: Whether they are those with the best validation likelihood; the newest otherwise.
        version: Version of this package that evaluated.
        test: Likelihood of the test set.
        notes: Sentences that belong beside the number.
        bounds: Of models whose bound has a reconstruction and a KL term: "bound", and for Concrete latents "relaxed",
            the estimate that training uses.
        grey: Whether the images have grey values, of which ``test`` is a cross-entropy.
        active_units: Latents whose posterior mean varies by more than 0.01 over the test set.
    """

    run: str
    model: str
    preset: str | None
    data: str
    parameters: int
    steps: int
    selected_step: int
    best: bool
    version: str
    test: Likelihood
    notes: tuple[str, ...]
    bounds: dict[str, BoundEstimate] = field(default_factory=dict)
    active_units: int | None = None
    grey: bool = False

    def rows(self) -> list[tuple[str, str]]:
        """The table, as pairs of label and value."""
        test = self.test
        chosen = "the best on validation" if self.best else "the last"
        rows = [
            ("model", self.model + (f", preset {self.preset}" if self.preset else "")),
            ("data", self.data),
            ("parameters", f"{self.parameters:,}"),
            ("steps", f"{self.steps:,}; evaluated: step {self.selected_step:,}, {chosen}"),
            (
                "test bound" if self.grey else "test log-likelihood",
                f"{test.log_likelihood:.2f} ± {test.std_error:.2f} nats (a lower bound"
                f"{' of a cross-entropy' if self.grey else ''} ± one standard error)",
            ),
            ("  of the test set", f"± {test.data_std_error:.3f} over {test.num_examples:,} images"),
        ]
        if test.log_z is not None:
            rows.append(("  of log Z", f"± {test.log_z_std_error:.3f} (log Z = {test.log_z:.3f}, {test.log_z_method})"))
        rows.append(
            (
                "importance samples",
                f"{test.num_samples:,} for each image ("
                + (
                    f"{test.effective_samples:.1f} effective; {100 * test.loose_share:.0f} % of the images have fewer "
                    f"than {FEW_SAMPLES})"
                    if math.isfinite(test.effective_samples)
                    else "with values that are not finite)"
                )
                + (", binary latents" if test.log_z is not None else ""),
            )
        )
        for name, value in self.bounds.items():
            terms = f"reconstruction {value.reconstruction:.2f}, KL {value.kl:.2f}"
            rows.append((f"test {name}", f"{value.value:.2f} ± {value.std_error:.2f} nats ({terms})"))
        if self.active_units is not None:
            rows.append(("active units", str(self.active_units)))
        rows += [("warning", warning) for warning in test.warnings]
        return rows + [("note", note) for note in self.notes]

    def text(self) -> str:
        """The table for a terminal."""
        rows = self.rows()
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [f"# {self.model} on {self.data}", "", "| | |", "| --- | --- |"]
        return "\n".join([*lines, *(f"| {label.strip()} | {value} |" for label, value in self.rows()), ""])


def evaluate_run(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    ranks: Ranks,
    num_samples: int,
    show: Callable[[Report], None] | None = None,
) -> Report:
    """Estimate the test likelihood of the best parameters, write ``report.json`` and ``report.md`` and draw a sheet.

    ``show`` is given the report, in the first process, before anything is written: what took long to compute is not
    lost where the folder cannot be written to.

    Raises:
        CheckpointError: if the run has no usable checkpoint.
        RunError: if a file cannot be written.
    """
    model, step, problems = run.load_model(config, dataset, device)
    seed = derive_seed(config.training.seed, "test")
    test = estimate_likelihood(model, dataset.test, num_samples, seed, device, ranks)
    bounds, active = estimate_bounds(model, dataset, seed, device) if ranks.first else ({}, None)
    report = Report(
        run=str(run.path),
        model=config.model,
        preset=config.preset,
        data=config.images,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=config.training.steps,
        selected_step=step,
        best=not problems,
        version=__version__,
        test=test,
        notes=(*dataset.notes, *run.notes, *problems),
        bounds=bounds,
        active_units=active,
        grey=config.binarisation == "none",
    )
    if ranks.first:
        if show is not None:
            show(report)
        write_report(report, run.path)
        title = f"{report.model} on {report.data}, step {step:,}: {test.log_likelihood:.2f} ± {test.std_error:.2f} nats"
        write_sheet(run.path / "samples.png", model, dataset, SHEET_SIZE, seed, device, title)
    return report


def estimate_bounds(
    model: Model, dataset: Dataset, seed: int, device: torch.device
) -> tuple[dict[str, BoundEstimate], int | None]:
    """Test bounds and active units of a model that has them."""
    if not isinstance(model, HasBoundTerms):
        return {}, None
    with evaluating(model), isolated_rng(derive_seed(seed, "bounds"), device):

        def batches() -> Iterator[Tensor]:
            return evaluation_batches(dataset.test, EVALUATION_BATCH, device)

        bounds = {"bound": bound(model, batches(), exact=True)}
        if hasattr(model.config, "temperature"):
            bounds["relaxed"] = bound(model, batches())
        posterior_mean = getattr(model, "posterior_mean", None)
        if posterior_mean is None:
            return bounds, None
        return bounds, active_units(torch.cat([posterior_mean(x).cpu() for x in batches()]))


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json`` and ``report.md``."""
    write_atomically(folder / "report.json", (json_text(asdict(report), indent=2) + "\n").encode())
    write_atomically(folder / "report.md", report.markdown().encode())
