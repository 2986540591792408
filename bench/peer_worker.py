"""One other package in a process of its own: ``python bench/peer_worker.py NAME``, driven by bench/peers.py.

It needs torch or numpy and the package, not dvae_ext. A line of JSON on stdin says what to prepare; the answer is
``{"ready": ...}`` after a first run. Then every line ``run`` is answered by the seconds of one run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[], Any]
Model = tuple[np.ndarray, np.ndarray, np.ndarray]  # W [n_visible, n_hidden], visible and hidden biases


def spins(model: Model) -> Model:
    """Couplings and fields of the same machine over spins s = 2 v - 1."""
    weight, a, b = model
    return weight / 4, a / 2 + weight.sum(1) / 4, b / 2 + weight.sum(0) / 4


def scikit_learn(model: Model, chains: int, sweeps: int) -> Run:
    from sklearn.neural_network import BernoulliRBM

    machine = BernoulliRBM()
    machine.components_, machine.intercept_visible_, machine.intercept_hidden_ = model[0].T.copy(), model[1], model[2]
    machine.random_state_ = np.random.RandomState(0)

    def run() -> np.ndarray:
        visible = np.zeros((chains, len(model[1])), np.float32)
        for _ in range(sweeps):
            visible = machine.gibbs(visible)
        return visible

    return run


def rbms_machine(model: Model) -> Any:
    import torch
    from rbms.bernoulli_bernoulli.classes import BBRBM

    return BBRBM(*(torch.from_numpy(x) for x in model))


def rbms(model: Model, chains: int, sweeps: int) -> Run:
    machine = rbms_machine(model)
    state = machine.init_chains(num_samples=chains)
    return lambda: machine.sample_state(n_steps=sweeps, chains=state)["visible"].numpy()


def dwave(model: Model, chains: int, sweeps: int) -> Run:
    from dwave.plugins.torch.models import GraphRestrictedBoltzmannMachine
    from dwave.plugins.torch.samplers import BlockSampler

    coupling, visible, hidden = spins(model)
    n = len(visible)
    edges = {(i, n + j): -float(coupling[i, j]) for i in range(n) for j in range(len(hidden))}
    fields = dict(enumerate(-np.concatenate([visible, hidden]).astype(float)))
    machine = GraphRestrictedBoltzmannMachine(range(n + len(hidden)), edges, linear=fields, quadratic=edges)
    sampler = BlockSampler(machine, lambda node: int(node < n), chains, [1.0] * sweeps, seed=0)
    return lambda: (sampler.sample()[:, :n].detach().numpy() + 1) / 2


def thrml(model: Model, chains: int, sweeps: int) -> Run:
    import jax
    import jax.numpy as jnp
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram, hinton_init

    coupling, visible, hidden = spins(model)
    v, h = [SpinNode() for _ in visible], [SpinNode() for _ in hidden]
    edges = [(a, b) for a in v for b in h]
    machine = IsingEBM(
        [*v, *h], edges, jnp.concatenate([visible, hidden]), jnp.asarray(coupling.ravel()), jnp.array(1.0)
    )
    program = IsingSamplingProgram(machine, [Block(h), Block(v)], clamped_blocks=[])
    start = hinton_init(jax.random.key(0), machine, program.gibbs_spec.free_blocks, (chains,))
    schedule = SamplingSchedule(n_warmup=sweeps, n_samples=1, steps_per_sample=1)

    @jax.jit
    def sample(keys: Any) -> Any:
        return jax.vmap(lambda key, state: sample_states(key, program, schedule, state, [], [Block(v)])[0][0])(
            keys, start
        )

    keys = jax.random.split(jax.random.key(1), chains)
    return lambda: np.asarray(sample(keys)).astype(np.float32)


GIBBS = {"scikit-learn": scikit_learn, "rbms": rbms, "dwave-pytorch-plugin": dwave, "thrml": thrml}


def rbms_ais(model: Model, chains: int, betas: int) -> Run:
    from rbms.partition_function.ais import compute_partition_function_ais

    machine = rbms_machine(model)
    return lambda: compute_partition_function_ais(chains, betas, machine)


def prepare(name: str, task: dict[str, Any]) -> Run:
    model = tuple(np.load(task["model"])[key] for key in ("weight", "visible_bias", "hidden_bias"))
    if "betas" in task:
        return rbms_ais(model, task["chains"], task["betas"])
    return GIBBS[name](model, task["chains"], task["sweeps"])


def main() -> None:
    task = json.loads(sys.stdin.readline())
    answers, sys.stdout = sys.stdout, sys.stderr  # a package may print
    if "threads" in task:
        try:
            import torch

            torch.set_num_threads(task["threads"])
        except ImportError:
            pass
    try:
        run = prepare(sys.argv[1], task)
        first = run()
        ready = float(np.mean(first))
    except Exception as error:
        print(
            json.dumps({"failed": f"{type(error).__name__}: {error}".split("\n", 1)[0][:200]}), file=answers, flush=True
        )
        return
    print(json.dumps({"ready": ready}), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        value = run()
        print(json.dumps([time.perf_counter() - started, float(np.mean(value))]), file=answers, flush=True)


if __name__ == "__main__":
    main()
