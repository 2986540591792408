"""``make profile OP=...``: where an op spends its time.

    python -m bench.profile OP [--size N] [--device cpu|cuda] [--seconds S] [--out DIR]

On the CPU: ``perf`` samples the process; the hottest functions are printed, and DIR/OP.svg is a flame graph, drawn
here. Where perf may not or cannot run, ``valgrind --tool=callgrind`` counts instructions instead. On a GPU ``ncu``
writes DIR/OP.ncu-rep for the op's own kernels. bench/README.md says how to read them.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dvae_ext.benchmarks.case import Benchmark
from dvae_ext.benchmarks.catalogue import BENCHMARKS

CHILD = "--child"
ROW, WIDTH, NARROWEST = 16, 1200, 1.0  # pixels of the flame graph


def repeat(benchmark: Benchmark, size: int, device_name: str, seconds: float) -> None:
    """What is profiled: the op again and again, in a process of its own, from the line "ready" on."""
    import torch

    device = torch.device(device_name)
    run = benchmark.build(device, **benchmark.table_sizes(device)[size]).implementations["ops"]()
    run()
    print("ready", flush=True)
    end = time.perf_counter() + seconds
    calls = 0
    while calls < 2 or time.perf_counter() < end:
        run()
        calls += 1
    if device.type == "cuda":
        torch.cuda.synchronize()


def fold(script: str) -> Counter[tuple[str, ...]]:
    """Samples by stack, outermost function first, from the text of ``perf script -F comm,ip,sym``."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for block in script.split("\n\n"):
        frames = []
        for line in block.splitlines():
            if found := re.match(r"\s+[0-9a-f]+ (.+)$", line):
                frames.append(shorten(found.group(1)))
        if frames:
            stacks[tuple(reversed(frames))] += 1
    return stacks


def shorten(symbol: str) -> str:
    """A C++ name without its arguments and offsets."""
    symbol = re.sub(r"\+0x[0-9a-f]+$", "", symbol.strip())
    while (shorter := re.sub(r"<[^<>]*>|\([^()]*\)", "", symbol)) != symbol and shorter.strip(" :"):
        symbol = shorter
    return symbol.strip() or "[unknown]"


def flame_graph(stacks: Counter[tuple[str, ...]], title: str) -> str:
    """An SVG in which the width of a box is the share of samples that were in the function or what it called."""
    total = sum(stacks.values())
    boxes: list[tuple[int, float, float, str]] = []

    def place(group: list[tuple[tuple[str, ...], int]], depth: int, left: float) -> None:
        children: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for stack, count in group:
            if len(stack) > depth:
                children.setdefault(stack[depth], []).append((stack, count))
        for name, members in sorted(children.items()):
            share = sum(count for _, count in members) / total
            if share * WIDTH >= NARROWEST:
                boxes.append((depth, left, share, name))
                place(members, depth + 1, left)
            left += share

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    place(list(stacks.items()), 0, 0.0)
    sys.setrecursionlimit(limit)
    deepest = max((depth for depth, *_ in boxes), default=0)
    height = ROW * (deepest + 3)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="monospace" font-size="11">',
        f'<text x="4" y="{ROW - 4}">{html.escape(title)}</text>',
    ]
    for depth, left, share, name in boxes:
        x, y, width = left * WIDTH, height - ROW * (depth + 1), share * WIDTH
        hue = 10 + sum(map(ord, name)) % 45
        text = html.escape(name)
        label = html.escape(name[: int(width / 7)]) if width > 30 else ""
        lines.append(
            f'<g><title>{text}, {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" '
            f'fill="hsl({hue},80%,65%)"/><text x="{x + 2:.1f}" y="{y + 11}">{label}</text></g>'
        )
    return "\n".join([*lines, "</svg>\n"])


