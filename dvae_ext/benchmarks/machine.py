"""What machine this is, and whether anything else keeps it busy."""

from __future__ import annotations

import os
import platform
import re
import time
from functools import cache
from pathlib import Path

import torch

from dvae_ext import info

BUSY = 0.5  # mean number of other programs' running threads above which a run is marked


def cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


@cache
def last_level_cache(device: torch.device) -> int:
    """Bytes of the largest cache, 32 MiB where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    return max((int(text[:-1]) * units[text[-1]] for text in sizes if text[-1:] in units), default=32 << 20)


def others_load(seconds: float = 0.5) -> float:
    """Mean number of processors that other programs use, watched for ``seconds`` while this one sleeps."""

    def used() -> int:
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return sum(fields[:3]) + sum(fields[5:8])  # all but idle and waiting for input

    try:
        before = used()
        time.sleep(seconds)
        return (used() - before) / os.sysconf("SC_CLK_TCK") / seconds
    except (OSError, ValueError):
        return os.getloadavg()[0]


def facts(device: torch.device) -> dict[str, str | int]:
    """What a table has to say of where it was measured."""
    collected = info.collect()
    result: dict[str, str | int] = {
        "processor": cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "cache": f"{last_level_cache(torch.device('cpu')) / (1 << 20):.0f} MiB",
        **{name: collected[name] for name in ("dvae_ext", "torch", "python", "cpu kernels")},
        "date": time.strftime("%Y-%m-%d"),
    }
    if device.type == "cuda":
        result |= {
            "device": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda or "none",
            "cuda architectures": collected["cuda architectures"],
        }
    return result


def file_name(device: torch.device) -> str:
    """The name of this machine's file of results."""
    if device.type == "cuda":
        return re.sub(r"\W+", "-", torch.cuda.get_device_name(device)).strip("-").lower() + ".json"
    kernels = str(info.collect()["cpu kernels"]).split(",")[0]
    return f"{platform.machine()}-{kernels}-{torch.get_num_threads()}threads.json"
