"""One loader for each data set, and the registry that ``load`` looks in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import DataError, Dataset, make_dataset
from .files import Source, idx_names, read_amat, read_idx_images, read_mat, read_npz

SIDE = (28, 28)

MNIST = Source(("mnist", "MNIST", "MNIST/raw"), "http://yann.lecun.com/exdb/mnist/")
FASHION_MNIST = Source(
    ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"), "https://github.com/zalandoresearch/fashion-mnist"
)
MNIST_STATIC = Source(
    ("binarized_mnist", "MNIST_static"), "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
)
OMNIGLOT = Source(("omniglot", "OMNIGLOT"), "https://github.com/yburda/iwae/tree/master/datasets/OMNIGLOT")
SVHN = Source(("svhn", "SVHN"), "http://ufldl.stanford.edu/housenumbers/")
CALTECH = Source(("caltech101_silhouettes", "caltech101"), "https://people.cs.umass.edu/~marlin/data.shtml")

# The papers validate on the last 1,345 training images of OMNIGLOT.
OMNIGLOT_VALID = 1345
SVHN_ROWS = {"train": 73_257, "test": 26_032}


def load_digits(data_dir: Path | None, binarisation: str) -> Dataset:
    """1,797 digits of 8x8 that come with scikit-learn, values 0..16 scaled to [0, 1].

    They are shuffled once with a fixed seed: 1,297 train, 200 validate, 300 test.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    images = (sklearn_digits().data / 16).astype(np.float32)
    images = images[np.random.RandomState(0).permutation(len(images))]
    return make_dataset("digits", (8, 8), images[:1297], images[1297:1497], images[1497:], binarisation)


def load_mnist_static(data_dir: Path | None, binarisation: str) -> Dataset:
    """MNIST binarised once by Salakhutdinov and Murray: 50,000 / 10,000 / 10,000 in the published files."""
    folder = needed("mnist-static", data_dir)
    parts = []
    for split, rows in (("train", 50_000), ("valid", 10_000), ("test", 10_000)):
        name = f"binarized_mnist_{split}.amat"
        parts.append(read_amat(MNIST_STATIC.find(folder, (name, name + ".gz")), rows, 784, MNIST_STATIC))
    return make_dataset("mnist-static", SIDE, parts[0], parts[1], parts[2], binarisation)


def load_idx(name: str, source: Source) -> Callable[[Path | None, str], Dataset]:
    """Loader of MNIST or Fashion-MNIST: the first 50,000 training images train, the last 10,000 validate."""

    def loader(data_dir: Path | None, binarisation: str) -> Dataset:
        folder = needed(name, data_dir)
        parts = []
        for split, rows in (("train", 60_000), ("t10k", 10_000)):
            path = source.find(folder, idx_names(f"{split}-images-idx3-ubyte"))
            parts.append(read_idx_images(path, rows, source))
        return make_dataset(name, SIDE, parts[0][:50_000], parts[0][50_000:], parts[1], binarisation)

    return loader


def load_omniglot(data_dir: Path | None, binarisation: str) -> Dataset:
    """OMNIGLOT at 28x28: ``chardata.mat`` of the papers (24,345 + 8,070), or a stand-in that is announced as such.

    The last 1,345 training images validate. The pixels of ``chardata.mat`` are column-major. The stand-in,
    ``omniglot_28x28_box.npz``, has another resizing and split (24,345 + 8,115). Its training images are mixed once with
    a fixed seed: they lie character by character, and the last would be of characters that training lacks.
    """
    folder = needed("omniglot", data_dir)
    path = OMNIGLOT.find(folder, ("chardata.mat", "omniglot_28x28_box.npz"))
    notes: tuple[str, ...] = ()
    if path.suffix == ".mat":
        content = read_mat(path, {"data": (784, 24_345), "testdata": (784, 8_070)}, OMNIGLOT)
        train, test = (upright(content[key].T.astype(np.float32)) for key in ("data", "testdata"))
    else:
        content = read_npz(path, {"train": (24_345, 28, 28), "test": (8_115, 28, 28)}, OMNIGLOT)
        if any(array.dtype != np.uint8 for array in content.values()):
            raise OMNIGLOT.damaged(path, "its images are not uint8")
        train, test = (content[key].reshape(-1, 784).astype(np.float32) / np.float32(255) for key in ("train", "test"))
        train = train[np.random.RandomState(0).permutation(len(train))]
        notes = (
            f"{path.name} is a stand-in for chardata.mat ({OMNIGLOT.published}), with another resizing and split: "
            "likelihoods on it cannot be compared with published OMNIGLOT results.",
        )
    if min(train.min(), test.min()) < 0 or max(train.max(), test.max()) > 1:
        raise OMNIGLOT.damaged(path, "pixel values outside the expected range")
    return make_dataset("omniglot", SIDE, train[:-OMNIGLOT_VALID], train[-OMNIGLOT_VALID:], test, binarisation, notes)


