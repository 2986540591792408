"""``make bench``: every op, its scaling and other packages, in one JSON file for this machine.

    python -m bench.collect [OUT.json]

``tools/measured.py`` makes docs/performance.md and the README's table of it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from bench import peers
from dvae_ext.benchmarks import machine
from dvae_ext.benchmarks.command import measure
from dvae_ext.benchmarks.report import write_json

COMPILE_SECONDS = 360.0  # of the 15 minutes; rows that begin later are measured without torch.compile
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="default: bench/results/MACHINE.json")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    out = options.out or RESULTS / machine.file_name(torch.device("cpu"))
    result = measure([], scaling=True, compile_seconds=COMPILE_SECONDS, turn_seconds=3.0)
    result["peers"] = peers.measure(torch.get_num_threads())
    write_json(out, result)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
