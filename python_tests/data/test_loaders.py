"""Loaders: splits, conventions, and errors that name the file, what was expected and where it is published."""

import bz2
import gzip
import lzma
import shutil
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from scipy.io import savemat

from dvae_ext.data import DATASETS, DataError, load, loaders
from dvae_ext.data.files import Source, idx_names, read_amat, read_idx_images, read_mat, read_npz
from dvae_ext.data.loaders import MNIST, MNIST_STATIC

SOURCE = Source(("folder",), "https://example.org/published")


def test_digits_split_and_values():
    digits = load("digits")
    assert (len(digits.train), len(digits.valid), len(digits.test)) == (1297, 200, 300)
    assert digits.info.image_shape == (8, 8)
    assert digits.binarisation == "dynamic"
    assert digits.train.dtype == torch.float32
    assert digits.train.min() == 0
    assert digits.train.max() == 1
    assert digits.valid.dtype == torch.uint8
    assert digits.valid.max() == 1
    torch.testing.assert_close(digits.info.train_mean, digits.train.mean(dim=0))


def test_fixed_binarisation_is_the_same_every_time_and_follows_the_grey_values():
    first, second = load("digits"), load("digits", binarisation="static")
    assert torch.equal(first.test, second.test)
    assert torch.equal(first.valid, second.valid)
    assert second.train.dtype == torch.uint8
    # 1297 * 64 Bernoulli draws: the mean lies within 5 standard errors of the grey mean (at most 0.5 / sqrt(n) each).
    n = second.train.numel()
    assert abs(second.train.float().mean() - first.train.mean()) < 5 * 0.5 / n**0.5
    # pixels that are never inked stay empty
    assert second.train[:, first.train.amax(dim=0) == 0].sum() == 0


def test_without_binarisation_every_split_is_grey_and_a_note_says_so():
    grey, dynamic = load("digits", binarisation="none"), load("digits")
    assert torch.equal(grey.train, dynamic.train)
    assert grey.valid.dtype == grey.test.dtype == torch.float32
    assert ((grey.test > 0) & (grey.test < 1)).any()
    assert "no likelihoods" in grey.notes[0]
    assert dynamic.notes == ()


def write_svhn(folder, rows, dtype=np.uint8):
    images = {}
    for split, count in rows.items():
        images[split] = np.random.RandomState(len(split)).randint(0, 256, (32, 32, 3, count)).astype(dtype)
        savemat(folder / f"{split}_32x32.mat", {"X": images[split], "y": np.ones((count, 1), np.uint8)})
    return images


def test_svhn_averages_the_channels_and_keeps_rows_upright(tmp_path, monkeypatch):
    rows = {"train": 22, "test": 7}
    monkeypatch.setattr(loaders, "SVHN_ROWS", rows)
    images = write_svhn(tmp_path, rows)
    svhn = load("svhn", tmp_path)
    assert (len(svhn.train), len(svhn.valid), len(svhn.test)) == (20, 2, 7)
    assert svhn.info.image_shape == (32, 32)
    expected = images["train"][:, :, :, 21].astype(np.float64).mean(axis=2) / 255
    np.testing.assert_allclose(svhn.valid[1].reshape(32, 32), expected, atol=1e-6)


