"""Data sets of the papers, read from their original files, and batches that can be resumed at any step."""

from .batches import TrainingBatches, derive_seed, evaluation_batches
from .dataset import DataError, DataInfo, Dataset
from .loaders import DATASETS, DatasetSpec, load

__all__ = [
    "DATASETS",
    "DataError",
    "DataInfo",
    "Dataset",
    "DatasetSpec",
    "TrainingBatches",
    "derive_seed",
    "evaluation_batches",
    "load",
]
