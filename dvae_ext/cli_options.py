"""The options of the commands of ``dvae-ext``: a field each, and the text of its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dvae_ext.cli_log_z import tyro


@dataclass
class TrainOptions:
    """Train a model, keep the parameters with the best validation likelihood and evaluate them on the test set."""

    data: str = "digits"
    """Data set: a name from dvae-ext train --help."""
    data_dir: Path | None = None
    """Folder of the original data files, or of one subfolder for each data set."""
    binarisation: str | None = None
    """dynamic (anew at every step), static (once) or none (grey values); by default what the papers do."""
    preset: str | None = None
    """Named configuration of the model; every option below overrides one field of it."""
    out: Path | None = None
    """Run folder; by default a new one under runs/."""
    resume: Path | None = None
    """Continue this run from its last checkpoint; goes with --data-dir and --device alone."""


@dataclass
class ResumeOptions:
    """Continue a run that was stopped; its configuration, the number of steps too, is taken from the run folder."""

    resume: Path
    """Run folder."""
    data_dir: Path | None = None
    """Folder of the data files, if they have moved."""
    device: str | None = None
    """Another device than before."""


@dataclass
class EvaluateOptions:
    """Likelihood of the test set: importance-weighted, with its error bar; relaxed latents in their discrete limit, and
    with log Z where the prior is an RBM.

    Writes report.json, report.md and samples.png to the run folder.
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    samples: int = 1000
    """Importance samples for each test image."""
    data_dir: Path | None = None
    """Folder of the data files, if they have moved."""
    device: str | None = None
    """Another device than in training."""


@dataclass
class SampleOptions:
    """Write a PNG sheet: samples of the prior (of an RBM a row for each chain), and test images beside their
    reconstructions."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG file; by default samples.png in the run folder."""
    size: int = 10
    """Rows and columns of each panel."""
    seed: int = 0
    """Seed of the samples."""
    data_dir: Path | None = None
    """Folder of the data files, if they have moved."""
    device: str | None = None
    """Another device than in training."""


@dataclass
class ProbeOptions:
    """Classify test images by their mean latents: k-means, nearest neighbours and linear classifiers of few labels.

    Writes probes.json to the run folder. For vae, cat-vae and cg-bpef-vae on data sets with labels: digits, mnist,
    fashion-mnist.
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    neighbours: int = 10
    """Nearest neighbours that vote, weighted by the inverse of their distance."""
    data_dir: Path | None = None
    """Folder of the data files, if they have moved."""
    device: str | None = None
    """Another device than in training."""
