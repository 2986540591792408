"""Files of a run: whole or absent, and one writer at a time."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from dvae_ext.training import RunError, RunFolder
from dvae_ext.training.files import locked, saving, write_atomically


def test_two_writers_of_one_file_do_not_share_a_temporary_name(tmp_path, monkeypatch):
    path, original, nested = tmp_path / "a", os.fsync, []

    def fsync(descriptor):
        if not nested:  # in the middle of the first, another process writes the same file
            nested.append(True)
            write_atomically(path, b"the other")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    for path, reason in ((tmp_path / "gone" / "a", "No such file"), (tmp_path / "folder", "Is a directory")):
        with pytest.raises(RunError, match=rf"^cannot save {path}: {reason}"):
            write_atomically(path, b"x")
    assert os.listdir(tmp_path) == ["folder"]
    with (
        pytest.raises(RunError, match=r"^cannot save full: No space left on device$"),
        saving("full"),
        open("/dev/full", "wb", buffering=0) as stream,
    ):
        stream.write(b"x")


def test_a_held_folder_names_its_process_and_a_killed_one_lets_go(tmp_path):
    ready, told = os.pipe()
    holder = os.fork()
    if holder == 0:
        with locked(tmp_path):
            os.write(told, b"x")
            time.sleep(60)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"x"
        with (
            pytest.raises(RunError, match=rf"^{tmp_path} is in use by process {holder} on "),
            locked(tmp_path),
        ):
            pass
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")
    assert os.listdir(tmp_path) == []


def test_only_one_of_many_holds_a_folder(tmp_path):
    """Also while holders come and go, and remove the file that the others have just opened."""
    inside, most = 0, 0
    counting = threading.Lock()

    def attempt(_):
        nonlocal inside, most
        with suppress(RunError), locked(tmp_path):
            with counting:
                inside += 1
                most = max(most, inside)
            with counting:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(2000)))
    assert most == 1


def test_runs_that_begin_together_take_different_folders(tmp_path, toy_config):
    barrier = threading.Barrier(8)

    def begin(_):
        run = RunFolder(tmp_path / "run", numbered=True)
        barrier.wait()
        with run.writing((toy_config(), "1")):
            barrier.wait()
        return run.path.name

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(begin, range(8))) == ["run", *(f"run-{i}" for i in range(2, 9))]


def test_what_a_killed_process_left_is_removed(tmp_path, toy_config):
    run = RunFolder(tmp_path / "run")
    with run.writing((toy_config(), "1")):
        pass
    run.checkpoints.folder.mkdir()
    (run.checkpoints.folder / ".step-00000003.pt.0123abcd.tmp").write_bytes(b"half")
    with run.writing():
        assert os.listdir(run.checkpoints.folder) == []
