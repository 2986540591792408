"""The entry of ``dvae-ext``: ``bench`` needs torch and numpy alone, the other commands the train extra."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see cli.py; to be set before torch is loaded

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] == ["bench"]:
        from dvae_ext.benchmarks.command import Mistake
        from dvae_ext.benchmarks.command import main as bench

        try:
            bench(args[1:])
            return 0
        except (Mistake, OSError) as error:
            print(f"dvae-ext: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\ndvae-ext: stopped", file=sys.stderr)
            return 130
    from dvae_ext.cli import main as command

    return command(args)


if __name__ == "__main__":
    sys.exit(main())
