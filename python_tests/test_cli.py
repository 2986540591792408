"""The command line: what it teaches, what it refuses, and the way from training to samples."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("tyro", reason="tyro is not installed: pip install 'dvae_ext[train]'")

from dvae_ext import __version__, cli
from dvae_ext.data import DATASETS
from dvae_ext.models import MODELS
from dvae_ext.training import RunFolder, TrainingConfig, read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "--steps 12 --log-every 4 --validate-every 6 --checkpoint-every 6 --valid-samples 2 --valid-examples 20 "
    "--test-samples 5 --latent-groups 6 --hidden 8 --num-chains 10 --sweeps 2 --generation-sweeps 5 --device cpu"
).split()


def fails(capsys, *args):
    """Exit status 2 and exactly one sentence; returns it."""
    assert cli.main(list(map(str, args))) == 2
    err = capsys.readouterr().err
    assert err.startswith("dvae-ext: error: ")
    assert "Traceback" not in err
    assert err.count("\n") == 1
    return err


def test_help_teaches(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in cli.COMMANDS)
    assert "--resume RUN" in out
    assert cli.main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    for name, spec in MODELS.items():
        assert name in out
        assert all(preset in out for preset in spec.presets)
    assert all(name in out for name in DATASETS)


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_an_option_with_help(model, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", model, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    own = set(MODELS[model].config_class.__dataclass_fields__)
    general = set(TrainingConfig.__dataclass_fields__) | set(cli.TrainOptions.__dataclass_fields__)
    assert not own & general, "a field of the model would hide a general option"
    for name in own | general:
        option = name.replace("_", "-")
        assert re.search(rf"--(no-)?{option}\b", out), name
    texts = cli.field_help(MODELS[model].config_class)
    words = " ".join(out.replace("│", " ").split())
    for name in own:
        assert " ".join(texts[name].split()[:3]) in words, f"{name} has no help"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fly"], "unknown command 'fly'; known: train, evaluate, sample"),
        (["train"], "name the model first: .*known: dvae"),
        (["train", "dave"], "unknown model 'dave'; known: dvae"),
        (
            ["train", "dvae", "--preset", "3-linear"],
            "unknown preset of model dvae '3-linear'; known: 1-linear, 2-linear",
        ),
        (["train", "dvae", "--data", "cifar"], "unknown data set 'cifar'; known: digits"),
        (["train", "dvae", "--data", "mnist"], "data set mnist is read from files: give their folder with --data-dir"),
        (["train", "dvae", "--data", "mnist", "--data-dir", "/nowhere"], "data directory /nowhere does not exist"),
        (["train", "dvae", "--data", "mnist-static", "--binarisation", "dynamic"], "it has: static"),
        (["train", "dvae", "--beta", "-1"], "beta: expected a positive finite number, got -1.0"),
        (["train", "dvae", "--hidden", "0"], r"hidden: expected widths of at least 1, got \(0,\)"),
        (["train", "dvae", "--batch-size", "1"], "training.batch_size is 1, expected at least 2"),
        (["train", "vae", "--gamma", "1", "--batch-size", "1"], "training.batch_size is 1, expected at least 2"),
        (
            ["train", "cg-bpef-vae", "--network", "conv"],
            r"model cg-bpef-vae cannot be built for digits: network: .* 32 x 32, digits has \(8, 8\)",
        ),
        (["train", "dvae", "--steps", "0"], "training.steps must be at least 1, got 0"),
        (["train", "dvae", "--batch-size", "5000"], "needs 5000 training images, the data set has 1297"),
        (["train", "--resume", "/nowhere"], "/nowhere holds no run"),
        (["evaluate", "/nowhere"], "/nowhere holds no run"),
        (["evaluate", "/nowhere", "--samples", "0"], "--samples must be at least 1, got 0"),
        (["sample", "/nowhere"], "/nowhere holds no run"),
        (["sample", "/nowhere", "--size", "1"], "--size must be at least 2, got 1"),
        (["sample", "/nowhere", "--size", "999999999999"], "--size must be at most 1000, got 999999999999"),
        (["sample", "/nowhere", "--seed", "9" * 20], "--seed is 9{20}, expected an integer of 64 bits"),
        (["log-z", "/nowhere.npz", "--seed", "9" * 20], "--seed is 9{20}, expected an integer of 64 bits"),
        (["log-z", "/nowhere.npz", "--out", "none/a"], "--out: the folder .*none does not exist"),
        (["train", "dvae", "--seed", "9" * 20], "training.seed is 9{20}, expected an integer of 64 bits"),
        (["train", "dvae", "--beta", "1e40"], r"beta is 1e\+40, expected a number that float32 holds"),
        (
            ["train", "vae", "--hidden", "10000000", "10000000"],
            "cannot be built, .*you tried to allocate 4[0-9]{14} bytes",
        ),
        (["train", "vae", "--latents", "9" * 18], "model vae cannot be built, it may be too large"),
        (["train", "dvae", "--preset"], "--preset: expected one argument"),
        (["train", "dvae", "--data"], "--data: expected one argument"),
        (["train", "dvae", "--out", ""], "--out is empty, expected a value"),
        (["train", "dvae", "--out="], "--out is empty, expected a value"),
        (["train", "dvae", "--data", "mnist", "--data-dir", ""], "--data-dir is empty, expected a value"),
        (["train", "--resume", ""], "--resume is empty, expected a value"),
        (["evaluate", ""], "an argument is empty, expected a value"),
        (["sample", "/nowhere", "--out", "sheet.txt"], "--out is sheet.txt, expected a file name that ends in .png"),
    ],
)
def test_mistakes_are_told_in_one_sentence(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, fails(capsys, *args))
    assert list(tmp_path.iterdir()) == []  # above all no run folder that would be in the way of the next attempt


@pytest.mark.parametrize(
    "args", [["train", "dvae", "--stepz", "3"], ["train", "dvae", "--steps", "many"], ["evaluate"]]
)
def test_unknown_options_and_values_exit_with_2(args, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_presets_give_defaults_that_options_override():
    config, out = cli.parse_train("dvae", ["--preset", "2-linear", "--data", "mnist-static", "--sweeps", "7"])
    assert config.model_config.latent_groups == (200, 200)
    assert config.model_config.hidden == ()
    assert config.model_config.sweeps == 7
    assert config.training.steps == 20_000
    assert out is None
    digits, _ = cli.parse_train(
        "dvae", ["--latent-groups", "8", "8", "--smoothing", "spike_exponential", "--seed", "5"]
    )
    assert digits.preset == "digits"
    assert digits.model_config.latent_groups == (8, 8)
    assert digits.training.seed == 5
    # beta depends on the smoothing: resolved after the options are in
    spike, _ = cli.parse_train("dvae", ["--preset", "1-linear", "--smoothing", "spike_exponential"])
    assert spike.model_config.beta == 5.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", "dvae", "--out", str(folder), *SMALL]) == 0
    return RunFolder(folder)


def test_train_evaluate_sample(run, capsys, tmp_path):
    report = json.loads((run.path / "report.json").read_text())
    assert report["test"]["num_samples"] == 5
    assert report["test"]["log_z_method"] == "exact"
    assert cli.main(["evaluate", str(run.path), "--samples", "7"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"test log-likelihood +-\d+\.\d+ ± \d+\.\d+ nats", out)
    assert "7 for each image" in out
    assert json.loads((run.path / "report.json").read_text())["test"]["num_samples"] == 7

    sheet = tmp_path / "sheet.png"
    assert cli.main(["sample", str(run.path), "--out", str(sheet), "--size", "3"]) == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_resume_of_a_finished_run_keeps_its_report_and_makes_one_that_is_lost(run, capsys):
    report = run.path / "report.json"
    before = json.loads(report.read_text())["test"]["log_z"]
    assert "has made all its 12 steps and has a report" in fails(capsys, "train", "--resume", run.path)
    report.unlink()
    assert cli.main(["train", "--resume", str(run.path)]) == 0
    assert "test log-likelihood" in capsys.readouterr().out
    assert json.loads(report.read_text())["test"]["log_z"] == before
    fails(capsys, "train", "dvae", "--out", run.path, *SMALL)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--resume", str(run.path), "--steps", "50"])
    assert stop.value.code == 2


def test_nothing_in_the_metrics_depends_on_an_unknown_log_z(run):
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    terms = {"reconstruction", "kl_without_log_z", "chain_free_energy"}
    assert all(set(line) == {"split", "step", "learning_rate", "steps_per_second"} | terms for line in train)
    assert any(line["log_z_std_error"] >= 0 for line in lines if line["split"] == "valid")  # there it is estimated


@pytest.mark.parametrize("damage", ["deleted", "torn"])
def test_a_continued_run_of_the_real_model_is_the_same_in_every_bit(run, tmp_path, damage):
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    last = copy.checkpoints.path(12)
    if damage == "deleted":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:-100])
    assert cli.main(["train", "--resume", str(copy.path)]) == 0
    before, after = (read_checkpoint(folder.checkpoints.path(12)) for folder in (run, copy))
    assert before["model"].keys() == after["model"].keys()
    for name, value in before["model"].items():  # parameters, running means, chains, their key
        assert torch.equal(value, after["model"][name]), name
    assert torch.equal(before["ranks"][0]["rng"], after["ranks"][0]["rng"])


def test_a_run_without_usable_checkpoints(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    for path in (copy / "checkpoints").iterdir():
        path.write_bytes(b"")
    assert "no usable checkpoint" in fails(capsys, "sample", copy)
    assert "no usable checkpoint" in fails(capsys, "train", "--resume", copy)


def test_a_run_that_never_reached_a_checkpoint_begins_anew(run, tmp_path, capsys):
    shutil.copy(run.path / "config.json", tmp_path)
    assert "already holds a run; continue it with --resume" in fails(capsys, "train", "dvae", "--out", tmp_path)
    assert cli.main(["train", "--resume", str(tmp_path)]) == 0
    assert "has no checkpoint yet: training starts from the beginning" in capsys.readouterr().err
    before, after = (read_checkpoint(RunFolder(path).checkpoints.path(12))["model"] for path in (run.path, tmp_path))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("command", ["sample", "log-z", "evaluate", "probe"])
def test_every_command_says_that_the_best_checkpoint_is_damaged(run, tmp_path, capsys, command):
    folder = tmp_path / "copy"
    if command == "probe":
        options = "--steps 4 --checkpoint-every 2 --test-samples 2 --valid-samples 2 --hidden 8 --latents 4"
        assert cli.main(["train", "vae", "--out", str(folder), *options.split()]) == 0
    else:
        shutil.copytree(run.path, folder)
    (folder / "checkpoints" / "best.pt").write_bytes(b"")
    capsys.readouterr()
    assert cli.main([command, str(folder), *(["--method", "exact"] if command == "log-z" else [])]) == 0
    told = capsys.readouterr()
    told = told.out if command == "evaluate" else told.err
    assert re.search(r"note:? .*best\.pt is torn or not a checkpoint", told)
    assert re.search(r"note:? +step \d+ is used instead", told)


def test_the_likelihood_is_printed_where_the_sheet_cannot_be_written(run, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(run.path, folder)
    (folder / "samples.png").unlink()
    (folder / "samples.png").mkdir()
    (folder / "report.json").unlink()
    assert cli.main(["evaluate", str(folder), "--samples", "3"]) == 2
    told = capsys.readouterr()
    assert "test log-likelihood" in told.out
    assert told.err == f"dvae-ext: error: cannot save {folder / 'samples.png'}: Is a directory\n"
    assert json.loads((folder / "report.json").read_text())["test"]["num_samples"] == 3


def test_a_reader_that_went_away_does_not_cost_the_report(run, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(run.path, folder)
    with open("/dev/full", "w") as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        cli.main(["evaluate", str(folder), "--samples", "4"])
        patched.undo()
        with contextlib.suppress(OSError):
            stdout.close()
    assert json.loads((folder / "report.json").read_text())["test"]["num_samples"] == 4


def test_fields_that_config_json_lacks_are_noted(run, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(run.path, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["model_config"]["kl_warmup"]
    (folder / "config.json").write_text(json.dumps(config))
    note = r"config\.json lacks fields, today's defaults are taken: model_config\.kl_warmup = 0\.3"
    assert cli.main(["sample", str(folder), "--size", "2"]) == 0
    assert re.search(note, capsys.readouterr().err)
    assert cli.main(["evaluate", str(folder), "--samples", "2"]) == 0
    assert re.search(note, capsys.readouterr().out)
    assert re.search(note, json.loads((folder / "report.json").read_text())["notes"][0])


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dvae-ext {__version__}\n"


def test_a_learning_rate_that_no_model_survives(tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.main(["train", "dvae", "--out", str(folder), *SMALL, "--learning-rate", "1e30"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.search("the parameters became NaN or infinite before step [0-5]; there is no checkpoint yet", message)


def test_grey_images_have_no_likelihood(tmp_path, capsys):
    options = ["--binarisation", "none", "--steps", "3", "--test-samples", "2", "--valid-samples", "2"]
    assert cli.main(["train", "vae", *options, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "digits (grey)" in out
    assert re.search(r"test bound .* \(a lower bound of a cross-entropy ± one standard error\)", out)
    assert "log-likelihood" not in out


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    message = fails(capsys, "train", "dvae", "--out", tmp_path / "run", *SMALL)
    assert "sklearn" in message
    assert "needs the packages of the train extra" in message


def test_new_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, _ = cli.parse_train("dvae", [])
    for name in ("dvae-digits", "dvae-digits-2"):
        new = cli.new_run(config)
        with new.writing((config, "1")):
            assert new.path == Path("runs") / name


def test_ctrl_c_in_a_real_process_leaves_a_resumable_run(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "dvae_ext.cli"]
    options = [*SMALL, "--steps", "100000", "--validate-every", "100000", "--checkpoint-every", "100000"]
    process = subprocess.Popen(
        [*command, "train", "dvae", "--out", str(run), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        metrics = run / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGINT
    assert f"Continue with: dvae-ext train --resume {run}" in err
    assert "Traceback" not in err
    assert RunFolder(run).checkpoints.steps()
