"""Readers of the original file formats. Every failure names the file, what was expected and where it is published."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import DataError


@dataclass(frozen=True)
class Source:
    """Where the files of a data set lie and where they are published.

    Args:
        folders: Subfolders of the data directory to look in, after the data directory itself.
        published: Address to name when a file is missing or damaged.
    """

    folders: tuple[str, ...]
    published: str

    def find(self, data_dir: Path, names: tuple[str, ...]) -> Path:
        """First existing file among ``names``, in ``data_dir`` itself and then in the subfolders."""
        for folder in (".", *self.folders):
            for name in names:
                path = data_dir / folder / name
                if path.is_file():
                    return path
        if not data_dir.is_dir():
            raise DataError(f"data directory {data_dir} does not exist; it should hold {names[0]} ({self.published})")
        places = ", ".join(f"{folder}/" for folder in self.folders)
        raise DataError(
            f"no {' or '.join(names)} in {data_dir} or its subfolders {places}; it is published at {self.published}"
        )

    def damaged(self, path: Path, what: str) -> DataError:
        """The error to raise for a file that cannot be what it should be."""
        return DataError(f"{path} is damaged or not the expected file: {what}. Original: {self.published}")


def read_bytes(path: Path, source: Source) -> bytes:
    """Content of a file, decompressed when its name ends in ``.gz``."""
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as stream:
            return stream.read()
    except EOFError:
        raise source.damaged(path, "the compressed stream ends early, the file was cut short") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise source.damaged(path, f"not a valid gzip stream ({error})") from None


def read_amat(path: Path, rows: int, columns: int, source: Source) -> np.ndarray:
    """Text of "0" and "1" separated by single spaces, one image a line: uint8 ``[rows, columns]``."""
    content = np.frombuffer(read_bytes(path, source), np.uint8)
    expected = rows * columns * 2
    if content.size != expected:
        raise source.damaged(path, f"{content.size} bytes of text, expected {expected} ({rows} lines of {columns})")
    pairs = content.reshape(rows, columns, 2)
    values, separators = pairs[..., 0] - ord("0"), pairs[..., 1]
    if values.max() > 1 or np.any(separators[:, :-1] != ord(" ")) or np.any(separators[:, -1] != ord("\n")):
        raise source.damaged(path, f"expected lines of {columns} values 0 or 1 separated by single spaces")
    return values


def read_idx_images(path: Path, rows: int, source: Source) -> np.ndarray:
    """IDX file of 28x28 images: float32 ``[rows, 784]`` in [0, 1]."""
    content = read_bytes(path, source)
    header = np.frombuffer(content[: len(content[:16]) // 4 * 4], ">u4")
    if header.size != 4 or header[0] != 0x803:
        raise source.damaged(path, "it does not start with the IDX header of an image file (magic number 0x00000803)")
    if tuple(header[1:]) != (rows, 28, 28):
        shape = "x".join(str(size) for size in header[1:])
        raise source.damaged(path, f"its header announces {shape} values, expected {rows}x28x28")
    expected = 16 + rows * 784
    if len(content) != expected:
        raise source.damaged(path, f"{len(content)} bytes, expected {expected} ({rows} images of 28x28)")
    return np.frombuffer(content, np.uint8, offset=16).reshape(rows, 784).astype(np.float32) / np.float32(255)


def read_mat(path: Path, shapes: Mapping[str, tuple[int, ...]], source: Source) -> dict[str, np.ndarray]:
    """Variables of a MATLAB 5 file, their shapes checked."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=list(shapes))
    except Exception as error:  # SciPy raises many kinds of errors on a damaged file
        raise source.damaged(path, f"cannot be read as a MATLAB file ({type(error).__name__}: {error})") from None
    return {name: checked(path, content, name, shape, source) for name, shape in shapes.items()}


def read_npz(path: Path, shapes: dict[str, tuple[int, ...]], source: Source) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file, their shapes checked."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {name: archive[name] for name in shapes if name in archive}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds of errors on a damaged file
        raise source.damaged(path, f"cannot be read as .npz ({type(error).__name__}: {error})") from None
    return {name: checked(path, content, name, shape, source) for name, shape in shapes.items()}


def checked(path: Path, content: dict, name: str, shape: tuple[int, ...], source: Source) -> np.ndarray:
    """One variable of a file, or an error that says what it lacks."""
    if name not in content:
        raise source.damaged(path, f"it holds no variable {name!r}")
    array = np.asarray(content[name])
    if array.shape != shape:
        raise source.damaged(path, f"variable {name!r} has shape {array.shape}, expected {shape}")
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_) or not np.all(np.isfinite(array)):
        raise source.damaged(path, f"variable {name!r} holds values that are not finite numbers")
    return array
