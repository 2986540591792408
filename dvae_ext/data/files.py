"""Readers of the original file formats. Every failure names the file, what was expected and where it is published."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

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


GZIP = b"\x1f\x8b"
MATLAB_7_3 = "a MATLAB 7.3 file (HDF5): save it again with save(..., '-v7') in MATLAB or scipy.io.savemat in Python"
# How files start that lie where another format is expected.
OTHER_FORMATS = {
    GZIP: "a gzip file: unpack it",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\xfd7zXZ\0": "an xz file: unpack it",
    b"BZh": "a bzip2 file: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it",
    b"MATLAB 7.3 MAT-file": MATLAB_7_3,
    b"\x89HDF\r\n": MATLAB_7_3,
    b"MATLAB 5.0 MAT-file": "a MATLAB 5 file",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with git lfs pull",
    b"<": "a web page: download the file itself",
}


def refuse_other_format(path: Path, content: bytes, source: Source) -> None:
    """Names the format of a file that starts as another one does."""
    for signature, what in OTHER_FORMATS.items():
        if content.startswith(signature):
            raise DataError(f"{path} is not the expected file but {what}. Original: {source.published}")


def read_bytes(path: Path, expected: int, source: Source) -> bytes:
    """Content of a file, decompressed where it is gzip, whatever its name: ``expected`` bytes and one, if it has more.

    A file of some megabytes can unpack to any size, and only what can be right is worth its memory.
    """
    with open(path, "rb") as stream:
        zipped = stream.read(len(GZIP)) == GZIP
        stream.seek(0)
        try:
            content = (gzip.GzipFile(fileobj=stream) if zipped else stream).read(expected + 1)
        except EOFError:
            raise source.damaged(path, "the compressed stream ends early, the file was cut short") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise source.damaged(path, f"not a valid gzip stream ({error})") from None
    refuse_other_format(path, content, source)
    return content


def size_words(content: bytes, expected: int) -> str:
    """How much :func:`read_bytes` found."""
    return f"more than {expected} bytes" if len(content) > expected else f"{len(content)} bytes"


def read_amat(path: Path, rows: int, columns: int, source: Source) -> np.ndarray:
    """Text of "0" and "1" separated by single spaces, one image a line: uint8 ``[rows, columns]``."""
    expected = rows * columns * 2
    content = read_bytes(path, expected, source)
    if len(content) != expected:
        raise source.damaged(
            path, f"{size_words(content, expected)} of text, expected {expected} ({rows} lines of {columns})"
        )
    pairs = np.frombuffer(content, np.uint8).reshape(rows, columns, 2)
    values, separators = pairs[..., 0] - ord("0"), pairs[..., 1]
    if values.max() > 1 or np.any(separators[:, :-1] != ord(" ")) or np.any(separators[:, -1] != ord("\n")):
        raise source.damaged(path, f"expected lines of {columns} values 0 or 1 separated by single spaces")
    return values


def idx_names(stem: str) -> tuple[str, ...]:
    """Names under which an IDX file is distributed: ``train-images-idx3-ubyte`` and with a dot, plain and zipped."""
    dotted = stem.replace("-idx", ".idx")
    return stem, stem + ".gz", dotted, dotted + ".gz"


def read_idx(path: Path, shape: tuple[int, ...], source: Source) -> np.ndarray:
    """IDX file of bytes: uint8 of ``shape``."""
    header = np.array([0x800 + len(shape), *shape], ">u4").tobytes()
    expected = len(header) + math.prod(shape)
    content = read_bytes(path, expected, source)
    if content[:4] != header[:4] or len(content) < len(header):
        raise source.damaged(path, f"it does not start with the IDX header of {len(shape)} dimensions of bytes")
    if content[: len(header)] != header:
        found = "x".join(map(str, np.frombuffer(content[4 : len(header)], ">u4")))
        raise source.damaged(path, f"its header announces {found} values, expected {'x'.join(map(str, shape))}")
    if len(content) != expected:
        raise source.damaged(path, f"{size_words(content, expected)}, expected {expected}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read_idx_images(path: Path, rows: int, source: Source) -> np.ndarray:
    """IDX file of 28x28 images: float32 ``[rows, 784]`` in [0, 1]."""
    return read_idx(path, (rows, 28, 28), source).reshape(rows, 784).astype(np.float32) / np.float32(255)


def read_mat(path: Path, shapes: Mapping[str, tuple[int, ...]], source: Source) -> dict[str, np.ndarray]:
    """Variables of a MATLAB 5 file, their shapes checked. No more is unpacked than they can hold.

    SciPy's reader allocates what a damaged file announces, and crashes on types of numbers that do not exist.
    """
    content = {}
    with open(path, "rb") as stream:
        header = stream.read(128)
        if not header.startswith(b"MATLAB 5.0 MAT-file"):
            refuse_other_format(path, header, source)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:])
        if order is None:
            raise source.damaged(path, "it does not start with the header of a MATLAB 5 file (save it with '-v7')")
        try:
            begin = len(header)
            while len(tag := stream.read(8)) == 8:
                kind, size = struct.unpack(order + "II", tag)
                # Flags, dimensions and name, which come before the numbers, have less than 512 bytes.
                name = mat_name(mat_element(stream, begin, kind, size, 512), order)
                if name in shapes:
                    limit = 8 * math.prod(shapes[name]) + 512
                    element = mat_element(stream, begin, kind, size, limit + 1)
                    if len(element) > limit:
                        raise ValueError(f"variable {name!r} has more bytes than an array of shape {shapes[name]}")
                    content[name] = mat_array(element, order)
                begin += 8 + size
                stream.seek(begin)
        except (ValueError, struct.error, zlib.error) as error:
            raise source.damaged(path, f"cannot be read as a MATLAB file ({error})") from None
    return {name: checked(path, content, name, shape, source) for name, shape in shapes.items()}


# How MATLAB 5 stores numbers, and the classes of arrays: numbers of any class may be stored as smaller ones.
MAT_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MAT_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
MAT_COMPLEX = 0x800


def mat_element(stream: BinaryIO, begin: int, kind: int, size: int, limit: int) -> bytes:
    """The first ``limit`` bytes, once unpacked, of the element whose tag lies at ``begin``."""
    if kind == 15:  # compressed; what deflate cannot compress grows by less than a thousandth
        stream.seek(begin + 8)
        return zlib.decompressobj().decompress(stream.read(min(size, limit + limit // 1000 + 512)), limit)
    stream.seek(begin)
    return stream.read(min(8 + size, limit))


def mat_parts(element: bytes, order: str) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of the elements in a matrix: flags, dimensions, name, numbers. The last may be cut short."""
    view, at = memoryview(element), 8
    while at + 8 <= len(view):
        kind, size = struct.unpack_from(order + "II", view, at)
        if kind >> 16:  # up to four bytes lie in the tag itself, their number in its upper half
            yield kind & 0xFFFF, view[at + 4 : at + 4 + min(kind >> 16, 4)]
            at += 8
        else:
            yield kind, view[at + 8 : at + 8 + size]
            at += 8 + -(-size // 8) * 8


def mat_name(element: bytes, order: str) -> str:
    """Name of the variable in an element; "" where it has none."""
    parts = list(islice(mat_parts(element, order), 3))
    return bytes(parts[2][1]).decode("latin-1") if len(parts) == 3 else ""


def mat_array(element: bytes, order: str) -> np.ndarray:
    """The full array of real numbers that a matrix element holds."""
    parts = list(islice(mat_parts(element, order), 4))
    if len(parts) < 4 or struct.unpack_from(order + "I", element, 4)[0] != len(element) - 8:
        raise ValueError("a variable ends early")
    (_, flags), (_, dimensions), _, (kind, numbers) = parts
    word = struct.unpack_from(order + "I", flags)[0]
    if word & 0xFF not in MAT_CLASSES or word & MAT_COMPLEX or kind not in MAT_NUMBERS:
        raise ValueError("a variable is no full array of real numbers")
    array = np.frombuffer(numbers, order + MAT_NUMBERS[kind])
    shape = tuple(np.frombuffer(dimensions, order + "i4").tolist())
    return array.reshape(shape, order="F").astype(MAT_CLASSES[word & 0xFF], copy=False)


def read_npz(path: Path, shapes: Mapping[str, tuple[int, ...]], source: Source) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file, their shapes checked. No more is unpacked than they can hold."""
    content = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in shapes:
                if f"{name}.npy" not in archive.namelist():
                    continue
                member = archive.getinfo(f"{name}.npy")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{member.filename} is not compressed as NumPy does")
                limit = 8 * math.prod(shapes[name]) + 4096  # numbers of 8 bytes after a header
                with archive.open(member) as stream:
                    data = stream.read(limit + 1)
                if len(data) > limit:
                    raise ValueError(f"{member.filename} has more than {limit} bytes, expected shape {shapes[name]}")
                content[name] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds of errors on a damaged file
        with open(path, "rb") as stream:
            start = stream.read(32)
        if not start.startswith(b"PK"):
            refuse_other_format(path, start, source)
        raise source.damaged(path, f"cannot be read as .npz ({type(error).__name__}: {error})") from None
    return {name: checked(path, content, name, shape, source) for name, shape in shapes.items()}


def checked(path: Path, content: dict, name: str, shape: tuple[int, ...], source: Source) -> np.ndarray:
    """One variable of a file, or an error that says what it lacks."""
    if name not in content:
        raise source.damaged(path, f"it holds no variable {name!r}")
    array = np.asarray(content[name])
    if array.shape != shape:
        raise source.damaged(path, f"variable {name!r} has shape {array.shape}, expected {shape}")
    if array.dtype.kind not in "biuf" or not np.all(np.isfinite(array)):
        raise source.damaged(path, f"variable {name!r} holds values that are not finite real numbers")
    return array