def hottest(stacks: Counter[tuple[str, ...]], count: int = 12) -> list[str]:
    """Functions by the share of samples inside them, calls excluded."""
    own: Counter[str] = Counter()
    for stack, samples in stacks.items():
        own[stack[-1]] += samples
    return [f"{samples / sum(own.values()):6.1%}  {name[:100]}" for name, samples in own.most_common(count)]


def run(command: Iterable[str | Path], **options: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], text=True, check=False, **options)  # type: ignore[call-overload]


def profile_with_perf(child: list[str], out: Path, title: str, seconds: float) -> str | None:
    """Records and draws; returns why it could not, or None."""
    if shutil.which("perf") is None:
        return "perf is not installed (Debian: apt install linux-perf)"
    data = out.with_suffix(".perf")
    with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            return "the op's process ended before its first run"
        attach = ["perf", "record", "--quiet", "-F", "499", "-g", "-o", data, "-p", str(process.pid)]
        done = run([*attach, "--", "sleep", str(seconds)], capture_output=True)
        process.kill()
    if done.returncode != 0 or not data.exists():
        return f"perf record failed: {(done.stderr.strip().splitlines() or ['no message'])[0]}"
    script = run(["perf", "script", "-i", data, "-F", "comm,ip,sym"], capture_output=True)
    stacks = fold(script.stdout)
    if not stacks:
        return "perf recorded no samples (in a virtual machine without counters, for example)"
    out.with_suffix(".svg").write_text(flame_graph(stacks, title))
    print("\n".join(hottest(stacks)))
    print(f"{sum(stacks.values())} samples; flame graph: {out.with_suffix('.svg')}, data: {data}")
    return None


def profile_with_callgrind(child: list[str], out: Path) -> str | None:
    """Counts instructions; returns why it could not, or None."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed (Debian: apt install valgrind)"
    data = out.with_suffix(".callgrind")
    done = run(["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={data}", *child], capture_output=True)
    if done.returncode != 0:
        return f"valgrind failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    annotated = run(["callgrind_annotate", data], capture_output=True)
    print("\n".join(annotated.stdout.splitlines()[:40]))
    print(f"counts: {data} (kcachegrind shows them; valgrind has no AVX-512, so the AVX2 kernels were counted)")
    return None


def profile_with_ncu(child: list[str], out: Path) -> str | None:
    if shutil.which("ncu") is None:
        return "ncu is not installed: it comes with the CUDA toolkit as Nsight Compute"
    command = ["ncu", "--set", "full", "--kernel-name", "regex:dvae_ext|_kernel", "--launch-count", "4"]
    done = run([*command, "--force-overwrite", "--export", out.with_suffix(".ncu-rep"), *child])
    return None if done.returncode == 0 else f"ncu ended with status {done.returncode}; it may need permission"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("op", nargs="?", help=", ".join(BENCHMARKS))
    parser.add_argument("--size", type=int, default=0, help="which of the op's sizes, from 0")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=Path("build/profile"))
    parser.add_argument(CHILD, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.op not in BENCHMARKS:
        what = "name an op" if options.op is None else f"unknown op {options.op!r}"
        print(f"make profile: {what}: make profile OP=...; known: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    if options.child:
        repeat(BENCHMARKS[options.op], options.size, options.device, options.seconds)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out / options.op
    common = ["-m", "bench.profile", options.op, "--size", str(options.size), "--device", options.device, CHILD]
    child = [sys.executable, *common, "--seconds"]
    if options.device == "cuda":
        reasons = [profile_with_ncu([*child, "0"], out)]
    else:
        title = f"{options.op}, {options.seconds:g} s"
        reasons = [profile_with_perf([*child, str(options.seconds + 60)], out, title, options.seconds)]
        if reasons[0] is not None:
            print(f"{reasons[0]}; counting instructions instead, which takes minutes", file=sys.stderr)
            # Two calls only: valgrind is fifty times slower.
            reasons.append(profile_with_callgrind([*child, "0"], out))
    if reasons[-1] is None:
        return 0
    print(f"make profile: {reasons[-1]}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