def test_svhn_names_a_file_that_is_not_the_expected_one(tmp_path, monkeypatch):
    write_svhn(tmp_path, {"train": 22, "test": 7})
    with pytest.raises(DataError, match=r"train_32x32.mat is damaged.*expected \(32, 32, 3, 73257\)"):
        load("svhn", tmp_path)
    monkeypatch.setattr(loaders, "SVHN_ROWS", {"train": 22, "test": 7})
    write_svhn(tmp_path, {"train": 22, "test": 7}, np.float32)
    with pytest.raises(DataError, match="holds float32 values, expected uint8"):
        load("svhn", tmp_path)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(DataError, match=r"unknown data set 'cifar'.*digits.*caltech101, svhn"):
        load("cifar")
    with pytest.raises(DataError, match="mnist-static has no 'dynamic' binarisation; it has: static"):
        load("mnist-static", "/nowhere", binarisation="dynamic")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_missing_directory_or_file_is_named_with_its_origin(name, tmp_path):
    with pytest.raises(DataError, match="--data-dir"):
        load(name)
    with pytest.raises(DataError, match=r"does not exist.*https?://"):
        load(name, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no .+ in .+ published at https?://"):
        load(name, tmp_path)


def write_amat(path, images):
    text = "".join(" ".join(map(str, row)) + "\n" for row in images)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as stream:
        stream.write(text)


@pytest.mark.parametrize("name", ["bits.amat", "bits.amat.gz"])
def test_amat_round_trip(name, tmp_path):
    images = np.random.RandomState(0).randint(0, 2, (5, 6)).astype(np.uint8)
    write_amat(tmp_path / name, images)
    np.testing.assert_array_equal(read_amat(tmp_path / name, 5, 6, SOURCE), images)


def test_amat_damage_is_explained(tmp_path):
    path = tmp_path / "bits.amat"
    write_amat(path, [[0, 1, 0], [1, 1, 0]])
    good = path.read_bytes()
    path.write_bytes(good[:-2])
    with pytest.raises(DataError, match=r"bits\.amat.*10 bytes of text, expected 12 .*example\.org"):
        read_amat(path, 2, 3, SOURCE)
    for bad in (good.replace(b"1", b"2", 1), good.replace(b" ", b",", 1), good.replace(b"\n", b" ", 1)):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="values 0 or 1"):
            read_amat(path, 2, 3, SOURCE)


def idx_bytes(rows, magic=0x803, count=None):
    header = np.array([magic, rows if count is None else count, 28, 28], ">u4").tobytes()
    return header + np.random.RandomState(1).randint(0, 256, rows * 784).astype(np.uint8).tobytes()


def test_idx_round_trip_and_damage(tmp_path):
    path = tmp_path / "images"
    content = idx_bytes(3)
    path.write_bytes(content)
    images = read_idx_images(path, 3, SOURCE)
    np.testing.assert_array_equal(np.round(images * 255).astype(np.uint8).tobytes(), content[16:])
    zipped = tmp_path / "images.gz"
    zipped.write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read_idx_images(zipped, 3, SOURCE), images)

    for bad, message in (
        (content[:-1], "bytes, expected 2368"),
        (content[:7], "IDX header"),
        (b"", "IDX header"),
        (idx_bytes(3, magic=0x801), "IDX header"),
        (idx_bytes(3, count=4), "announces 4x28x28 values, expected 3x28x28"),
    ):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=message):
            read_idx_images(path, 3, SOURCE)


def test_gzip_cut_short_or_not_gzip(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(3))[:-100])
    with pytest.raises(DataError, match=r"images\.gz is damaged.*cut short"):
        read_idx_images(path, 3, SOURCE)
    content = bytearray(gzip.compress(idx_bytes(3)))
    content[-8] ^= 1  # of the checksum
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a valid gzip stream"):
        read_idx_images(path, 3, SOURCE)


def test_the_content_says_whether_a_file_is_zipped(tmp_path):
    expected = np.frombuffer(idx_bytes(3), np.uint8, offset=16).reshape(3, 784).astype(np.float32) / np.float32(255)
    for name, content in (("images.gz", idx_bytes(3)), ("images", gzip.compress(idx_bytes(3)))):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_idx_images(tmp_path / name, 3, SOURCE), expected)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "a web page: download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (lzma.compress(idx_bytes(3)), "an xz file: unpack it"),
        (bz2.compress(idx_bytes(3)), "a bzip2 file: unpack it"),
        (gzip.compress(gzip.compress(idx_bytes(3))), "a gzip file: unpack it"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600), r"a MATLAB 7.3 file \(HDF5\): save it again with"),
        (b"\x89HDF\r\n\x1a\n".ljust(600), r"a MATLAB 7.3 file \(HDF5\): save it again with .*scipy.io.savemat"),
    ],
)
@pytest.mark.parametrize("reader", ["idx", "mat", "npz"])
def test_another_format_is_named(reader, content, what, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"file is not the expected file but {what}.*Original: https://example.org"):
        READERS[reader](path)


READERS = {
    "idx": lambda path: read_idx_images(path, 3, SOURCE),
    "mat": lambda path: read_mat(path, {"x": (4, 4)}, SOURCE),
    "npz": lambda path: read_npz(path, {"x": (4, 4)}, SOURCE),
}
BOMB = 64_000_000  # bytes of zeros


def gzip_bomb(path):
    path.write_bytes(gzip.compress(bytes(BOMB), 1))


