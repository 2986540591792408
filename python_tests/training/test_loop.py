"""The loop: stopping anywhere and continuing changes nothing; errors are sentences."""

import dataclasses
import json
import math
import os
import resource
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
import toy

from dvae_ext.training import (
    CheckpointError,
    Interrupted,
    Ranks,
    RunError,
    RunFolder,
    evaluate_run,
    read_checkpoint,
    train,
)
from dvae_ext.training.loop import Trainer


def final_state(run, step=30):
    return read_checkpoint(run.checkpoints.path(step))


def metrics(run):
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("steps_per_second", None)
    return lines


def assert_same(first, second, where="state"):
    """Equal in every bit, structure included."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype, where
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for i, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert first == second, where


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp("trained") / "whole"


@pytest.fixture
def uninterrupted(trained, toy_config, tmp_path):
    """A run of 30 steps without a stop: trained once, each test has a copy."""
    if not trained.exists():
        train(toy_config(), RunFolder(trained))
    shutil.copytree(trained, tmp_path / "whole")
    return RunFolder(tmp_path / "whole")


def stop_in(monkeypatch, method, step, signum=signal.SIGINT):
    """Send this process a signal in the middle of a method of the trainer, once."""
    original = getattr(Trainer, method)

    def wrapped(self, *args):
        if self.step == step and not sent:
            sent.append(step)
            os.kill(os.getpid(), signum)
        return original(self, *args)

    sent = []
    monkeypatch.setattr(Trainer, method, wrapped)


@pytest.mark.parametrize(
    ("method", "step", "signum", "stopped_at"),
    [
        ("stop_requested", 0, signal.SIGTERM, 0),
        ("update", 0, signal.SIGINT, 1),
        ("update", 17, signal.SIGTERM, 18),
        ("estimate_validation", 12, signal.SIGINT, 12),
        ("estimate_validation", 30, signal.SIGINT, 30),
        ("save", 20, signal.SIGHUP, 20),
    ],
)
def test_a_stopped_run_continues_bit_for_bit(
    uninterrupted, toy_config, tmp_path, monkeypatch, method, step, signum, stopped_at
):
    run = RunFolder(tmp_path / "stopped")
    stop_in(monkeypatch, method, step, signum)
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as stop:
        train(toy_config(), run)
    assert (stop.value.signum, stop.value.step) == (signum, stopped_at)
    assert signal.getsignal(signum) is before
    assert run.checkpoints.steps()[0] == stopped_at
    assert not (run.path / "report.json").exists()

    torch.manual_seed(12345)  # whatever the generator was used for in between
    report = train(run.config(), run, resume=True)
    assert_same(final_state(run), final_state(uninterrupted))
    assert_same(read_checkpoint(run.checkpoints.best), read_checkpoint(uninterrupted.checkpoints.best))
    assert metrics(run) == metrics(uninterrupted)
    whole = json.loads((uninterrupted.path / "report.json").read_text())
    assert json.loads(json.dumps(dataclasses.asdict(report.test))) == whole["test"]


class ClosedTerminal:
    """Standard error after the window was closed."""

    def write(self, text):
        raise OSError(5, "Input/output error")

    flush = isatty = lambda self: self.write("")


def test_a_closed_terminal_costs_no_step(toy_config, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    stop_in(monkeypatch, "update", 17, signal.SIGHUP)
    stderr = ClosedTerminal()
    stderr.isatty = lambda: False
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stderr)
        with pytest.raises(Interrupted, match="stopped by SIGHUP after 18 steps"):
            train(toy_config(), run)
    assert run.checkpoints.steps()[0] == 18


def train_and_die(config, run, monkeypatch, step):
    """A run that is killed before its update of ``step``."""
    original = Trainer.update

    def die(self):
        if self.step == step:
            raise MemoryError
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", die)
        with pytest.raises(MemoryError):
            train(config, run)


@pytest.mark.parametrize(("step", "told"), [(3, "has no checkpoint yet: training starts from the beginning"), (8, "")])
def test_a_run_killed_before_its_first_checkpoint_continues(
    uninterrupted, toy_config, tmp_path, monkeypatch, capsys, step, told
):
    """From the beginning, or from the best parameters, which are of step 6 here."""
    run = RunFolder(tmp_path / "killed")
    train_and_die(toy_config(), run, monkeypatch, step)
    assert run.checkpoints.steps() == []
    assert run.checkpoints.best.exists() == (step > 6)
    with pytest.raises(RunError, match="already holds a run; continue it with --resume"):
        train(toy_config(), run)
    train(run.config(), run, resume=True)
    assert told in capsys.readouterr().err
    assert_same(final_state(run), final_state(uninterrupted))
    assert metrics(run) == metrics(uninterrupted)


def test_a_run_in_use_is_neither_resumed_nor_begun_anew(toy_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    with run.writing((toy_config(), "1")):
        for resume in (True, False):
            with pytest.raises(RunError, match=rf"run is in use by process {os.getpid()} on "):
                train(run.config(), RunFolder(run.path), resume=resume)
    assert not (run.path / "metrics.jsonl").exists()


def test_a_torn_checkpoint_is_announced_and_the_one_before_gives_the_same(uninterrupted, toy_config, tmp_path, capsys):
    run = RunFolder(tmp_path / "torn")
    train(toy_config(), run)
    newest = run.checkpoints.path(30)
    newest.write_bytes(newest.read_bytes()[:-50])
    train(run.config(), run, resume=True)
    told = capsys.readouterr().err
    assert "step-00000030.pt is torn" in told
    assert "continuing from step 20" in told
    assert_same(final_state(run), final_state(uninterrupted))
    assert metrics(run) == metrics(uninterrupted)


def test_a_killed_run_continues_from_its_last_checkpoint(uninterrupted, toy_config, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "killed")
    train_and_die(toy_config(), run, monkeypatch, 27)
    with open(run.path / "metrics.jsonl", "a") as stream:
        stream.write('{"split": "train", "st')
    train(run.config(), run, resume=True)
    assert_same(final_state(run), final_state(uninterrupted))
    assert metrics(run) == metrics(uninterrupted)


def test_a_full_disk_stops_with_the_last_checkpoint_intact(toy_config, tmp_path, monkeypatch):
    import dvae_ext.training.checkpoint as checkpoint

    run = RunFolder(tmp_path / "full")
    original = checkpoint.write_atomically

    def full(path, content):
        if path.name == "step-00000020.pt":
            raise CheckpointError(f"cannot save {path}: No space left on device; earlier checkpoints are intact")
        original(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_atomically", full)
        with pytest.raises(CheckpointError, match="No space left"):
            train(toy_config(), run)
    assert run.checkpoints.steps() == [10]
    assert train(run.config(), run, resume=True).steps == 30


@pytest.mark.parametrize(
    ("limit", "name"),
    [(200, r"config\.json"), (700, "events"), (33_000, r"best\.pt")],
)
def test_a_disk_that_fills_up_is_one_sentence(toy_config, tmp_path, capfd, limit, name):
    """At whatever file it happens; no thread of TensorBoard has anything to add."""
    run = RunFolder(tmp_path / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises((RunError, CheckpointError), match=rf"^cannot save {run.path}/.*({name}).*: File too large"):
            train(toy_config(log_every=1), run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Traceback" not in capfd.readouterr().err
    assert not list(run.path.rglob("*.tmp"))


def test_a_folder_that_is_deleted_is_not_made_again(toy_config, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    original = Trainer.update

    def delete(self):
        if self.step == 8:
            shutil.rmtree(run.path)
        original(self)

    monkeypatch.setattr(Trainer, "update", delete)
    with pytest.raises(CheckpointError, match=r"^cannot save .*step-00000010\.pt: No such file or directory"):
        train(toy_config(), run)
    assert not run.path.exists()


def test_the_likelihood_is_shown_before_anything_is_written(uninterrupted, toy_config):
    (uninterrupted.path / "report.json").unlink()
    for name in ("samples.png", "report.json"):
        (uninterrupted.path / name).unlink(missing_ok=True)
        (uninterrupted.path / name).mkdir()  # what cannot be written, to root neither
        shown = []
        with pytest.raises(RunError, match=rf"cannot save .*{name}: Is a directory"):
            train(uninterrupted.config(), uninterrupted, resume=True, show=shown.append)
        assert np.isfinite(shown[0].test.log_likelihood)


def change(path, value):
    """A function that puts ``value`` at ``path``; an ``Exception`` removes what is there."""

    def changed(content):
        *parents, last = path.split(".")
        inner = content
        for key in parents:
            inner = inner[int(key) if isinstance(inner, list) or key.isdigit() else key]
        if value is KeyError:
            del inner[last]
        else:
            inner[int(last) if last.isdigit() else last] = value

    return changed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("step", "ten", "its step is 'ten'"),
        ("step", True, "its step is True"),
        ("step", KeyError, "its step is None"),
        ("model", [1], "its model is not a set of named tensors"),
        ("model", KeyError, "its model is not a set of named tensors"),
        ("model.chains", torch.zeros(9), r"model.chains is torch.float32 \[9\], expected torch.float32 \[8\]"),
        ("model.chains", torch.zeros(8, dtype=torch.complex64), "model.chains is torch.complex64"),
        ("model.chains", torch.full((8,), torch.nan), "model.chains holds NaN or infinity"),
        ("model.chains", torch.zeros(8, device="meta"), "model.chains is no plain tensor"),
        ("model.chains", KeyError, "model lacks 'chains'"),
        ("model.more", torch.zeros(8), "model has an unknown 'more'"),
        ("optimizer", None, "optimizer is of type NoneType, expected dict"),
        ("optimizer.state.0", KeyError, "optimizer.state lacks 0"),
        ("optimizer.state.0.exp_avg", torch.zeros(3), "optimizer.state.0.exp_avg is"),
        ("optimizer.param_groups.0.lr", "fast", "lr is of type str, expected float"),
        ("optimizer.param_groups.0.capturable", True, "its optimizer has other settings"),
        ("optimizer.param_groups.0.params", [0] * 6, "params has 6 parts|other settings"),
        ("scheduler.step", 3, "scheduler has an unknown 'step'"),
        ("scheduler.last_epoch", 2.5, "last_epoch is of type float, expected int"),
        ("validated", 10**30, "validated is 1000"),
        ("best", KeyError, "it lacks best"),
        ("best", (10, "high"), r"best\[1\] is of type str, expected float"),
        ("ranks", {}, "was written by 0 process"),
        ("ranks.0", None, "NoneType"),
        ("ranks.0.rng", torch.zeros(5), r"ranks\[0\].rng is torch.float32 \[5\]"),
        ("ranks.0.rng", torch.full_like(torch.get_rng_state(), 255), "mt19937"),
        ("ranks.0.cuda_rng", {}, "cuda_rng is of type dict"),
        ("ranks.0.window", (["a"], torch.ones(2), 1), r"window is torch.float32 \[2\], expected torch.float32 \[1\]"),
        ("ranks.0.window", (["a"], None, 3), "window is not made of"),
    ],
)
def test_forged_checkpoints_are_refused(uninterrupted, path, value, message):
    store = uninterrupted.checkpoints
    content = final_state(uninterrupted)
    if path == "optimizer.state.0":
        del content["optimizer"]["state"][0]
    else:
        change(path, value)(content)
    for file in store.files():
        torch.save(content, file)
    before = store.path(30).read_bytes()
    with pytest.raises(CheckpointError, match=message):
        train(uninterrupted.config(), uninterrupted, resume=True)
    assert store.path(30).read_bytes() == before


def test_the_best_parameters_on_validation_are_evaluated(toy_config, tmp_path, monkeypatch):
    values = {6: -30.0, 12: -20.0, 18: -25.0, 24: -20.0, 30: -21.0}
    original = Trainer.estimate_validation
    monkeypatch.setattr(
        Trainer,
        "estimate_validation",
        lambda self: dataclasses.replace(original(self), log_likelihood=values[self.step]),
    )
    run = RunFolder(tmp_path / "run")
    report = train(toy_config(), run)
    assert report.selected_step == 12
    best = read_checkpoint(run.checkpoints.best)
    assert best["step"] == 12
    assert best["best"] == (12, -20.0)
    config = run.config()
    model, step, problems = run.load_model(config, run.load_dataset(config), torch.device("cpu"))
    assert step == 12
    assert not problems
    assert not model.training
    assert_same(dict(model.state_dict()), dict(best["model"]))

    run.checkpoints.best.write_bytes(b"")
    _, step, problems = run.load_model(config, run.load_dataset(config), torch.device("cpu"))
    assert step == 30
    assert "best.pt is torn" in problems[0]
    assert "step 30 is used instead" in problems[-1]


def test_nan_is_never_the_best(toy_config, tmp_path, monkeypatch, capsys):
    values = {6: math.nan, 12: -20.0, 18: math.inf, 24: -19.0, 30: math.nan}
    original = Trainer.estimate_validation
    monkeypatch.setattr(
        Trainer,
        "estimate_validation",
        lambda self: dataclasses.replace(original(self), log_likelihood=values[self.step], warnings=("so it is",)),
    )
    run = RunFolder(tmp_path / "run")
    assert train(toy_config(), run).selected_step == 24
    found = [line["log_likelihood"] for line in metrics(run) if line["split"] == "valid"]
    assert found == [None, -20.0, None, -19.0, None]
    told = capsys.readouterr().err
    assert "warning: validation at step 6: so it is" in told

    values.update({12: math.nan, 24: math.nan})
    run = RunFolder(tmp_path / "never")
    report = train(toy_config(), run)
    assert (report.selected_step, report.best) == (30, False)
    assert "step 30 is used instead" in report.notes[-1]


def test_a_likelihood_that_is_nan_is_told_in_words(uninterrupted, monkeypatch):
    original = toy.Toy.log_weights

    def broken(self, x, num_samples, generator=None):
        return original(self, x, num_samples, generator).index_fill_(1, torch.tensor([0]), math.nan)

    monkeypatch.setattr(toy.Toy, "log_weights", broken)
    config = uninterrupted.config()
    dataset = uninterrupted.load_dataset(config)
    report = evaluate_run(uninterrupted, config, dataset, torch.device("cpu"), Ranks(), 20)
    warning = "3 of 300 examples have a log-likelihood that is not finite"  # one of each batch of 100
    assert report.test.warnings[0] == warning
    assert f"| warning | {warning} |" in (uninterrupted.path / "report.md").read_text()
    content = json.loads((uninterrupted.path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content["test"]["log_likelihood"] is None
    assert "20 for each image (with values that are not finite)" in report.text()


def test_another_number_of_threads_is_told(uninterrupted, capsys):
    """Sums are then split and rounded otherwise: 300 steps of a real model end 5e-3 apart."""
    threads = torch.get_num_threads()
    report = uninterrupted.path / "report.json"
    report.unlink()
    train(uninterrupted.config(), uninterrupted, resume=True)
    assert "thread(s)" not in capsys.readouterr().err
    report.unlink()
    torch.set_num_threads(threads + 1)
    try:
        train(uninterrupted.config(), uninterrupted, resume=True)
    finally:
        torch.set_num_threads(threads)
    told = f"note: the run had {threads} thread(s) until step 30 and now has {threads + 1}: sums are rounded otherwise"
    assert told in capsys.readouterr().err


def test_a_complete_run_keeps_its_report(uninterrupted):
    """It may be one of more samples, by ``evaluate``."""
    before = (uninterrupted.path / "report.json").read_text()
    with pytest.raises(RunError, match="has made all its 30 steps and has a report; another one comes from"):
        train(uninterrupted.config(), uninterrupted, resume=True)
    assert (uninterrupted.path / "report.json").read_text() == before


def test_a_checkpoint_of_an_earlier_format_is_refused(uninterrupted):
    """Format 1 held a running log Z."""
    content = torch.load(uninterrupted.checkpoints.path(30), weights_only=True)
    for path in uninterrupted.checkpoints.folder.iterdir():
        torch.save(content | {"format": "dvae_ext checkpoint 1"}, path)
    with pytest.raises(CheckpointError, match=r"not a checkpoint of this version.*found 'dvae_ext checkpoint 1'"):
        train(uninterrupted.config(), uninterrupted, resume=True)


def test_what_a_run_leaves(uninterrupted):
    names = {path.name for path in uninterrupted.path.iterdir()}
    assert names == {
        "config.json",
        "version.txt",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "samples",
        "samples.png",
        "report.json",
        "report.md",
    }
    lines = metrics(uninterrupted)
    assert [line["step"] for line in lines if line["split"] == "train"] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert [line["step"] for line in lines if line["split"] == "valid"] == [6, 12, 18, 24, 30]
    assert all(abs(line["loss"] + line["bound"]) < 1e-3 for line in lines if line["split"] == "train")
    report = json.loads((uninterrupted.path / "report.json").read_text())
    assert report["best"] is True
    assert report["test"]["num_examples"] == 300
    assert report["test"]["num_samples"] == 3
    assert "test log-likelihood" in (uninterrupted.path / "report.md").read_text()
    assert uninterrupted.checkpoints.steps() == [30, 20]


def test_training_learns(toy_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    train(toy_config(steps=300, validate_every=150, log_every=50), run)
    bounds = [line["bound"] for line in metrics(run) if line["split"] == "train"]
    assert bounds[-1] > bounds[0] + 2


def test_noise_and_order_come_from_the_seed(toy_config, tmp_path):
    states = []
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(i)
        run = RunFolder(tmp_path / str(i))
        train(toy_config(seed=seed), run)
        states.append(final_state(run))
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["model"]["decoder.weight"], states[2]["model"]["decoder.weight"])


def test_a_loss_that_is_not_finite_is_an_error(toy_config, tmp_path):
    config = toy_config()
    config.model_config = dataclasses.replace(config.model_config, break_at=13)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(
        RunError, match="loss became nan at or shortly before step 16; the last checkpoint is of step 10"
    ):
        train(config, run)
    assert run.checkpoints.steps() == [10]


def test_parameters_that_are_not_finite_replace_no_checkpoint(toy_config, tmp_path):
    """The loss is looked at only when metrics are written, which may be long after the last good checkpoint."""
    config = toy_config()
    config.model_config = dataclasses.replace(config.model_config, break_at=13)
    config.training.checkpoint_every, config.training.log_every = 4, 1000
    run = RunFolder(tmp_path / "run")
    with pytest.raises(
        RunError, match="parameters became NaN or infinite before step 16; the last checkpoint is of step 12"
    ):
        train(config, run)
    assert run.checkpoints.steps()[0] == 12


def test_folders_that_cannot_be_used(uninterrupted, toy_config, tmp_path):
    with pytest.raises(RunError, match="whole already holds a run; continue it with --resume"):
        train(toy_config(), uninterrupted)
    with pytest.raises(RunError, match="empty holds no run"):
        RunFolder(tmp_path / "empty").config()
    (uninterrupted.path / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"config\.json cannot be used: expected an object"):
        uninterrupted.config()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make the run folder"):
        train(toy_config(), RunFolder(tmp_path / "file" / "run"))


def test_a_checkpoint_of_another_model_is_explained(uninterrupted):
    config = uninterrupted.config()
    config.model_config = dataclasses.replace(config.model_config, latents=5)
    with pytest.raises(CheckpointError, match=r"step-00000030\.pt does not fit the model in config\.json"):
        train(config, uninterrupted, resume=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuda:99", "no GPU|99 was asked for"), ("gpu", "unknown device 'gpu'"), ("meta", "'meta' is not supported")],
)
def test_devices_that_are_not_there(toy_config, tmp_path, name, message):
    with pytest.raises(RunError, match=message):
        train(toy_config(device=name), RunFolder(tmp_path / "run"))
