"""The command ``dvae-ext``: train, evaluate, sample, log-z, probe, bench."""

from __future__ import annotations

import os

# Threads that wait for each other shall sleep, not spin: where another program uses a core, spinning makes a training
# step twenty times slower. libgomp reads this when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import dataclasses
import re
import shlex
import signal
import sys
import typing
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import torch

from dvae_ext import __version__
from dvae_ext.benchmarks.command import Mistake
from dvae_ext.benchmarks.command import main as bench_command
from dvae_ext.cli_log_z import MISSING, log_z_command, tell, tyro
from dvae_ext.cli_options import EvaluateOptions, ProbeOptions, ResumeOptions, SampleOptions, TrainOptions
from dvae_ext.data import DATASETS, DataError
from dvae_ext.models import MODELS
from dvae_ext.training import (
    CheckpointError,
    Interrupted,
    Report,
    RunConfig,
    RunError,
    RunFolder,
    TrainingConfig,
    default_config,
    evaluate_run,
    probe_run,
    process_group,
    resolve_device,
    train,
    with_device,
    write_sheet,
)
from dvae_ext.training.config import check_range, reason

PROGRAM = "dvae-ext"
LARGEST_SHEET = 1000
HELP = """\
usage: dvae-ext COMMAND ...

Train, evaluate and sample discrete variational autoencoders.

  train MODEL       train a model and evaluate it on the test set
  evaluate RUN      certified likelihood of a trained run, with its error bar
  sample RUN        a PNG sheet: prior samples by chain, reconstructions
  log-z RUN|FILE    log Z of a run's RBM, or of one in a .npz or .safetensors file
  probe RUN         what the latents know of the classes: k-means, KNN, linear
  bench [OP ...]    measure the ops on this machine against plain PyTorch

Start with
  dvae-ext train dvae --data digits              two minutes, no files needed
  dvae-ext train dvae --data mnist-static --data-dir DIR --preset 1-nonlinear
  dvae-ext train --resume RUN                    continue a run that was stopped
Several processes: torchrun --nproc-per-node=2 -m dvae_ext.cli train dvae ...

dvae-ext train --help lists models, presets and data sets; dvae-ext train MODEL --help lists every option;
dvae-ext --version prints the version.
"""


def train_help() -> str:
    """What ``dvae-ext train --help`` prints: everything that can be named."""
    lines = [
        "usage: dvae-ext train MODEL [--data NAME] [--data-dir DIR] [--preset NAME] [--out RUN] [--steps N] ...",
        "       dvae-ext train --resume RUN [--data-dir DIR] [--device DEVICE]",
        "",
        "models and their presets:",
        *(f"  {name:<14} {', '.join(spec.presets) or 'no presets'}" for name, spec in MODELS.items()),
        "",
        "data sets, and how their images can be binarised (the first by default; none leaves them grey):",
        *(f"  {name:<14} {spec.summary} ({', '.join(spec.binarisations)})" for name, spec in DATASETS.items()),
        "",
        "dvae-ext train MODEL --help lists every option with its default, which --preset and --data change.",
        "",
    ]
    return "\n".join(lines)


def field_help(config_class: type) -> dict[str, str]:
    """What the ``Args:`` of a config class, and of the classes below it, say of each field."""
    texts: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        section = (base.__dict__.get("__doc__") or "").partition("Args:\n")[2].partition("\n\n")[0]
        for entry in re.split(r"\n(?= {8}\w)", section):
            name, colon, text = entry.strip().partition(":")
            if colon:
                texts[name] = " ".join(text.replace("``", "").split())
    return texts


def raw_class(config_class: type, values: dict[str, Any]) -> type:
    """A plain dataclass with the fields of ``config_class`` and the defaults of a preset.

    The config class itself may resolve fields that depend on others, such as a default β; this must wait until the
    options of the command line are in.
    """
    hints = typing.get_type_hints(config_class)
    texts = field_help(config_class)
    fields: list[tuple[str, Any, Any]] = []
    for item in dataclasses.fields(config_class):
        if item.name in values:
            default = field(default=values[item.name])
        elif item.default_factory is not dataclasses.MISSING:
            default = field(default_factory=item.default_factory)
        else:
            default = field(default=item.default)
        described = typing.cast(Any, Annotated)[hints[item.name], tyro.conf.arg(help=texts.get(item.name))]
        fields.append((item.name, described, default))
    raw = dataclasses.make_dataclass(config_class.__name__, fields)
    raw.__doc__ = config_class.__doc__
    return raw