def mat_bomb(path):
    savemat(path, {"x": np.zeros((8, BOMB // 8), np.uint8)}, do_compression=True)


def mat_bomb_of_the_right_shape(path):
    """What the dimensions say holds 16 numbers, what is stored many more."""
    savemat(path, {"x": np.zeros((4, BOMB // 4), np.uint8)})
    content = path.read_bytes()
    wide, right = (np.array([4, columns], "<i4").tobytes() for columns in (BOMB // 4, 4))
    assert content.count(wide) == 1
    element = zlib.compress(content[128:].replace(wide, right), 1)
    path.write_bytes(content[:128] + struct.pack("<II", 15, len(element)) + element)


def npz_bomb(path):
    with open(path, "wb") as stream:
        np.savez_compressed(stream, x=np.zeros((8, BOMB // 8), np.uint8))


@pytest.mark.parametrize(
    ("reader", "write"),
    [("idx", gzip_bomb), ("mat", mat_bomb), ("mat", mat_bomb_of_the_right_shape), ("npz", npz_bomb)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_no_more_is_unpacked_than_can_be_right(reader, write, tmp_path):
    path = tmp_path / "bomb"
    write(path)
    assert path.stat().st_size < BOMB // 100
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="bomb is damaged or not the expected file"):
            READERS[reader](path)
        assert tracemalloc.get_traced_memory()[1] < BOMB // 10
    finally:
        tracemalloc.stop()


def test_a_longer_file_is_told_from_one_of_a_known_length(tmp_path):
    for name in ("images", "images.gz"):
        content = idx_bytes(3) + bytes(99)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        with pytest.raises(DataError, match="more than 2368 bytes, expected 2368"):
            read_idx_images(tmp_path / name, 3, SOURCE)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f4", "f8", "?"])
def test_mat_variables_among_others(compressed, dtype, tmp_path):
    path = tmp_path / "file"
    x = np.random.RandomState(0).randint(0, 2 if dtype == "?" else 100, (4, 4)).astype(dtype)
    others = {"names": np.array(["a", "bc"], object), "struct": {"x": 1}, "text": "x", "long_name": x}
    savemat(path, {"before": np.ones((50, 50)), **others, "x": x, "after": np.ones(3)}, do_compression=compressed)
    found = read_mat(path, {"x": (4, 4), "long_name": (4, 4)}, SOURCE)
    for name in ("x", "long_name"):
        np.testing.assert_array_equal(found[name], x)
        assert found[name].dtype == (np.uint8 if dtype == "?" else x.dtype)
    with pytest.raises(DataError, match="it holds no variable 'y'"):
        read_mat(path, {"y": (4, 4)}, SOURCE)
    for name in ("names", "struct", "text"):
        with pytest.raises(DataError, match="no full array of real numbers"):
            read_mat(path, {name: (1, 1000)}, SOURCE)
    savemat(path, {"x": x.astype("f8")}, format="4")
    with pytest.raises(DataError, match="does not start with the header of a MATLAB 5 file"):
        read_mat(path, {"x": (4, 4)}, SOURCE)


def test_damaged_files_give_one_error_and_nothing_else(tmp_path):
    """Bytes changed at random: what is read or refused is not the question. SciPy's reader of .mat crashes on some."""
    x, path, random = np.arange(16, dtype=np.uint8).reshape(4, 4), tmp_path / "file", np.random.RandomState(0)
    contents = []
    for compressed in (False, True):
        savemat(path, {"before": np.ones((3, 3)), "x": x, "after": np.ones(2)}, do_compression=compressed)
        contents.append(("mat", path.read_bytes()))
    with open(path, "wb") as stream:
        np.savez_compressed(stream, x=x)
    contents += [("npz", path.read_bytes()), ("idx", idx_bytes(3)), ("idx", gzip.compress(idx_bytes(3)))]
    refused = 0
    for _ in range(150):
        for reader, content in contents:
            damaged = np.frombuffer(content, np.uint8).copy()
            places = random.randint(0, min(len(damaged), 400), 3)
            damaged[places] = random.choice([0, 255, random.randint(256)], 3)
            path.write_bytes(damaged.tobytes()[: len(damaged) if random.rand() < 0.8 else random.randint(len(damaged))])
            try:
                READERS[reader](path)
            except DataError:
                refused += 1
    assert refused > 400


def test_mat_of_the_other_byte_order(tmp_path):
    def element(kind, content):
        return struct.pack(">II", kind, len(content)) + content.ljust(-(-len(content) // 8) * 8, b"\0")

    numbers = np.arange(16, dtype=">f8")
    parts = [element(6, struct.pack(">II", 6, 0)), element(5, struct.pack(">ii", 4, 4))]
    parts += [struct.pack(">HH4s", 1, 1, b"x"), element(9, numbers.tobytes())]
    matrix = element(14, b"".join(parts))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x100) + b"MI"
    for content in (matrix, element(15, zlib.compress(matrix))):
        (tmp_path / "file").write_bytes(header + content)
        found = read_mat(tmp_path / "file", {"x": (4, 4)}, SOURCE)["x"]
        np.testing.assert_array_equal(found, np.arange(16).reshape(4, 4, order="F"))


@pytest.mark.parametrize("value", [np.zeros((4, 4), complex), np.full((4, 4), np.nan), np.full((4, 4), "a", object)])
def test_what_is_no_finite_real_number_is_refused(value, tmp_path):
    savemat(tmp_path / "file.mat", {"x": value})
    with pytest.raises(
        DataError,
        match=r"file\.mat is damaged.*(finite real numbers|full array of real numbers|more bytes than an array)",
    ):
        read_mat(tmp_path / "file.mat", {"x": (4, 4)}, SOURCE)
    np.savez(tmp_path / "file.npz", x=value)
    with pytest.raises(DataError, match=r"file\.npz is damaged.*(finite real numbers|allow_pickle)"):
        read_npz(tmp_path / "file.npz", {"x": (4, 4)}, SOURCE)


def test_idx_files_under_all_their_names(tmp_path):
    for split, rows in (("train", 60_000), ("t10k", 10_000)):
        header = np.array([0x803, rows, 28, 28], ">u4").tobytes()
        (tmp_path / f"{split}-images.idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(rows * 784), 1))
    assert len(load("mnist", tmp_path, "none").test) == 10_000
    # Each comes before those that it follows here.
    for name in ("images.idx3-ubyte.gz", "images.idx3-ubyte", "images-idx3-ubyte.gz", "images-idx3-ubyte"):
        (tmp_path / f"train-{name}").touch()
        assert MNIST.find(tmp_path, idx_names("train-images-idx3-ubyte")).name == f"train-{name}"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_files_are_found_directly_or_in_the_usual_folder(folder, suffix, tmp_path):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    path = tmp_path / folder / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(b"")
    assert MNIST.find(tmp_path, (path.name,)).samefile(path)
    with pytest.raises(DataError, match=r"binarized_mnist_train.amat"):
        MNIST_STATIC.find(tmp_path, ("binarized_mnist_train.amat",))


def test_omniglot_mat_is_column_major_and_splits_like_the_papers(tmp_path):
    drawing = np.zeros((28, 28), np.float32)
    drawing[2, 5:20] = 1  # a horizontal stroke
    data = np.zeros((784, 24_345), np.uint8)
    data[:, 0] = drawing.ravel(order="F")
    data[:, -1345] = drawing.ravel(order="F")
    savemat(tmp_path / "chardata.mat", {"data": data, "testdata": np.zeros((784, 8070), np.uint8)}, do_compression=True)
    omniglot = load("omniglot", tmp_path)
    assert (len(omniglot.train), len(omniglot.valid), len(omniglot.test)) == (23_000, 1345, 8070)
    np.testing.assert_array_equal(omniglot.train[0].reshape(28, 28).numpy(), drawing)
    np.testing.assert_array_equal(omniglot.valid[0].reshape(28, 28).numpy(), drawing)
    assert omniglot.notes == ()
    assert omniglot.binarisation == "dynamic"

    content = (tmp_path / "chardata.mat").read_bytes()
    (tmp_path / "chardata.mat").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"chardata\.mat is damaged.*github\.com/yburda/iwae"):
        load("omniglot", tmp_path)
    savemat(tmp_path / "chardata.mat", {"data": data[:, :10]})
    with pytest.raises(DataError, match=r"'data' has shape \(784, 10\), expected \(784, 24345\)"):
        load("omniglot", tmp_path)


def test_omniglot_stand_in_is_announced(tmp_path):
    arrays = {"train": np.zeros((24_345, 28, 28), np.uint8), "test": np.full((8_115, 28, 28), 255, np.uint8)}
    np.savez_compressed(tmp_path / "omniglot_28x28_box.npz", **arrays)
    omniglot = load("omniglot", tmp_path)
    assert len(omniglot.notes) == 1
    assert "stand-in" in omniglot.notes[0]
    assert "cannot be compared" in omniglot.notes[0]
    assert omniglot.test.min() == 1
    np.savez_compressed(tmp_path / "omniglot_28x28_box.npz", **{key: array / 255 for key, array in arrays.items()})
    with pytest.raises(DataError, match="its images are not uint8"):
        load("omniglot", tmp_path)
    (tmp_path / "omniglot_28x28_box.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        load("omniglot", tmp_path)


def test_published_files(shared_data):
    """Sizes, orientation-free checksums and means of the files themselves."""
    expected = {
        "mnist-static": (50_000, 10_000, 10_000, 0.13251),
        "mnist": (50_000, 10_000, 10_000, 0.13251),
        "fashion-mnist": (50_000, 10_000, 10_000, 0.28685),
        "omniglot": (23_000, 1_345, 8_115, 0.0798),
        "caltech101": (4_100, 2_264, 2_307, None),
    }
    for name, (train, valid, test, mean) in expected.items():
        data = load(name, shared_data)
        assert (len(data.train), len(data.valid), len(data.test)) == (train, valid, test), name
        if mean is not None:
            assert abs(data.test.float().mean().item() - mean) < 2e-4, name


def test_caltech_takes_the_complement_and_stands_upright(shared_data):
    from scipy.io import loadmat

    stored = loadmat(shared_data / "caltech101_silhouettes" / "caltech101_silhouettes_28_split1.mat")["train_data"][0]
    image = load("caltech101", shared_data).train[0].reshape(28, 28).numpy()
    np.testing.assert_array_equal(image, 1 - stored.reshape(28, 28, order="F"))


def test_an_inverted_caltech_file_is_taken_as_it_is_and_said(tmp_path):
    random = np.random.RandomState(0)
    rows = {"train_data": 4_100, "val_data": 2_264, "test_data": 2_307}
    published = {name: random.randint(0, 2, (count, 784)).astype(np.uint8) for name, count in rows.items()}
    for part in published.values():
        part[:, [0, 27, 756, 783]] = 1
    folder = tmp_path / "caltech101"
    folder.mkdir()
    savemat(folder / "caltech101_silhouettes_28_split1.mat", published)
    right = load("caltech101", tmp_path)
    assert right.notes == ()
    assert right.test[:, 0].max() == 0
    inverted = {name: 1.0 - part for name, part in published.items()}
    savemat(folder / "caltech101_silhouettes_28_split1.mat", inverted)
    found = load("caltech101", tmp_path)
    assert torch.equal(found.train, right.train)
    assert torch.equal(found.test, right.test)
    assert "is inverted" in found.notes[0]
    savemat(folder / "caltech101_silhouettes_28_split1.mat", {**published, "test_data": inverted["test_data"]})
    with pytest.raises(DataError, match="some corners of its images are 0 and others 1"):
        load("caltech101", tmp_path)


def test_the_omniglot_stand_in_validates_on_characters_that_it_trains_on(shared_data):
    """Its file lies character by character: the last 1,345 images are 90 characters, 89 of them without others."""
    path = shared_data / "omniglot" / "omniglot_28x28_box.npz"
    with np.load(path) as content:
        images, characters = content["train"].reshape(-1, 784), content["train_char"]
    of_image = {image.tobytes(): character for image, character in zip(images, characters, strict=True)}
    omniglot = load("omniglot", shared_data, "none")
    grey = [(part.numpy() * 255).round().astype(np.uint8) for part in (omniglot.train, omniglot.valid)]
    train, valid = ({of_image[image.tobytes()] for image in part} for part in grey)
    assert len(train) == 1_623
    assert valid <= train
    assert len(valid) > 800


def test_a_truncated_published_file_is_named(shared_data, tmp_path):
    shutil.copytree(shared_data / "binarized_mnist", tmp_path / "binarized_mnist")
    victim = tmp_path / "binarized_mnist" / "binarized_mnist_valid.amat.gz"
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:200_000])
    with pytest.raises(DataError, match=r"binarized_mnist_valid\.amat\.gz is damaged.*cut short.*larocheh"):
        load("mnist-static", tmp_path)
