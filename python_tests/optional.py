"""Packages that the tests can do without: what needs one that is not installed is skipped, with the reason."""

from __future__ import annotations

from importlib.util import find_spec

NAMES = ("scipy", "sklearn", "matplotlib", "tyro", "tqdm", "tensorboard", "pymbar")


def reason(name: str) -> str:
    return f"{name} is not installed: pip install 'dvae_ext[test]'"


def missing(error: BaseException | None) -> str | None:
    """The reason to skip, if an import failed because an optional package is not there at all."""
    while error is not None:
        name = (getattr(error, "name", None) or "").split(".")[0]
        if isinstance(error, ImportError) and name in NAMES and not installed(name):
            return reason(name)
        error = error.__cause__
    return None


def installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False
