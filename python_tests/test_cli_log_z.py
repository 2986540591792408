"""``dvae-ext log-z`` on files and runs."""

import json
import struct
import zipfile

import numpy as np
import pytest
import torch

pytest.importorskip("tyro", reason="tyro is not installed: pip install 'dvae_ext[train]'")

from dvae_ext import cli_log_z
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


def safetensors(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("data_offsets", [-24, 0]),
        ("data_offsets", [4, 28]),
        ("data_offsets", [0, 20]),
        ("data_offsets", [24, 0]),
        ("data_offsets", [0, 2**70]),
        ("data_offsets", [0.0, 24.0]),
        ("data_offsets", [False, 24]),
        ("data_offsets", [0]),
        ("shape", [-1, 3]),
        ("shape", [3, 3]),
        ("shape", [[2], 3]),
        ("shape", None),
        ("dtype", "F16"),
        ("dtype", "I32"),
        ("dtype", 3),
    ],
)
def test_safetensors_that_contradict_themselves(tmp_path, part, value):
    """Three tensors: 24 bytes of weight [2, 3], then the biases."""
    header = {
        "weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "visible_bias": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
        "hidden_bias": {"dtype": "F32", "shape": [3], "data_offsets": [32, 44]},
    }
    path = tmp_path / "rbm.safetensors"
    safetensors(path, header, bytes(44))
    assert {name: list(tensor.shape) for name, tensor in read_rbm(path).items()} == {
        name: entry["shape"] for name, entry in header.items()
    }
    header["weight"][part] = value
    safetensors(path, header, bytes(44))
    with pytest.raises(RunError, match=r"^.*cannot be read as a safetensors file: tensor \w+ (is|has) "):
        read_rbm(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[" * 100_000, "recursion"),
        (b"[1]", "not an object"),
        (b'{"weight": 3}', "tensor weight is 3, expected dtype, shape"),
        (b'{"a": {}, "a": {}}', "a name in its header is repeated"),
        (b"{}", "its tensors have 0 bytes, the file has 8"),
        (b"\xff", "utf-8"),
    ],
)
def test_safetensors_headers_that_are_none(tmp_path, header, message):
    safetensors(tmp_path / "a.safetensors", header, bytes(8))
    with pytest.raises(RunError, match=message):
        read_rbm(tmp_path / "a.safetensors")


def npy(shape, descr="'<f4'", data=bytes(24), version=b"\x01\0"):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy("(-2, -3)"), r"array weight has the shape \(-2, -3\)"),
        (npy("(10**30,)"), "array weight has no header"),
        (npy("(9999999999999,)"), r"has the shape \(9999999999999,\) of float32, but 24 bytes"),
        (npy("(2, 3)", data=bytes(20)), "but 20 bytes"),
        (npy("(2, 3)", data=bytes(25)), "but 25 bytes"),
        (npy("(2, 3)", version=b"\x03\0"), "array weight has no header"),
        (npy("(2, 3)", "'|O'"), "dtype object, expected real numbers"),
        (npy("(2, 3)", "[('a', '<f4')]"), "expected real numbers"),
        (npy("(2, 3"), "array weight has no header"),
        (npy("2.5"), "array weight has no header"),
        (b"", "array weight has no header"),
        (b"x" * 200, "array weight has no header"),
    ],
)
def test_npz_members_that_contradict_themselves(tmp_path, member, message):
    path = tmp_path / "rbm.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weight.npy", member)
        archive.writestr("visible_bias.npy", npy("(2,)", data=bytes(8)))
        archive.writestr("hidden_bias.npy", npy("(3,)", data=bytes(12)))
    with pytest.raises(RunError, match=rf"cannot be read as a NumPy archive: .*{message}"):
        read_rbm(path)


def test_npz_archives_with_traps(tmp_path, monkeypatch):
    one = {name: value.numpy() for name, value in vars(random_rbm(4, 5, 1.0)).items()}
    path = tmp_path / "rbm.npz"
    np.savez_compressed(path, **one, other=np.array([{}], dtype=object))  # what is not asked for is not read
    assert all(np.array_equal(read_rbm(path)[name], one[name]) for name in one)
    np.savez(path, W=one["weight"], **one)
    with pytest.raises(RunError, match="has both weight and W, expected one of them"):
        read_rbm(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("W.npy", b"")
    with pytest.raises(RunError, match="two of its arrays have the same name"):
        read_rbm(path)
    zeros = {name: np.zeros((300,) * value.ndim, np.float32) for name, value in one.items()}
    monkeypatch.setattr(cli_log_z, "LARGEST_UNPACKED", 300_000)
    np.savez_compressed(path, **zeros)
    with pytest.raises(RunError, match=r"array weight unpacks to 360,128 bytes, more than the 300,000 that are read"):
        read_rbm(path)
    np.savez(path, **zeros)
    assert read_rbm(path)["weight"].shape == (300, 300)


def test_integers_keep_their_value(tmp_path):
    weight = np.array([[2**24 + 1, 3]])
    write_npz(tmp_path / "rbm.npz", weight=weight, visible_bias=[0], hidden_bias=[0, 1])
    found = read_rbm(tmp_path / "rbm.npz")
    assert found["weight"].tolist() == weight.tolist()
    assert {tensor.dtype for tensor in found.values()} == {torch.float64}
    write_npz(tmp_path / "rbm.npz", weight=weight - 1, visible_bias=[0], hidden_bias=[0, 1])
    assert {tensor.dtype for tensor in read_rbm(tmp_path / "rbm.npz").values()} == {torch.float32}


def test_outputs_are_whole_or_not_there(tmp_path, capsys):
    write_npz(tmp_path / "rbm.npz", **vars(random_rbm(4, 5, 1.0)))
    for option in ("--out", "--plot"):
        target = tmp_path / "there.png"
        target.mkdir(exist_ok=True)
        assert main(["log-z", str(tmp_path / "rbm.npz"), *QUICK, option, str(target)]) == 2
        told = capsys.readouterr()
        assert json.loads(told.out)["method"] == "tempering"
        assert f"dvae-ext: error: cannot save {target}: Is a directory\n" in told.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rbm.npz", "there.png"]


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_damaged_bytes_are_refused_or_change_nothing(tmp_path, kind):
    """Three hundred files with one byte changed; of safetensors in the header, as its data has no checksum."""
    one = random_rbm(4, 5, 1.0)
    path = tmp_path / f"rbm.{kind}"
    if kind == "npz":
        write_npz(path, **vars(one))
    else:
        write_safetensors(path, **vars(one))
    content = path.read_bytes()
    end = len(content) if kind == "npz" else len(content) - 4 * (20 + 4 + 5)
    generator = np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[generator.integers(end)] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            found = read_rbm(path)
        except RunError:
            refused += 1
        else:
            assert all(torch.equal(found[name], value) for name, value in vars(one).items())
    assert refused > 150