def parse_train(model: str, args: Sequence[str]) -> tuple[RunConfig, Path | None]:
    """The configuration of a new run, and the folder it was given.

    Two passes: the first finds the data set and the preset, whose defaults the second shows and overrides.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--data", default="digits")
    first.add_argument("--preset", default=None)
    try:
        found, _ = first.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise RunError(f"{error.argument_name}: {error.message}") from None
    base = default_config(model, found.data, found.preset)
    spec = MODELS[model]
    raw = raw_class(spec.config_class, dict(spec.presets[base.preset]) if base.preset else {})
    options_class = dataclasses.make_dataclass(
        "TrainOptions",
        [
            (
                "training",
                Annotated[TrainingConfig, tyro.conf.arg(name="")],
                field(default_factory=lambda: base.training),
            ),
            ("config", Annotated[raw, tyro.conf.arg(name="")], field(default_factory=raw)),
        ],
        bases=(TrainOptions,),
    )
    options_class.__doc__ = TrainOptions.__doc__
    options: Any = tyro.cli(
        options_class,
        prog=f"{PROGRAM} train {model}",
        args=args,
        default=options_class(data=found.data, preset=base.preset),
    )
    config = default_config(
        model,
        options.data,
        options.preset,
        options.binarisation,
        None if options.data_dir is None else str(options.data_dir.resolve()),
    )
    config.training = options.training
    check_range(vars(options.config))
    try:
        config.model_config = spec.config_class(**vars(options.config))
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from None
    return config, options.out


def new_run(config: RunConfig) -> RunFolder:
    """``runs/MODEL-DATA[-PRESET]``, numbered from the second run on."""
    name = "-".join(dict.fromkeys(part for part in (config.model, config.data, config.preset) if part))
    return RunFolder(Path("runs") / name, numbered=True)


def resume_command(run: RunFolder) -> str:
    """What continues a run: as many processes as now."""
    processes, nodes, local = (
        int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE")
    )
    path = shlex.quote(str(run.path))
    if processes == 1:
        return f"{PROGRAM} train --resume {path}"
    several = f"--nnodes={nodes} " if nodes > 1 else ""
    return f"torchrun {several}--nproc-per-node={local} -m dvae_ext.cli train --resume {path}"


def train_command(args: list[str]) -> None:
    """``dvae-ext train``."""
    model = args.pop(0) if args and not args[0].startswith("-") else None
    if any(arg.split("=")[0] == "--resume" for arg in args):
        options = tyro.cli(ResumeOptions, prog=f"{PROGRAM} train", args=args)
        run = RunFolder(options.resume)
        config = with_device(run.config(options.data_dir), options.device)
        if model not in (None, config.model):
            raise RunError(f"{run.path} is a run of model {config.model}, not {model}")
    elif model is None:
        if "--help" in args or "-h" in args:
            print(train_help(), end="")
            return
        raise RunError(f"name the model first: {PROGRAM} train MODEL ...; known: {', '.join(MODELS)}")
    else:
        config, out = parse_train(model, args)
        run = new_run(config) if out is None else RunFolder(out)
    first = int(os.environ.get("RANK", 0)) == 0
    # Adam's moments of weights behind pixels that are rarely lit decay into denormal numbers after some 900 steps, and
    # the processor then takes a third more time for every step. Threads inherit the mode when they start.
    torch.set_flush_denormal(True)
    try:
        train(config, run, "options" in locals(), print_report)
    except Interrupted as stop:
        if first:
            complain(f"\n{stop}; checkpoint saved. Continue with: {resume_command(run)}")
        raise
    finally:
        torch.set_flush_denormal(False)
    if first:
        tell_user(f"written to {run.path}: report.md, report.json, samples.png, metrics.jsonl")


def print_report(report: Report) -> None:
    """Print the table; where nobody reads it, it is still to be written to the run folder."""
    tell_user(f"\n{report.text()}\n")


def tell_user(text: str) -> None:
    """Print what is in the run folder too: a reader who went away, or a full disk behind stdout, is no failure."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # what is left in the buffer would fail once more at the end


