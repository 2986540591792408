"""Results in words and tables, and their file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvae_ext.benchmarks.case import describe
from dvae_ext.benchmarks.ceilings import HOW

Row = Mapping[str, Any]


def duration(seconds: float) -> str:
    scale, unit = next((x for x in ((1, "s"), (1e-3, "ms")) if seconds >= x[0]), (1e-6, "µs"))
    return f"{seconds / scale:.3g} {unit}"


def amount(value: float) -> str:
    scale, prefix = next((x for x in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= x[0]), (1, ""))
    return f"{value / scale:.3g} {prefix}".rstrip()


def ratio(values: Row) -> str:
    return f"{values['median']:.1f}× [{values['low']:.1f}-{values['high']:.1f}]"


def conditions(result: Row) -> str:
    """Hardware, threads, versions and load in a sentence."""
    facts = result["facts"]
    where = f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, largest cache {facts['cache']}"
    if "device" in facts:
        where = f"{facts['device']} (CUDA {facts['cuda']}, kernels for {facts['cuda architectures']}), beside {where}"
    load = " and ".join(f"{x:.1f}" for x in result["load"])
    state = "BUSY: other programs used" if result["busy"] else "quiet: other programs used"
    versions = f"dvae_ext {facts['dvae_ext']}, torch {facts['torch']}, Python {facts['python']}"
    advice = "; read the ratios, not the times." if result["busy"] else "."
    return (
        f"{where}; {versions}, CPU kernels {facts['cpu kernels']}; float32 where no type is named; {facts['date']}. "
        f"The machine was {state} {load} processors at the start and the end{advice}"
    )


def ceiling_lines(ceilings: Mapping[str, float]) -> list[str]:
    return [
        f"  {name:<17} {ceilings[name] / 1e9:8.1f} {unit:<10} {how}"
        for name, (unit, how) in HOW.items()
        if name in ceilings
    ]


def work_words(work: Mapping[str, float]) -> str:
    words = {"memory": "moves {}B", "elementary": "{} elementary functions", "philox": "{} Philox words"}
    return ", ".join(words.get(name, "{} operations of a " + name).format(amount(x)) for name, x in work.items())


def row_lines(row: Row) -> list[str]:
    """A case as it is printed when it has been measured."""
    lines = [
        f"{row['op']}: {describe(row['size'])} ({row['measured']})",
        f"  needs at least: {work_words(row['work'])}",
        f"  floor {duration(row['floor']['seconds'])} by {row['floor']['ceiling']}, {row['fraction']:.0%} reached",
    ]
    for name, seconds in row["seconds"].items():
        line = f"  {name:<18} {duration(seconds['median']):>9}"
        if row["rate"]:
            unit, count = row["rate"]
            line += f"  {count / seconds['median']:>9.4g} {unit}"
        lines.append(line + (f"   {ratio(row['ratios'][name])}" if name != "ops" else ""))
    lines += [f"  {name:<18} not timed: {reason}" for name, reason in row["skipped"].items()]
    return lines


def summary(rows: Sequence[Row]) -> list[str]:
    """The table at the end: how many times as long every baseline takes."""
    names = list(dict.fromkeys(name for row in rows for name in row["ratios"]))
    head = ["op", "size", "ops", "of floor", *names]
    body = [
        [
            row["op"],
            describe(row["size"]),
            duration(row["seconds"]["ops"]["median"]),
            f"{row['fraction']:.0%}",
            *(f"{row['ratios'][name]['median']:.1f}×" if name in row["ratios"] else "" for name in names),
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *body]
    ]


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Writes all of it or, if interrupted, nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(rounded(result), file, indent=1, ensure_ascii=False)
            file.write("\n")
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def rounded(value: Any) -> Any:
    """Five digits are more than any of these numbers has."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
