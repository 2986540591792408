"""The CPU kernels for narrower instruction sets than this machine has: their accuracy tests in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPS = Path(__file__).parent
FILES = [
    "test_coarse_grain_kl.py",
    "test_coarse_grain_sample.py",
    "test_mutual_posterior_divergence.py",
    "test_overlap_exponential.py",
    "test_overlap_logistic.py",
    "test_pairwise_kl_bernoulli.py",
    "test_pairwise_kl_normal.py",
    "test_spike_exponential.py",
]


@pytest.mark.not_interpreted("chooses among the instruction sets of the CPU kernels")
@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_other_instruction_sets_are_as_accurate(isa: str) -> None:
    names = "(float32 or accuracy or zero_gradient) and not interpreter"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", names]
    result = subprocess.run(
        [*command, *(str(OPS / name) for name in FILES)],
        env={**os.environ, "DVAE_EXT_CPU": isa},
        cwd=OPS.parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-4000:]
