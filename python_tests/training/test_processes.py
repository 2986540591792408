"""Two processes under torchrun, on gloo."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dvae_ext.training import CheckpointError, RunFolder, read_checkpoint, train

HERE = Path(__file__).parent


def launch(base, what):
    """What two processes print, once both have ended without an error."""
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launched = subprocess.Popen(
        [*command, str(HERE / "processes.py"), str(base), what],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = launched.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(launched.pid, signal.SIGKILL)  # torchrun and its children
        raise
    assert launched.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two processes: compare gradients (assertions there), train, and continue a copy from its first checkpoint."""
    base = tmp_path_factory.mktemp("processes")
    launch(base, "main")
    return base


def test_a_run_of_two_processes_is_whole(folder):
    run = RunFolder(folder / "whole")
    final = read_checkpoint(run.checkpoints.path(12))
    chains = [rank["buffers"]["chains"] for rank in final["ranks"]]
    assert len(chains) == 2
    assert not torch.equal(*chains)
    report = json.loads((run.path / "report.json").read_text())
    assert report["test"]["num_examples"] == 300
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 6, 8, 12, 12]
    assert lines[1]["num_examples"] == 51


def test_it_resumes_and_gives_the_same(folder):
    before = read_checkpoint(RunFolder(folder / "whole").checkpoints.path(12))
    after = read_checkpoint(RunFolder(folder / "stopped").checkpoints.path(12))
    for name, value in before["model"].items():
        assert torch.equal(value, after["model"][name]), name
    for first, second in zip(before["ranks"], after["ranks"], strict=True):
        assert torch.equal(first["rng"], second["rng"])


def test_another_number_of_processes_is_refused(folder):
    run = RunFolder(folder / "whole")
    with pytest.raises(CheckpointError, match=r"was written by 2 process.*this run has 1; resume with torchrun"):
        train(run.config(), run, resume=True)


def test_a_signal_to_one_process_stops_all_with_a_checkpoint(tmp_path):
    output = launch(tmp_path, "stop")
    assert "Traceback" not in output
    run = RunFolder(tmp_path / "told")
    assert run.checkpoints.steps() == [10]  # where the processes look after each other next
    assert output.count("stopped by SIGTERM after 10 steps; checkpoint saved.") == 1
    assert f"Continue with: torchrun --nproc-per-node=2 -m dvae_ext.cli train --resume {run.path}\n" in output
