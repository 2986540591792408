"""Block Gibbs and log Z of other packages (the ``peers`` extra), each in a process of its own with the same threads.

    python -m bench.peers

PEERS_PYTHON names the Python that has them, where they are in an environment of their own. What cannot be imported is
left out with its reason. The packages and the op take turns, each process waiting while another runs.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dvae_ext.benchmarks.rbm_gibbs import ORACLE_CHAINS, expected_mean, op_run, parameters
from dvae_ext.rbm import log_z

WORKER = Path(__file__).with_name("peer_worker.py")
CHAINS, SWEEPS, ROUNDS = 1000, 40, 3
SHAPES = [(64, 64), (200, 200), (784, 500)]
# A sweep of the graph samplers takes so long that fewer have to do; 784 × 500 takes minutes to set up.
SWEEPS_OF = {"dwave-pytorch-plugin": 2, "thrml": 4}
LARGEST = {"dwave-pytorch-plugin": 200, "thrml": 200}
PEERS = ("scikit-learn", "rbms", "dwave-pytorch-plugin", "thrml")
PATIENCE = 120.0  # seconds in all for a package at one shape
NOTE = (
    "Measured in turns, each package in a process of its own with the same number of threads; 1000 chains, float32, "
    f"{SWEEPS} sweeps a call ({', '.join(f'{n} for {name}' for name, n in SWEEPS_OF.items())})."
)


class Peer:
    """A worker process that has made its first run."""

    def __init__(self, name: str, task: dict[str, Any], threads: int) -> None:
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(variables, str(threads)), "JAX_PLATFORMS": "cpu"}
        environment["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"
        command = [os.environ.get("PEERS_PYTHON", sys.executable), str(WORKER), name]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.started = time.perf_counter()
        answer = self.ask(json.dumps({**task, "threads": threads}))
        if "failed" in answer:
            self.close()
            raise RuntimeError(answer["failed"])
        self.first = answer["ready"]

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"its process ended with status {self.process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def save_model(path: Path, weight: torch.Tensor, visible_bias: torch.Tensor, hidden_bias: torch.Tensor) -> None:
    np.savez(path, weight=weight.numpy(), visible_bias=visible_bias.numpy(), hidden_bias=hidden_bias.numpy())


def gibbs(shape: tuple[int, int], threads: int, folder: Path, skipped: dict[str, str]) -> dict[str, Any]:
    """Million unit updates a second of each package and of the op, in turns."""
    arguments = parameters(*shape)
    save_model(folder / "model.npz", *arguments)
    mean, deviation = expected_mean(arguments, SWEEPS)
    peers, sweeps = {}, {"ops": SWEEPS}
    for name in PEERS:
        label = f"{name}, {shape[0]} × {shape[1]}"
        if max(shape) > LARGEST.get(name, max(shape)):
            skipped[label] = "which would take minutes"
            continue
        if name in skipped:
            continue
        sweeps[name] = SWEEPS_OF.get(name, SWEEPS)
        task = {"model": str(folder / "model.npz"), "chains": CHAINS, "sweeps": sweeps[name]}
        try:
            peer = Peer(name, task, threads)
        except (RuntimeError, OSError) as error:
            missing = "ModuleNotFoundError" in str(error)
            skipped[name if missing else label] = str(error)
            print(f"{name if missing else label}: {error}", flush=True)
            continue
        if abs(peer.first - mean) > 6 * deviation * (1 / CHAINS + 1 / ORACLE_CHAINS) ** 0.5 + 0.01:
            skipped[label] = f"wrong result: {peer.first:.3f} of the visible units are on, expected {mean:.3f}"
            peer.close()
            continue
        peers[name] = peer
    run = op_run(arguments, CHAINS, SWEEPS)
    run()
    times: dict[str, list[float]] = {name: [] for name in ("ops", *peers)}
    started = time.perf_counter()
    for done in range(ROUNDS):
        if done and time.perf_counter() - started > PATIENCE:
            break
        begin = time.perf_counter()
        run()
        times["ops"].append(time.perf_counter() - begin)
        for name, peer in peers.items():
            times[name].append(peer.ask("run")[0])
    for peer in peers.values():
        peer.close()
    updates = CHAINS * sum(shape) / 1e6
    rate = {name: updates * sweeps[name] / statistics.median(values) for name, values in times.items()}
    print(f"{shape[0]} × {shape[1]}: " + ", ".join(f"{n} {r:.4g}" for n, r in rate.items()), flush=True)
    return {"size": {"visible": shape[0], "hidden": shape[1]}, "rate": rate}


def summarise(method: str, model: str, exact: float, runs: list[tuple[float, float]]) -> dict[str, Any]:
    errors = [value - exact for _, value in runs]
    rmse = math.sqrt(statistics.fmean(e * e for e in errors))
    seconds = statistics.median(s for s, _ in runs)
    print(f"{method}: root-mean-square error {rmse:.4f} nats, {seconds:.2f} s", flush=True)
    return {"method": method, "model": model, "exact": exact, "rmse": rmse, "seconds": seconds, "runs": len(runs)}


def log_z_rows(threads: int, folder: Path, skipped: dict[str, str], runs: int = 8) -> list[dict[str, Any]]:
    """Error and time on an RBM whose log Z is known by enumeration."""
    generator = torch.Generator().manual_seed(0)
    arguments = [torch.randn(shape, generator=generator) for shape in ((20, 200), (20,), (200,))]
    arguments[0] /= 3
    save_model(folder / "log_z.npz", *arguments)
    rbm = SimpleNamespace(weight=arguments[0], visible_bias=arguments[1], hidden_bias=arguments[2])
    model, exact = "20 × 200", log_z(rbm, "exact").value
    own, theirs, betas, chains = [], [], 1000, 100
    try:
        task = {"model": str(folder / "log_z.npz"), "chains": chains, "betas": betas}
        peer = None if "rbms" in skipped else Peer("rbms", task, threads)
    except (RuntimeError, OSError) as error:
        skipped["rbms, log Z"], peer = str(error), None
    for seed in range(runs):
        begin = time.perf_counter()
        value = log_z(rbm, sweeps=1024, seed=seed).value
        own.append((time.perf_counter() - begin, value))
        if peer is not None:
            theirs.append(tuple(peer.ask("run")))
    rows = [summarise("dvae_ext, parallel tempering, 1024 sweeps", model, exact, own)]
    if peer is not None:
        peer.close()
        rows.append(summarise(f"rbms, AIS, {chains} chains × {betas} temperatures", model, exact, theirs))
    return rows


def measure(threads: int) -> dict[str, Any]:
    """What a file of results holds under "peers"."""
    skipped: dict[str, str] = {}
    print("other packages, million unit updates a second:", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [gibbs(shape, threads, folder, skipped) for shape in SHAPES]
        return {"note": NOTE, "gibbs": rows, "log_z": log_z_rows(threads, folder, skipped), "skipped": skipped}


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(json.dumps(measure(torch.get_num_threads()), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
