"""One loop for all models: configuration, run folder, checkpoints, metrics, report."""

from .checkpoint import CheckpointError, CheckpointStore, read_checkpoint
from .config import TRAINING_DEFAULTS, RunConfig, RunError, TrainingConfig, default_config
from .distributed import Ranks, process_group, resolve_device
from .interrupt import Interrupted
from .likelihood import Likelihood, estimate_likelihood
from .loop import Trainer, train, with_device
from .probe import probe_run
from .report import Report, evaluate_run
from .run import RunFolder
from .sheets import image_grid, write_sheet

__all__ = [
    "TRAINING_DEFAULTS",
    "CheckpointError",
    "CheckpointStore",
    "Interrupted",
    "Likelihood",
    "Ranks",
    "Report",
    "RunConfig",
    "RunError",
    "RunFolder",
    "Trainer",
    "TrainingConfig",
    "default_config",
    "estimate_likelihood",
    "evaluate_run",
    "image_grid",
    "probe_run",
    "process_group",
    "read_checkpoint",
    "resolve_device",
    "train",
    "with_device",
    "write_sheet",
]
