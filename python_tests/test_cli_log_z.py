"""``dvae-ext log-z`` on files and runs."""

import json
import struct

import numpy as np
import pytest
import torch

pytest.importorskip("tyro", reason="tyro is not installed: pip install 'dvae_ext[train]'")

from dvae_ext.cli import main
from dvae_ext.cli_log_z import read_rbm
from dvae_ext.training import RunError
from python_tests.rbm.known_models import random_rbm

QUICK = ["--sweeps", "64", "--seed", "1"]


def write_npz(path, **arrays):
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})


def write_safetensors(path, **tensors):
    """The format by hand: 8 bytes of length, a JSON header, the data."""
    header, data = {"__metadata__": {"made": "here"}}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        kind = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float64: "F64"}[tensor.dtype]
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_npz_to_json_and_picture(tmp_path, capsys):
    one = random_rbm(7, 9, 1.0)
    write_npz(tmp_path / "rbm.npz", W=one.weight, visible_bias=one.visible_bias, hidden_bias=one.hidden_bias)
    out, plot = tmp_path / "log_z.json", tmp_path / "log_z.png"
    assert main(["log-z", str(tmp_path / "rbm.npz"), *QUICK, "--out", str(out), "--plot", str(plot)]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert printed == json.loads(out.read_text())
    assert plot.stat().st_size > 10_000
    assert "independent reference, round 1" in captured.err
    assert "log Z =" in captured.err
    assert main(["log-z", str(tmp_path / "rbm.npz"), "--method", "exact"]) == 0
    exact = json.loads(capsys.readouterr().out)
    assert abs(printed["value"] - exact["value"]) < 4 * printed["std_error"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_safetensors(tmp_path, dtype):
    tensors = {name: value.to(dtype) for name, value in vars(random_rbm(4, 5, 1.0)).items()}
    write_safetensors(tmp_path / "rbm.safetensors", **tensors)
    found = read_rbm(tmp_path / "rbm.safetensors")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_files_that_do_not_serve(tmp_path, capsys):
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    not_npz = tmp_path / "text.npz"
    not_npz.write_text("no archive")
    write_npz(tmp_path / "partial.npz", weight=np.zeros((2, 3)), other=np.zeros(2))
    (tmp_path / "empty.npz").write_bytes(b"")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros((2, 3)))
    write_npz(tmp_path / "complex.npz", weight=np.zeros((2, 3), dtype=complex))
    (tmp_path / "rbm.txt").write_text("")
    for name, message in {
        "absent.npz": "does not exist; expected a run folder, a .npz or a .safetensors file",
        "torn.safetensors": "cannot be read as a safetensors file",
        "text.npz": "cannot be read as a NumPy archive",
        "empty.npz": "cannot be read as a NumPy archive",
        "array.npz": "cannot be read as a NumPy archive",
        "complex.npz": "array weight has dtype complex128, expected real numbers",
        "partial.npz": "has no array visible_bias; it has: weight, other",
        "rbm.txt": "has the ending '.txt', expected .npz or .safetensors",
        ".": "holds no run",
    }.items():
        with pytest.raises(RunError, match=message):
            read_rbm(tmp_path / name)
    assert main(["log-z", str(tmp_path / "absent.npz")]) == 2
    assert "error:" in capsys.readouterr().err
    one = random_rbm(3, 4, 1.0)
    one.weight[0, 0] = torch.nan
    write_npz(tmp_path / "nan.npz", **vars(one))
    assert main(["log-z", str(tmp_path / "nan.npz")]) == 2
    assert "weight holds NaN or infinity, expected finite numbers" in capsys.readouterr().err
