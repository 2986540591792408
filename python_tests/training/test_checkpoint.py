"""Checkpoint files: complete, checked, and never trusted."""

import errno
import os
import pickle
import resource
import zipfile

import pytest
import torch

from dvae_ext.training import CheckpointError, CheckpointStore, read_checkpoint


def content(step):
    return {
        "step": step,
        "model": {"weight": torch.full((1000,), float(step))},
        "ranks": [{"rng": torch.get_rng_state()}],
    }


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints")


def test_the_last_two_and_the_best_stay(store):
    store.save_best(content(1))
    for step in (1, 2, 3):
        store.save(content(step), step)
    assert store.steps() == [3, 2]
    assert sorted(os.listdir(store.folder)) == ["best.pt", "step-00000002.pt", "step-00000003.pt"]
    assert read_checkpoint(store.best)["step"] == 1
    loaded, problems = store.load_newest()
    assert loaded["step"] == 3
    assert problems == []
    assert torch.equal(loaded["model"]["weight"], content(3)["model"]["weight"])


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    middle = data.index(b"\0\0\x40\x40" * 10) + 2  # inside the weights of step 3: 3.0 as little-endian float32
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: b"not a checkpoint at all"])
def test_a_torn_file_is_named_and_the_one_before_is_used(store, damage):
    for step in (2, 3):
        store.save(content(step), step)
    newest = store.path(3)
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.raises(CheckpointError, match=r"step-00000003\.pt is torn"):
        read_checkpoint(newest)
    loaded, problems = store.load_newest()
    assert loaded["step"] == 2
    assert len(problems) == 1
    assert "step-00000003.pt is torn" in problems[0]


def test_nothing_usable_names_every_file(store):
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*checkpoints"):
        store.load_newest()
    for step in (2, 3):
        store.save(content(step), step)
        store.path(step).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no usable checkpoint.*step-00000003\.pt.*step-00000002\.pt"):
        store.load_newest()


def test_foreign_files_are_refused(store, tmp_path):
    foreign = tmp_path / "foreign.pt"
    torch.save({"step": 3}, foreign)
    with pytest.raises(CheckpointError, match=r"foreign\.pt is not a checkpoint of this version.*found None"):
        read_checkpoint(foreign)
    torch.save([1, 2], foreign)
    with pytest.raises(CheckpointError, match="found 'list'"):
        read_checkpoint(foreign)
    with pytest.raises(CheckpointError, match=r"no checkpoint .*absent\.pt"):
        read_checkpoint(tmp_path / "absent.pt")


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    target = tmp_path / "executed"
    path = tmp_path / "attack.pt"
    torch.save(Attack(str(target)), path, pickle_module=pickle)
    with pytest.raises(CheckpointError, match=r"attack\.pt is torn or not a checkpoint"):
        read_checkpoint(path)
    assert not target.exists()


def test_a_file_size_limit_leaves_the_earlier_checkpoint(store):
    """The operating system refuses to write on, as it does on a full disk."""
    store.save(content(1), 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(
            CheckpointError, match=r"cannot save .*step-00000002\.pt: File too large; earlier .* intact"
        ):
            store.save(content(2), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(store.folder) == ["step-00000001.pt"]
    assert store.load_newest()[0]["step"] == 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_checkpoint(store, monkeypatch, call):
    store.save(content(1), 1)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        store.save(content(2), 2)
    assert os.listdir(store.folder) == ["step-00000001.pt"]
    assert store.load_newest()[0]["step"] == 1


def test_a_checkpoint_that_would_fill_the_memory_is_refused(store, tmp_path):
    """torch stores its parts as they are; one that is compressed unpacks to a thousand times the file."""
    store.save(content(1), 1)
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(store.path(1)) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name) + bytes(10**7))
    with pytest.raises(CheckpointError, match=r"bomb\.pt is torn .*its parts are larger than the file"):
        read_checkpoint(path)
