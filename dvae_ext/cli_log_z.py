"""The command ``dvae-ext log-z``: log Z of the RBM of a trained run, or of one in a file."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dvae_ext.rbm import LogZEstimate, log_z
from dvae_ext.rbm.log_z_plot import plot_log_z
from dvae_ext.training import CheckpointError, RunError, RunFolder, process_group, read_checkpoint, resolve_device

MISSING = "needs the packages of the train extra: pip install 'dvae_ext[train]'"
try:
    import tyro
except ImportError:
    sys.exit(f"dvae-ext {MISSING}")

NAMES = {"weight": ("weight", "W"), "visible_bias": ("visible_bias",), "hidden_bias": ("hidden_bias",)}
_SAFETENSORS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass
class LogZOptions:
    """log Z of an RBM with its error bar. Progress and a summary go to stderr, the estimate as JSON to stdout.

    Under torchrun the ladders are split over the processes.
    """

    source: tyro.conf.Positional[Path]
    """Run folder, or a .npz or .safetensors file with weight [n_visible, n_hidden], visible_bias and hidden_bias."""
    method: Literal["tempering", "exact", "ais"] = "tempering"
    """Parallel tempering, enumeration (30 units at most on the smaller side), or annealed importance sampling."""
    sweeps: int | None = None
    """Sweeps of the measurement; by default 8192."""
    ladders: int = 32
    """Independent ladders, at least 16."""
    levels: int | None = None
    """A fixed number of temperatures in place of an adapted one."""
    target_std_error: float | None = None
    """Measure until the standard error is this small."""
    seconds: float | None = None
    """Measure until this much time has passed."""
    reference: Literal["auto", "uniform", "independent"] = "auto"
    """Independent units at the other end of the path."""
    seed: int | None = None
    """Seed of all draws."""
    out: Path | None = None
    """Also write the JSON to this file."""
    plot: Path | None = None
    """Draw rejections, local barrier and the course of the estimate into this PNG or PDF."""
    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:1 ..."""


def log_z_command(args: list[str]) -> None:
    """``dvae-ext log-z``."""
    options = tyro.cli(LogZOptions, prog="dvae-ext log-z", args=args)
    device = resolve_device(options.device)
    parameters = {name: tensor.to(device) for name, tensor in read_rbm(options.source).items()}
    with process_group(device) as ranks:
        estimate = _estimate(SimpleNamespace(**parameters), options, ranks.first)
        if not ranks.first:
            return
        text = json.dumps(estimate.to_dict(), indent=2)
        print(text)
        print(estimate, file=sys.stderr)
        if options.out is not None:
            options.out.write_text(text + "\n", encoding="utf-8")
        if options.plot is not None:
            try:
                plot_log_z(estimate, options.plot)
            except ValueError as error:
                raise RunError(str(error)) from None


def _estimate(rbm: SimpleNamespace, options: LogZOptions, first: bool) -> LogZEstimate:
    def progress(line: str) -> None:
        if first:
            print(line, file=sys.stderr, flush=True)

    try:
        return log_z(
            rbm,
            options.method,
            sweeps=options.sweeps,
            ladders=options.ladders,
            levels=options.levels,
            target_std_error=options.target_std_error,
            seconds=options.seconds,
            reference=options.reference,
            seed=options.seed,
            progress=progress,
        )
    except (ValueError, RuntimeError, TimeoutError) as error:
        raise RunError(str(error)) from None


def read_rbm(source: Path) -> dict[str, Tensor]:
    """``weight``, ``visible_bias`` and ``hidden_bias`` of a run's best checkpoint or of a file.

    Raises:
        RunError: the source holds no RBM, or cannot be read.
        CheckpointError: no checkpoint of the run can be used.
    """
    if source.is_dir():
        return _find(_run_tensors(source), str(source), prefix_allowed=True)
    if not source.is_file():
        raise RunError(f"{source} does not exist; expected a run folder, a .npz or a .safetensors file")
    if source.suffix == ".npz":
        return _find(_npz_tensors(source), str(source))
    if source.suffix == ".safetensors":
        return _find(_safetensors(source), str(source))
    raise RunError(f"{source} has the ending {source.suffix!r}, expected .npz or .safetensors, or a run folder")


def _run_tensors(folder: Path) -> Mapping[str, Tensor]:
    run = RunFolder(folder)
    run.config()  # says so where the folder holds no run
    try:
        return read_checkpoint(run.checkpoints.best)["model"]
    except CheckpointError:
        return run.checkpoints.load_newest()[0]["model"]


def _npz_tensors(path: Path) -> dict[str, Tensor]:
    try:
        # From a file object: np.load would take a file of another kind for a single array or a pickle.
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            return {
                name: torch.from_numpy(np.asarray(archive[name], dtype=_numpy_dtype(name, archive[name])))
                for name in archive
            }
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"{path} cannot be read as a NumPy archive: {error}") from None


def _numpy_dtype(name: str, array: np.ndarray) -> type:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"array {name} has dtype {array.dtype}, expected real numbers")
    return np.float64 if array.dtype == np.float64 else np.float32


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Reads the format's header (8 bytes of length, then JSON) and the tensors behind it."""
    data = path.read_bytes()
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] not in _SAFETENSORS:
                continue
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            raw = torch.frombuffer(bytearray(data[begin:end]), dtype=_SAFETENSORS[entry["dtype"]])
            tensors[name] = raw.reshape(entry["shape"])
        return tensors
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise RunError(f"{path} cannot be read as a safetensors file: {error}") from None


def _find(tensors: Mapping[str, Tensor], where: str, prefix_allowed: bool = False) -> dict[str, Tensor]:
    """The three parameters, in a model's state under the name of its RBM."""
    prefixes = [""]
    if prefix_allowed:
        prefixes = [name.removesuffix("weight") for name in tensors if name.endswith("rbm.weight")]
        if not prefixes:
            raise RunError(f"{where} is a run of a model without an RBM: its prior is normalised, there is no log Z")
    found = {}
    for name, spellings in NAMES.items():
        match = next((prefixes[0] + s for s in spellings if prefixes[0] + s in tensors), None)
        if match is None:
            raise RunError(f"{where} has no array {' or '.join(spellings)}; it has: {', '.join(tensors) or 'nothing'}")
        found[name] = tensors[match]
    return found
