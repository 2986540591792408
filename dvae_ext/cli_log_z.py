"""The command ``dvae-ext log-z``: log Z of the RBM of a trained run, or of one in a file."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import struct
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dvae_ext.rbm import LogZEstimate, log_z
from dvae_ext.rbm.log_z_plot import plot_log_z
from dvae_ext.training import RunError, RunFolder, process_group, resolve_device
from dvae_ext.training.config import check_range
from dvae_ext.training.files import saving, write_atomically

MISSING = "needs the packages of the train extra: pip install 'dvae_ext[train]'"
try:
    import tyro
except ImportError:
    sys.exit(f"dvae-ext {MISSING}")

NAMES = {"weight": ("weight", "W"), "visible_bias": ("visible_bias",), "hidden_bias": ("hidden_bias",)}
SPELLINGS = {spelling for spellings in NAMES.values() for spelling in spellings}
# A few megabytes of a compressed archive can unpack to more than the memory holds.
LARGEST_UNPACKED = 2**30
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
    chains: int = 1024
    """Chains of annealed importance sampling."""
    num_betas: int = 1000
    """Its steps."""
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
    for option, path in (("--out", options.out), ("--plot", options.plot)):
        if path is not None and not path.resolve().parent.is_dir():
            raise RunError(f"{option}: the folder {path.resolve().parent} does not exist")
    if options.plot is not None:  # before what may take hours
        if options.plot.suffix.lower() not in (".png", ".pdf"):
            raise RunError(f"--plot is {options.plot}, expected a file name that ends in .png or .pdf")
        if options.method != "tempering":
            raise RunError(f"--plot draws the ladder of --method tempering; {options.method} has none")
    counts = ("sweeps", "ladders", "levels", "chains", "num_betas", "seed")
    check_range({name: value for name, value in vars(options).items() if name in counts}, "--")
    device = resolve_device(options.device)
    notes: list[str] = []
    parameters = {name: tensor.to(device) for name, tensor in read_rbm(options.source, notes).items()}
    if int(os.environ.get("RANK", 0)) == 0:
        tell(notes)
    with process_group(device) as ranks:
        estimate = _estimate(SimpleNamespace(**parameters), options, ranks.first)
        if not ranks.first:
            return
        text = json.dumps(estimate.to_dict(), indent=2)
        print(text)
        print(estimate, file=sys.stderr)
        if options.out is not None:
            write_atomically(options.out, f"{text}\n".encode())
        if options.plot is not None:
            _plot(estimate, options.plot)


def tell(notes: Sequence[str]) -> None:
    """Print notes to stderr, each once."""
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)


def _plot(estimate: LogZEstimate, path: Path) -> None:
    with saving(path), tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / path.name
        try:
            plot_log_z(estimate, picture)
        except ValueError as error:
            raise RunError(str(error)) from None
        write_atomically(path, picture.read_bytes())


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
            chains=options.chains,
            num_betas=options.num_betas,
            seed=options.seed,
            progress=progress,
        )
    except (ValueError, RuntimeError, TimeoutError) as error:
        raise RunError(str(error)) from None


def read_rbm(source: Path, notes: list[str] | None = None) -> dict[str, Tensor]:
    """``weight``, ``visible_bias`` and ``hidden_bias`` of a run's best checkpoint or of a file.

    Args:
        source: Run folder, .npz or .safetensors file.
        notes: Sentences are added: that another checkpoint than the best had to be used, for instance.

    Raises:
        RunError: the source holds no RBM, or cannot be read.
        CheckpointError: no checkpoint of the run can be used.
    """
    if source.is_dir():
        run = RunFolder(source)
        run.config()  # says so where the folder holds no run
        content, problems = run.checkpoints.load_best()
        if notes is not None:
            notes += [*run.notes, *problems]
        model = content["model"]
        prefix = next((name.removesuffix("weight") for name in model if name.endswith("rbm.weight")), None)
        if prefix is None:
            raise RunError(f"{source} is a run of a model without an RBM: its prior is normalised, there is no log Z")
        return _choose(
            {name[len(prefix) :]: tensor for name, tensor in model.items() if name.startswith(prefix)},
            list(model),
            source,
        )
    if not source.is_file():
        raise RunError(f"{source} does not exist; expected a run folder, a .npz or a .safetensors file")
    if source.suffix == ".npz":
        return _choose(*_npz(source), source)
    if source.suffix == ".safetensors":
        return _choose(*_safetensors(source), source)
    raise RunError(f"{source} has the ending {source.suffix!r}, expected .npz or .safetensors, or a run folder")


def _npz(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The arrays that may be parameters, and the names of all."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {part.filename.removesuffix(".npy"): part for part in archive.infolist()}
            if len(parts) < len(archive.infolist()):
                raise ValueError("two of its arrays have the same name")
            size = path.stat().st_size
            return {name: _npy(archive, parts[name], name, size) for name in SPELLINGS & parts.keys()}, list(parts)
    except Exception as error:  # zipfile and NumPy raise many kinds of errors on foreign bytes
        raise RunError(f"{path} cannot be read as a NumPy archive: {_reason(error)}") from None


def _npy(archive: zipfile.ZipFile, part: zipfile.ZipInfo, name: str, archive_size: int) -> Tensor:
    if part.compress_size > archive_size:
        raise ValueError(f"array {name} is cut short")
    if part.file_size > max(part.compress_size, LARGEST_UNPACKED):
        raise ValueError(
            f"array {name} unpacks to {part.file_size:,} bytes, more than the {LARGEST_UNPACKED:,} that are read from "
            "a compressed archive; store it uncompressed"
        )
    with archive.open(part) as member:
        data = member.read(part.file_size + 1)  # to the end, where the checksum is compared
    stream = io.BytesIO(data)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = headers[np.lib.format.read_magic(stream)](stream)
    except Exception as error:
        raise ValueError(f"array {name} has no header that can be read: {_reason(error)}") from None
    if dtype.kind not in "fiub":
        raise ValueError(f"array {name} has dtype {dtype}, expected real numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"array {name} has the shape {shape} of {dtype}, but {len(data) - stream.tell()} bytes")
    array = np.frombuffer(data, dtype, math.prod(shape), stream.tell()).reshape(shape, order="F" if fortran else "C")
    with np.errstate(over="ignore"):  # infinity is refused later
        exact = array.astype(np.float32)
        wide = (dtype.kind == "f" and dtype.itemsize > 4) or (dtype.kind in "iu" and bool((exact != array).any()))
        return torch.from_numpy(array.astype(np.float64) if wide else exact)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Reads the format's header (8 bytes of length, then JSON) and the tensors behind it, as ``_npz``."""
    try:
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        if length > len(data) - 8:
            raise ValueError("its header is cut short")
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=_without_repeats)
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
        header.pop("__metadata__", None)
        start, end = 8 + length, 0
        entries = {name: _entry(name, entry) for name, entry in header.items()}
        # The format has no gaps and no overlaps: each tensor begins where another ends.
        for name, (_, _, begin, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
            if begin != end or stop < begin:
                raise ValueError(f"tensor {name} has data_offsets [{begin}, {stop}], expected to begin at {end}")
            end = stop
        if end != len(data) - start:
            raise ValueError(f"its tensors have {end} bytes, the file has {len(data) - start}")
        tensors = {}
        for name in SPELLINGS & entries.keys():
            kind, shape, begin, stop = entries[name]
            if kind not in _SAFETENSORS:
                raise ValueError(f"tensor {name} has dtype {kind}, expected one of {', '.join(_SAFETENSORS)}")
            dtype = _SAFETENSORS[kind]
            if math.prod(shape) * dtype.itemsize != stop - begin:
                raise ValueError(f"tensor {name} has the shape {shape} of {kind}, but {stop - begin} bytes")
            raw = bytearray(data[start + begin : start + stop])
            tensors[name] = (torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)).reshape(shape)
        return tensors, list(entries)
    except Exception as error:  # a foreign header can be anything that JSON can be
        raise RunError(f"{path} cannot be read as a safetensors file: {_reason(error)}") from None


def _entry(name: str, entry: Any) -> tuple[str, list[int], int, int]:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [begin, stop]}:
            if all(type(number) is int and number >= 0 for number in (*shape, begin, stop)):
                return kind, shape, begin, stop
    raise ValueError(f"tensor {name} is {entry!r:.100}, expected dtype, shape and two data_offsets")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name in its header is repeated")
    return dict(pairs)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _choose(tensors: Mapping[str, Tensor], names: list[str], source: Path) -> dict[str, Tensor]:
    """The three parameters, in the widest of their types."""
    chosen = {}
    for name, spellings in NAMES.items():
        found = [spelling for spelling in spellings if spelling in tensors]
        if not found:
            raise RunError(f"{source} has no array {' or '.join(spellings)}; it has: {', '.join(names) or 'nothing'}")
        if len(found) > 1:
            raise RunError(f"{source} has both {' and '.join(found)}, expected one of them")
        chosen[name] = tensors[found[0]]
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in chosen.values()))
    return {name: tensor.to(dtype) for name, tensor in chosen.items()}
