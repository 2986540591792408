"""The training loop."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dvae_ext import __version__
from dvae_ext.data import TrainingBatches, derive_seed

from .checkpoint import CheckpointError, check_state
from .config import RunConfig, RunError
from .distributed import Ranks, process_group, resolve_device
from .interrupt import Interrupted, Interrupts, StopRequested
from .likelihood import Likelihood, estimate_likelihood
from .logbook import Logbook, MetricWindow
from .report import Report, evaluate_run
from .run import RunFolder, build_model, load_parameters
from .sheets import image_grid, prior_and_reconstructions, write_grid

# Steps between two looks, in company, at whether any process was told to stop: it costs a collective operation.
STOP_INTERVAL = 10
# The loss among the metrics, to be looked at and not shown: where a prior's log Z is unknown its value says nothing.
OBJECTIVE = "objective"
# Prior samples on the sheets made during training.
SHEET_SAMPLES = 64


def train(
    config: RunConfig, run: RunFolder, resume: bool = False, show: Callable[[Report], None] | None = None
) -> Report:
    """Train to the end, evaluate the best parameters on the test set and write the report.

    Args:
        config: Configuration, ``run.config()`` when resuming.
        run: Where to write; for a new run the folder must not hold one yet.
        resume: Continue from the newest usable checkpoint, or from the beginning where there is none yet. On the CPU
            the result is bit for bit that of a run that was never stopped.
        show: Given the report, in the first process, before it is written.

    Raises:
        RunError: for a folder that holds a run already, or that another process trains in; a complete run to resume,
            whose report may be of more samples; a device that is not there; a file that cannot be written; a loss or
            parameters that are not finite.
        DataError: for data that is missing or damaged.
        CheckpointError: if a checkpoint cannot be written, or none of those there can be read.
        Interrupted: after Ctrl-C, SIGTERM or SIGHUP, once the checkpoint is saved.
    """
    device = resolve_device(config.training.device)
    with process_group(device) as ranks, Interrupts() as interrupts, ExitStack() as stack:
        trainer = Trainer(config, run, ranks, device, interrupts)
        # Not before data and model are there: what cannot start leaves no folder.
        new = None if resume else (config, __version__)
        ranks.on_first(lambda: stack.enter_context(run.writing(new)))
        run.path = ranks.broadcast(run.path)
        if resume:
            trainer.restore()
            if ranks.broadcast(trainer.step >= config.training.steps and (run.path / "report.json").is_file()):
                raise RunError(
                    f"{run.path} has made all its {config.training.steps} steps and has a report; another one comes "
                    f"from: dvae-ext evaluate {run.path}"
                )
        trainer.fit()
        try:
            with trainer.interruptible():
                return evaluate_run(run, config, trainer.dataset, device, ranks, config.training.test_samples, show)
        except StopRequested:
            raise Interrupted(interrupts.signum or 0, trainer.step) from None


class Trainer:
    """The state of a run: everything a checkpoint holds."""

    def __init__(
        self, config: RunConfig, run: RunFolder, ranks: Ranks, device: torch.device, interrupts: Interrupts
    ) -> None:
        self.config, self.run, self.ranks, self.device, self.interrupts = config, run, ranks, device, interrupts
        settings = config.training
        self.dataset = run.load_dataset(config)
        self.batches = TrainingBatches(
            self.dataset.train,
            settings.batch_size,
            settings.seed,
            ranks.rank,
            ranks.world_size,
            device,
            binarise=self.dataset.binarisation == "dynamic",
        )
        self.model = build_model(config, self.dataset, ranks.rank).to(device)
        self.model.train()
        self.loss: nn.Module = self.model  # its forward is the training loss
        if ranks.world_size > 1:
            # Buffers stay apart: every process has its own persistent chains. torch 2.13 announces another name for
            # this and advises to keep the old one where buffers must not be made equal at the start either.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
                self.loss = nn.parallel.DistributedDataParallel(self.model, broadcast_buffers=False)
        self.optimizer, self.scheduler = self.model.optimizer(settings.steps)
        self.window = MetricWindow()
        self.step = 0
        self.validated = 0
        self.saved = -1
        self.best: tuple[int, float] | None = None
        self.valid: tuple[float, float] | None = None
        self.problems: list[str] = []
        torch.manual_seed(derive_seed(settings.seed, "noise", ranks.rank))

    def fit(self) -> None:
        """Run the remaining steps."""
        settings = self.config.training
        with Logbook(self.run.path, self.step, settings.steps, quiet=not self.ranks.first) as self.log:
            self.log.say(f"run folder: {self.run.path}")
            for note in (*self.dataset.notes, *self.run.notes, *self.problems):
                self.log.say(f"note: {note}")
            if self.valid is not None:
                self.log.validated(*self.valid)
            self.mark = (time.perf_counter(), self.step)
            try:
                while True:
                    # Validation comes first in this order, so that a checkpoint holds its outcome.
                    if self.due(settings.validate_every, self.validated):
                        self.validate()
                    if self.due(settings.checkpoint_every, self.saved):
                        self.save()
                    if self.stop_requested():
                        raise StopRequested
                    if self.step >= settings.steps:
                        return
                    self.update()
                    if self.step % settings.log_every == 0 or self.step == settings.steps:
                        self.write_metrics()
            except StopRequested:
                if self.saved != self.step:
                    self.save()
                raise Interrupted(self.interrupts.signum or 0, self.step) from None
            except (RuntimeError, ValueError) as error:
                if isinstance(error, RunError | CheckpointError) or all(
                    p.isfinite().all() for p in self.model.parameters()
                ):
                    raise
                raise RunError(f"the parameters became NaN or infinite before {self.where()}") from error

    def update(self) -> None:
        """One update of the parameters, and the chains after it."""
        x = self.batches(self.step)
        loss, metrics = self.loss(x, self.step, self.config.training.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.model.after_step(self.step)
        self.window.add({OBJECTIVE: loss.detach(), **metrics})
        self.step += 1

    def due(self, interval: int, last: int) -> bool:
        """Whether something done every ``interval`` steps, and at the end, is to be done now."""
        now = self.step > 0 and (self.step % interval == 0 or self.step == self.config.training.steps)
        return now and last != self.step

    def stop_requested(self) -> bool:
        """Whether a signal has arrived, in any process."""
        stop = self.interrupts.signum is not None
        if self.ranks.world_size == 1:
            return stop
        if self.step % STOP_INTERVAL:
            return False
        if self.ranks.sum(torch.tensor(float(stop), device=self.device)).item() == 0:
            return False
        self.interrupts.signum = max(self.ranks.gather(self.interrupts.signum or 0))
        return True

    def interruptible(self) -> Any:
        """Work to abandon at a signal; in company it is finished, as the others would wait for this process."""
        return self.interrupts.at_once() if self.ranks.world_size == 1 else nullcontext()

    def write_metrics(self) -> None:
        """Log the means since the last time; the only place where the loop waits for the device."""
        names, mean = self.window.take()
        values = dict(zip(names, (self.ranks.sum(mean) / self.ranks.world_size).tolist(), strict=True))
        objective = values.pop(OBJECTIVE)
        if not math.isfinite(objective):
            raise RunError(f"the loss became {objective} at or shortly before {self.where()}")
        now = time.perf_counter()
        values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        values["steps_per_second"] = (self.step - self.mark[1]) / (now - self.mark[0])
        self.mark = (now, self.step)
        self.ranks.on_first(lambda: self.log.write("train", self.step, values))
        self.log.progress(self.step, values)

    def where(self) -> str:
        """The step, and from where to go on after a failure."""
        done = self.run.checkpoints.steps()
        return f"step {self.step}; " + (
            f"the last checkpoint is of step {done[0]}" if done else "there is no checkpoint yet"
        )

    def validate(self) -> None:
        """Estimate the validation likelihood, draw a sheet, and keep the parameters if they are the best."""
        started = time.perf_counter()
        # Nothing is recorded until all of it is there.
        with self.interruptible(), self.ranks.common_statistics(self.model):
            result = self.estimate_validation()
            sheet: tuple[Tensor, ...] = ()
            if self.ranks.first:
                sheet = prior_and_reconstructions(self.model, self.dataset, SHEET_SAMPLES, 0, self.device)
        self.ranks.on_first(lambda: self.write_validation(result, sheet))
        self.validated = self.step
        self.saved = -1  # a checkpoint of this step, from before a stop, does not know the outcome
        value = result.log_likelihood
        self.valid = (value, result.std_error)
        self.log.validated(*self.valid)
        for warning in result.warnings:
            self.log.say(f"warning: validation at step {self.step}: {warning}")
        if math.isfinite(value) and (self.best is None or value > self.best[1]):  # NaN is never the best
            self.check_finite()
            self.best = (self.step, value)
            state = self.state()
            self.ranks.on_first(lambda: self.run.checkpoints.save_best(state))
        self.mark = (self.mark[0] + time.perf_counter() - started, self.mark[1])  # the rate is that of updates alone

    def write_validation(self, result: Likelihood, sheet: tuple[Tensor, ...]) -> None:
        """Log the outcome of a validation, and write its prior samples and reconstructions."""
        self.log.write("valid", self.step, result.as_dict())
        for name, images in zip(("prior", "reconstructions"), sheet, strict=True):
            grid = image_grid(images, self.dataset.info.image_shape, columns=8)
            self.log.image(name, self.step, grid)
            write_grid(self.run.path / "samples" / f"{name}-{self.step:08d}.png", grid)

    def estimate_validation(self) -> Likelihood:
        """Likelihood of the first validation images, few samples each, always with the same noise."""
        settings = self.config.training
        images = self.dataset.valid[: settings.valid_examples]
        return estimate_likelihood(
            self.model,
            images,
            settings.valid_samples,
            derive_seed(settings.seed, "validation"),
            self.device,
            self.ranks,
            quick=True,
        )

    def state(self) -> dict[str, Any]:
        """Everything needed to continue as if the run had never stopped. A collective operation."""
        parameters = {name for name, _ in self.model.named_parameters()}
        own = {
            "buffers": {name: t.cpu() for name, t in self.model.state_dict().items() if name not in parameters},
            "threads": torch.get_num_threads(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "window": (self.window.names, self.window.total, self.window.count),
        }
        with self.ranks.common_statistics(self.model):
            model = copy.deepcopy(self.model.state_dict())
        return {
            "version": __version__,
            "step": self.step,
            "validated": self.validated,
            "best": self.best,
            "valid": self.valid,
            "model": model,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ranks": self.ranks.gather(own),
        }

    def save(self) -> None:
        """Write a checkpoint of the current step."""
        self.check_finite()
        state = self.state()
        self.ranks.on_first(lambda: self.run.checkpoints.save(state, self.step))
        self.saved = self.step

    def check_finite(self) -> None:
        """Raise RunError rather than let a state that cannot be continued from take the place of good checkpoints."""
        broken = torch.tensor(0.0, device=self.device)
        for tensor in self.model.state_dict().values():
            broken += ~tensor.isfinite().all()
        if self.ranks.sum(broken).item() > 0:
            raise RunError(f"the parameters became NaN or infinite before {self.where()}")

    def restore(self) -> None:
        """Continue from the newest usable checkpoint, or from the beginning where the run has none yet.

        Raises:
            CheckpointError: if none can be used, or it belongs to another model or number of processes.
        """
        if not self.run.checkpoints.files():
            self.problems = [f"{self.run.path} has no checkpoint yet: training starts from the beginning"]
            return
        content, self.problems = self.run.checkpoints.load_newest()
        step, ranks = content["step"], content.get("ranks")
        if self.problems:
            self.problems.append(f"continuing from step {step}")
        written = self.run.checkpoints.path(step)
        path = written if written.exists() else self.run.checkpoints.best
        count = len(ranks) if isinstance(ranks, list) else 0
        if count != self.ranks.world_size:
            raise CheckpointError(
                f"{path} was written by {count} process(es), this run has {self.ranks.world_size}; "
                f"resume with torchrun --nproc-per-node={count} or the like"
            )
        # An optimiser has no state before its first step; what this one does to the parameters is overwritten below.
        if step > 0:
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            self.optimizer.step()
        state, failure = self.state(), None
        try:
            check_state(content, state, self.ranks.rank, path)
        except CheckpointError as error:
            failure = error
        failed = self.ranks.gather(failure is not None)  # all leave together: none waits for one that has left
        if failure is not None:
            raise failure
        if any(failed):
            raise SystemExit(2)  # another process says why
        own = content["ranks"][self.ranks.rank]
        load_parameters(self.model, content["model"] | own["buffers"], str(path))
        threads = torch.get_num_threads()
        if self.device.type == "cpu" and own["threads"] != threads:
            self.problems.append(
                f"the run had {own['threads']} thread(s) until step {content['step']} and now has {threads}: sums are "
                "rounded otherwise, so its numbers will not be those of a run that was never stopped"
            )
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(content["scheduler"])
        self.step, self.validated = step, content["validated"]
        self.best, self.valid = content["best"], content["valid"]
        self.saved = step if path == written else -1
        names, total, count = own["window"]
        self.window.names, self.window.count = list(names), count
        self.window.total = None if total is None else total.to(self.device)
        torch.set_rng_state(own["rng"])
        if own["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda_rng"], self.device)


def with_device(config: RunConfig, device: str | None) -> RunConfig:
    """The configuration on another device, where one is given."""
    return config if device is None else replace(config, training=replace(config.training, device=device))
