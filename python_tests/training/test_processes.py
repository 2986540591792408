"""Two processes under torchrun, on gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dvae_ext.training import CheckpointError, RunFolder, read_checkpoint, train

HERE = Path(__file__).parent


def torchrun(*arguments):
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(HERE / "processes.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_gradients_are_averaged_and_chains_stay_apart(tmp_path):
    torchrun(tmp_path / "run", "gradients")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes") / "run"
    torchrun(folder, "train")
    return RunFolder(folder)


def test_a_run_of_two_processes_is_whole(run):
    final = read_checkpoint(run.checkpoints.path(12))
    chains = [rank["buffers"]["chains"] for rank in final["ranks"]]
    assert len(chains) == 2 and not torch.equal(*chains)
    report = json.loads((run.path / "report.json").read_text())
    assert report["test"]["num_examples"] == 300
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 6, 8, 12, 12]
    assert lines[1]["num_examples"] == 51


def test_it_resumes_and_gives_the_same(run):
    before = read_checkpoint(run.checkpoints.path(12))
    run.checkpoints.path(12).unlink()
    torchrun(run.path, "resume")
    after = read_checkpoint(run.checkpoints.path(12))
    for name, value in before["model"].items():
        assert torch.equal(value, after["model"][name]), name
    for first, second in zip(before["ranks"], after["ranks"], strict=True):
        assert torch.equal(first["rng"], second["rng"])


def test_another_number_of_processes_is_refused(run):
    with pytest.raises(CheckpointError, match="was written by 2 process.*this run has 1; resume with torchrun"):
        train(run.config(), run, resume=True)
