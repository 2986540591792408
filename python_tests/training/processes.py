"""Run by torchrun in test_processes.py: trains the toy in two processes and compares what must and must not differ."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import toy

from dvae_ext import cli
from dvae_ext.models import MODELS
from dvae_ext.training import (
    CheckpointError,
    RunError,
    RunFolder,
    default_config,
    process_group,
    read_checkpoint,
    train,
)
from dvae_ext.training.interrupt import Interrupts
from dvae_ext.training.loop import Trainer

MODELS["toy"] = toy.SPEC


def settings():
    config = default_config("toy", "digits")
    for name, value in {
        "device": "cpu",
        "steps": 12,
        "batch_size": 20,
        "log_every": 4,
        "validate_every": 6,
        "checkpoint_every": 5,
        "valid_examples": 51,
        "valid_samples": 3,
        "test_samples": 3,
    }.items():
        setattr(config.training, name, value)
    return config


def gradients_are_averaged(folder, ranks):
    """DDP's gradient against the mean of those that the processes compute alone."""
    with Interrupts() as interrupts:
        trainer = Trainer(settings(), RunFolder(folder), ranks, torch.device("cpu"), interrupts)
        parameters = list(trainer.model.parameters())
        for copies in zip(*ranks.gather([p.detach() for p in parameters]), strict=True):
            assert torch.equal(*copies), "parameters start equal"
        chains = ranks.gather(trainer.model.chains)
        assert not torch.equal(*chains), "every process has its own chains"
        x = trainer.batches(0)
        assert not torch.equal(*ranks.gather(x)), "every process has its own images"

        noise = torch.get_rng_state()
        buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
        trainer.model.training_loss(x, 0, 12)[0].backward()
        alone = [p.grad.clone() for p in parameters]
        mean = [sum(grads) / 2 for grads in zip(*ranks.gather(alone), strict=True)]
        trainer.model.zero_grad()
        for name, buffer in trainer.model.named_buffers():
            buffer.copy_(buffers[name])
        torch.set_rng_state(noise)
        trainer.loss(x, 0, 12)[0].backward()
        for parameter, expected in zip(parameters, mean, strict=True):
            torch.testing.assert_close(parameter.grad, expected)
        for buffer, kept in zip(ranks.gather(trainer.model.chains), chains, strict=True):
            assert torch.equal(buffer, kept), "chains are not overwritten by those of the first process"


def best_is_what_was_recorded(run, ranks):
    """The validation of the best checkpoint gives the number in the metrics, in every process."""
    config = run.config()
    model, step, _ = run.load_model(config, run.load_dataset(config), torch.device("cpu"))
    with Interrupts() as interrupts:
        trainer = Trainer(config, run, ranks, torch.device("cpu"), interrupts)
        trainer.model.load_state_dict(model.state_dict())
        result = trainer.estimate_validation()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    (recorded,) = [line["log_likelihood"] for line in lines if line["split"] == "valid" and line["step"] == step]
    assert result.log_likelihood == recorded, (result.log_likelihood, recorded)
    own = read_checkpoint(run.checkpoints.path(12))["ranks"]
    means = [rank["buffers"]["encoder.1.running_mean"] for rank in own]
    assert not torch.equal(*means), "in training every process keeps the statistics of its own images"
    saved = read_checkpoint(run.checkpoints.path(12))["model"]["encoder.1.running_mean"]
    torch.testing.assert_close(saved, sum(means) / 2)


def a_state_that_one_process_cannot_use_stops_all(base, run, ranks):
    """None waits for one that has left, whoever finds the fault."""
    forged = RunFolder(base / "forged")
    if ranks.first:
        shutil.copytree(run.path, forged.path)
        content = read_checkpoint(forged.checkpoints.path(12))
        content["ranks"][1]["window"] = 5
        torch.save(content, forged.checkpoints.path(12))
    ranks.gather(None)
    with pytest.raises(SystemExit if ranks.first else CheckpointError):
        train(forged.config(), forged, resume=True)


def failures_are_told_by_the_first(ranks):
    """The others leave quietly, and do not wait for what will not come."""
    assert ranks.on_first(lambda: 3) == 3

    def fail():
        raise RunError("the disk is full")

    with pytest.raises(RunError if ranks.first else SystemExit):
        ranks.on_first(fail)


def stop(base):
    """``dvae-ext train``, of which the second process is told to stop: what a scheduler does that knows no torchrun."""
    original = Trainer.update

    def update(self):
        if self.step == 7 and self.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    Trainer.update = update
    sys.exit(cli.main(["train", "toy", "--out", str(base / "told"), "--steps", "1000", "--device", "cpu"]))


def main(base):
    with process_group(torch.device("cpu")) as ranks:
        failures_are_told_by_the_first(ranks)
        gradients_are_averaged(base / "unused", ranks)
        run, stopped = RunFolder(base / "whole"), RunFolder(base / "stopped")
        # Whoever estimates log Z needs the others: tempering splits its ladders over the processes.
        toy.Toy.log_partition = lambda self, **_: ranks.gather(None)[0]
        train(settings(), run)
        if ranks.first:
            shutil.copytree(run.path, stopped.path)
            stopped.checkpoints.path(12).unlink()
        ranks.gather(None)  # the second process waits for the copy
        best_is_what_was_recorded(run, ranks)
        a_state_that_one_process_cannot_use_stops_all(base, run, ranks)
        train(stopped.config(), stopped, resume=True)


if __name__ == "__main__":
    {"main": main, "stop": stop}[sys.argv[2]](Path(sys.argv[1]))
