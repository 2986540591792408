"""Runs every test of an op on both backends."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _backend(device: torch.device) -> None:
    """Gives `device` to the tests that do not take it too, so that the interpreter is on for them in their turn."""
