"""The files of a run: complete or absent, never half written, and one process at a time that writes them."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .config import RunError

# Of file systems that know no locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """An error of the operating system inside becomes a sentence that names ``path``, which ``write`` would not.

    Raises:
        RunError: for every ``OSError`` inside.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot save {path}: {error.strerror or error}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that ``path`` holds either its old content or all of the new one, also after a power cut.

    Raises:
        RunError: if the disk is full or the folder is gone or not writable; ``path`` is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # another process may write the same file
    with saving(path):
        try:
            with open(temporary, "xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def locked(folder: Path) -> Iterator[str | None]:
    """Hold ``folder``: no other process can while this one lives, and its death ends it, ``kill -9`` too.

    Yields:
        None, or a sentence where the file system knows no locks.

    Raises:
        RunError: if a process holds it, or its file ``.lock`` cannot be written.
    """
    path = folder / ".lock"
    note = None
    while True:
        with saving(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(descriptor, 100).decode(errors="replace").strip() or "(unknown)"
                raise RunError(f"{folder} is in use by process {owner}") from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise RunError(f"cannot lock {path}: {error.strerror}") from error
                note = f"{path} cannot be locked ({error.strerror}): do not let two processes write to this run"
            if not _is_at(descriptor, path):  # whoever held it removed the file after we had opened it
                continue
            with saving(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()} on {os.uname().nodename}\n".encode(), 0)
            try:
                yield note
            finally:
                if _is_at(descriptor, path):
                    with suppress(OSError):
                        path.unlink()
            return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False