def evaluate_command(args: list[str]) -> None:
    """``dvae-ext evaluate``."""
    options = tyro.cli(EvaluateOptions, prog=f"{PROGRAM} evaluate", args=args)
    check_range({"samples": options.samples}, "--")
    if options.samples < 1:
        raise RunError(f"--samples must be at least 1, got {options.samples}")
    run = RunFolder(options.run)
    config = with_device(run.config(options.data_dir), options.device)
    device = resolve_device(config.training.device)
    dataset = run.load_dataset(config)
    with process_group(device) as ranks:
        evaluate_run(
            run,
            config,
            dataset,
            device,
            ranks,
            options.samples,
            print_report,
        )
        if ranks.first:
            tell_user(f"written to {run.path}: report.md, report.json, samples.png")


def sample_command(args: list[str]) -> None:
    """``dvae-ext sample``."""
    options = tyro.cli(SampleOptions, prog=f"{PROGRAM} sample", args=args)
    check_range({"size": options.size, "seed": options.seed}, "--")
    if options.size < 2:
        raise RunError(f"--size must be at least 2, got {options.size}")
    if options.size > LARGEST_SHEET:
        raise RunError(f"--size must be at most {LARGEST_SHEET}, got {options.size}")
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise RunError(f"--out is {options.out}, expected a file name that ends in .png")
    run = RunFolder(options.run)
    config = with_device(run.config(options.data_dir), options.device)
    device = resolve_device(config.training.device)
    dataset = run.load_dataset(config)
    model, step, problems = run.load_model(config, dataset, device)
    tell([*run.notes, *problems])
    out = options.out or run.path / "samples.png"
    title = f"{config.model} on {config.images}, step {step:,}"
    write_sheet(out, model, dataset, options.size, options.seed, device, title)
    print(f"written: {out}")


def probe_command(args: list[str]) -> None:
    """``dvae-ext probe``."""
    options = tyro.cli(ProbeOptions, prog=f"{PROGRAM} probe", args=args)
    run = RunFolder(options.run)
    config = with_device(run.config(options.data_dir), options.device)
    dataset, device = run.load_dataset(config), resolve_device(config.training.device)
    scores, problems = probe_run(run, config, dataset, device, options.neighbours)
    tell([*run.notes, *problems])
    print("\n".join(f"{name:<12} {score}" for name, score in scores.items()))
    print(f"\naccuracy in percent ± standard deviation over seeds, written to {run.path / 'probes.json'}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "sample": sample_command,
    "log-z": log_z_command,
    "probe": probe_command,
    "bench": bench_command,
}


def complain(text: str) -> None:
    """Print to stderr; a terminal that was closed, and cannot show it, changes nothing."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def check_values(args: Sequence[str]) -> None:
    """Raise a sentence for an empty argument, which would name the working directory where a path is expected."""
    for before, arg in zip(["RUN", *args], args, strict=False):
        if arg == "" or re.fullmatch(r"--[\w-]+=", arg):
            name = arg.rstrip("=") or (before if before.startswith("--") else "an argument")
            raise RunError(f"{name} is empty, expected a value")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0; 2 after an error of the user, told in one sentence; 128 + the signal's number when stopped, but 0 for a
        process of torchrun that saved its run and stopped as it was told: torchrun takes all else for a crash.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if args else 2
    if args[0] == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    try:
        if args[0] not in COMMANDS:
            raise RunError(f"unknown command {args[0]!r}; known: {', '.join(COMMANDS)}")
        check_values(args)
        COMMANDS[args[0]](args[1:])
    except (DataError, RunError, CheckpointError, Mistake) as error:
        complain(f"{PROGRAM}: error: {error}")
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("torch", "dvae_ext"):
            raise
        complain(f"{PROGRAM}: error: there is no package {error.name}; this command {MISSING}")
        return 2
    except OSError as error:
        complain(f"{PROGRAM}: error: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        complain(f"{PROGRAM}: error: the memory does not suffice: {reason(error)}")
        return 2
    except Interrupted as stop:
        return 0 if int(os.environ.get("WORLD_SIZE", 1)) > 1 else 128 + stop.signum
    except KeyboardInterrupt:
        complain(f"{PROGRAM}: stopped")
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