def load_caltech101(data_dir: Path | None, binarisation: str) -> Dataset:
    """Caltech-101 silhouettes, split 1 of Marlin: 4,100 / 2,264 / 2,307.

    In the file 1 is background and pixels are column-major; as most papers do, 1 - x is taken, so that 1 is the object.
    A file where that was done already is taken as it is, and a note says so.
    """
    folder = needed("caltech101", data_dir)
    path = CALTECH.find(folder, ("caltech101_silhouettes_28_split1.mat",))
    shapes = {"train_data": (4_100, 784), "val_data": (2_264, 784), "test_data": (2_307, 784)}
    content = read_mat(path, shapes, CALTECH)
    if any(np.any((array != 0) & (array != 1)) for array in content.values()):
        raise CALTECH.damaged(path, "pixels other than 0 and 1")
    images = [content[name].astype(np.uint8) for name in shapes]
    # Silhouettes are centred: the four corners of every published image are background.
    corners = np.concatenate([part[:, [0, 27, -28, -1]] for part in images])
    if corners.min() != corners.max():
        raise CALTECH.damaged(path, "some corners of its images are 0 and others 1, expected background in all")
    notes: tuple[str, ...] = ()
    if corners.min() == 1:
        images = [1 - part for part in images]
    else:
        notes = (
            f"{path.name} is inverted, 0 is the background where the published file has 1: it was taken as it is.",
        )
    train, valid, test = map(upright, images)
    return make_dataset("caltech101", SIDE, train, valid, test, binarisation, notes)


def load_svhn(data_dir: Path | None, binarisation: str) -> Dataset:
    """Street-view house numbers, cropped to 32x32, the three channels averaged as in CG-BPEF-VAE (section 4).

    The paper's ratio of training to validation images, 10 : 1, divides the published training set; the published test
    set is kept.
    """
    folder = needed("svhn", data_dir)
    parts = []
    for split, rows in SVHN_ROWS.items():
        path = SVHN.find(folder, (f"{split}_32x32.mat",))
        images = read_mat(path, {"X": (32, 32, 3, rows)}, SVHN)["X"]
        if images.dtype != np.uint8:
            raise SVHN.damaged(path, f"variable 'X' holds {images.dtype} values, expected uint8")
        grey = images.mean(axis=2, dtype=np.float32) / np.float32(255)
        parts.append(np.ascontiguousarray(grey.reshape(1024, rows).T))
    valid = len(parts[0]) // 11
    return make_dataset("svhn", (32, 32), parts[0][:-valid], parts[0][-valid:], parts[1], binarisation)


def upright(images: np.ndarray) -> np.ndarray:
    """Column-major pixels ``[n, 784]`` to row-major ones."""
    return np.ascontiguousarray(images.reshape(-1, *SIDE).transpose(0, 2, 1)).reshape(-1, 784)


def needed(name: str, data_dir: Path | None) -> Path:
    """The data directory, or an error that says which option is missing."""
    if data_dir is None:
        raise DataError(f"data set {name} is read from files: give their folder with --data-dir, or data_dir in Python")
    return Path(data_dir)


@dataclass(frozen=True)
class DatasetSpec:
    """An entry of the registry: the loader, the binarisations it offers (the default first) and a line of help."""

    loader: Callable[[Path | None, str], Dataset]
    binarisations: tuple[str, ...]
    summary: str


GREY = ("dynamic", "static", "none")  # what data sets of grey values offer

DATASETS: dict[str, DatasetSpec] = {
    "digits": DatasetSpec(load_digits, GREY, "8x8 digits that come with scikit-learn; needs no files"),
    "mnist-static": DatasetSpec(load_mnist_static, ("static",), "binarised MNIST, binarized_mnist_*.amat[.gz]"),
    "mnist": DatasetSpec(load_idx("mnist", MNIST), GREY, "MNIST, *-images-idx3-ubyte[.gz]"),
    "fashion-mnist": DatasetSpec(
        load_idx("fashion-mnist", FASHION_MNIST), GREY, "Fashion-MNIST, *-images-idx3-ubyte[.gz]"
    ),
    "omniglot": DatasetSpec(load_omniglot, GREY, "OMNIGLOT at 28x28, chardata.mat or a stand-in"),
    "caltech101": DatasetSpec(load_caltech101, ("static",), "Caltech-101 silhouettes, *_28_split1.mat"),
    "svhn": DatasetSpec(load_svhn, ("none",), "street-view house numbers in grey, {train,test}_32x32.mat"),
}


def load(name: str, data_dir: Path | str | None = None, binarisation: str | None = None) -> Dataset:
    """Read a data set.

    Args:
        name: A key of ``DATASETS``: digits, mnist-static, mnist, fashion-mnist, omniglot, caltech101, svhn.
        data_dir: Folder of the original files, or a folder with one subfolder for each data set. Not needed for digits.
        binarisation: "dynamic" (training images are binarised anew at every step), "static" (once, with a fixed
            seed, or in the published files) or "none" (grey values). By default dynamic wherever grey values exist,
            SVHN apart.

    Returns:
        The splits; validation and test images are binary unless the binarisation is "none".

    Raises:
        DataError: for an unknown name or binarisation, and for a missing or damaged file.

    Example:
        >>> digits = load("digits")
        >>> digits.train.shape, digits.valid.shape, digits.test.shape
        (torch.Size([1297, 64]), torch.Size([200, 64]), torch.Size([300, 64]))
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    spec = DATASETS[name]
    if binarisation is None:
        binarisation = spec.binarisations[0]
    if binarisation not in spec.binarisations:
        raise DataError(
            f"data set {name} has no {binarisation!r} binarisation; it has: {', '.join(spec.binarisations)}"
        )
    return spec.loader(None if data_dir is None else Path(data_dir), binarisation)
