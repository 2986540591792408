"""Builds the source distribution, installs it into a folder of its own and imports it from there.

It holds every file that git has, so that what the Makefile offers works in the unpacked archive too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROBE = """
import torch, dvae_ext
from dvae_ext import ops, _native
assert not _native.interpreter_built(), "a wheel must not carry the interpreter"
print(dvae_ext.__file__, ops.overlap_exponential_icdf(torch.tensor([0.5]), torch.zeros(1), 8.0).item())
"""


def main() -> None:
    if not (ROOT / ".git").exists():
        sys.exit(f"the source distribution is compared with git's files, and {ROOT} is no git checkout")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        archive = next(folder.glob("*.tar.gz"))
        with tarfile.open(archive) as packed:
            held = {member.split("/", 1)[1] for member in packed.getnames() if "/" in member}
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        tracked = listing.stdout.split("\0")[:-1]
        missing = sorted(set(tracked) - held)
        if missing:
            sys.exit(f"the source distribution lacks {', '.join(missing)}")
        site = folder / "site"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps"]
        # Whether it compiles is the question; optimising would take twice the time.
        quick = {**os.environ, "CXXFLAGS": "-O1"}
        subprocess.run([*install, "--target", str(site), str(archive)], check=True, env=quick)
        # What would switch the interpreter on in a build that has it.
        environment = {**os.environ, "PYTHONPATH": str(site), "DVAE_EXT_INTERPRET": "1"}
        subprocess.run([sys.executable, "-c", PROBE], check=True, cwd=folder, env=environment)
    print("the source distribution is complete and installs")


if __name__ == "__main__":
    main()
