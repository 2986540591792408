"""make gpu, as far as a machine without a GPU can tell: its stages, its comparisons, its judgements."""

import re
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from bench import gpu, gpu_checks
from dvae_ext import _native
from dvae_ext.benchmarks.catalogue import BENCHMARKS
from dvae_ext.data import DataInfo
from dvae_ext.models.dvae import DVAE, DVAEConfig

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_it_says_so_in_a_sentence(capsys):
    assert gpu.main([]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"make gpu needs (a CUDA device, and torch \S+, which .*, finds none|.* for /)", error)


def test_a_missing_package_is_named(monkeypatch):
    found = gpu.importlib.util.find_spec
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None if name == "pybind11" else found(name))
    assert "needs pybind11" in gpu.obstacle() or "pytest-benchmark" in gpu.obstacle()


def test_an_unknown_stage_is_named(capsys):
    assert gpu.main(["benhc"]) == 2
    assert "unknown stage 'benhc'; known: build, test" in capsys.readouterr().err


def stages(**outcomes):
    calls = []

    def make(name, failure):
        def stage():
            calls.append(name)
            if failure:
                raise gpu.Failure(failure)

        return stage

    return {name: make(name, failure) for name, failure in outcomes.items()}, calls


def test_every_stage_reports_and_a_failure_does_not_stop_the_others(capsys):
    chosen, calls = stages(build=None, draws="2 rows differ", bench=None)
    outcomes = gpu.run_stages(list(chosen), chosen)
    assert calls == ["build", "draws", "bench"]
    assert outcomes["draws"] == "FAILED: 2 rows differ (0 s)"
    assert outcomes["bench"] == "passed (0 s)"
    assert "== draws: FAILED" in capsys.readouterr().out


def test_nothing_runs_after_a_failed_build():
    chosen, calls = stages(build="no nvcc", test=None)
    assert list(gpu.run_stages(list(chosen), chosen)) == ["build"]
    assert calls == ["build"]


def test_commands_that_fail_or_hang_are_failures():
    gpu.run(["true"], 5)
    with pytest.raises(gpu.Failure, match="false ended with status 1"):
        gpu.run(["false"], 5)
    with pytest.raises(gpu.Failure, match="did not end within 0 s"):
        gpu.run(["sleep", "9"], 0.1)


def test_no_stage_goes_beyond_the_time_of_all(monkeypatch):
    monkeypatch.setattr(gpu, "STARTED", gpu.time.perf_counter() - gpu.LIMIT - 1)
    with pytest.raises(gpu.Failure, match="480 s for all stages were used up"):
        gpu.run(["true"], 5)


@pytest.fixture(autouse=True)
def started_now(monkeypatch):
    monkeypatch.setattr(gpu, "STARTED", gpu.time.perf_counter())


def test_tools_of_the_toolkit(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gpu.Failure, match="compute-sanitizer was found neither"):
        gpu.tool("compute-sanitizer")
    (tmp_path / "compute-sanitizer").mkdir()
    program = tmp_path / "compute-sanitizer" / "compute-sanitizer"
    program.touch()
    assert Path(gpu.tool("compute-sanitizer")) == program


def test_fragments_are_compared_wrapper_by_wrapper(capsys):
    gpu.compare_fragments("x1 1 2\nx2 3\n", "x1 1 2\nx2 3\n")
    assert "2 wrappers" in capsys.readouterr().out
    with pytest.raises(gpu.Failure, match=r"interpreter's: x2$"):
        gpu.compare_fragments("x1 1 2\nx2 3\n", "x1 1 2\nx2 4\n")


@pytest.fixture
def interpreter():
    if not _native.interpreter_built():
        pytest.skip("the interpreter is built in place only: python setup.py build_ext --inplace")
    yield
    _native.set_interpreter(False)


def test_cpu_and_cuda_kernels_draw_the_same(interpreter, monkeypatch):
    # A part of what the GPU compares: the interpreter takes 1000 times as long.
    monkeypatch.setitem(gpu_checks.DRAWS, "rbm_gibbs_", (lambda d: gpu_checks.gibbs_states(d, (9, 13), 2), 0.01))
    monkeypatch.setattr(
        gpu_checks, "DRAWS", {name: gpu_checks.DRAWS[name] for name in ("rbm_gibbs_", "coarse_grain_sample")}
    )
    lines = gpu_checks.compare_draws(CPU, CPU, between=lambda: _native.set_interpreter(True))
    assert len(lines) == 2


def test_other_draws_are_noticed(monkeypatch):
    values = iter([torch.zeros(40, 3), torch.ones(40, 3)])
    monkeypatch.setattr(gpu_checks, "DRAWS", {"toy": (lambda device: next(values), 0.5)})
    with pytest.raises(SystemExit, match=r"toy: 100.0% of the rows differ"):
        gpu_checks.compare_draws(CPU, CPU)


def test_a_sanitizer_sees_every_op(capsys):
    gpu_checks.small(CPU)
    assert capsys.readouterr().out.split() == list(BENCHMARKS)


def test_a_training_step_asks_nothing_of_the_device():
    """Else it could not be captured in a CUDA graph. Fake tensors have no values that could be asked for."""
    model = DVAE(DVAEConfig(num_chains=20, sweeps=2), DataInfo("none", (28, 28), torch.full((784,), 0.2)))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(mode.from_tensor(parameter.detach())))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, mode.from_tensor(buffer))
        loss, metrics = model.training_loss(torch.zeros(10, 784), 50, 100)
        loss.backward()
        model.after_step(50)
        with pytest.raises(DataDependentOutputException):
            metrics["reconstruction"].item()


def row(op, seconds, size, fraction=0.5, count=1.0):
    return {
        "op": op,
        "size": size,
        "seconds": {"ops": {"median": seconds}},
        "fraction": fraction,
        "rate": ["M unit updates/s", count],
    }


def test_goals_are_judged():
    gibbs = {"visible": 64, "hidden": 64, "chains": 1000, "sweeps": 40}
    lines = gpu_checks.goals(
        [
            row("overlap_exponential_icdf", 1e-3, {"elements": 1 << 26}, 0.9),
            row("overlap_exponential_icdf", 1e-3, {"elements": 1 << 26, "dtype": "bfloat16"}, 0.8),
            row("overlap_exponential_icdf", 1e-3, {"elements": 20_000}, 0.1),
            row("rbm_gibbs_", 1e-5, gibbs, count=5.12),
            row("rbm_gibbs_", 1e-4, gibbs, count=5.12),
            row("training_step", 4e-4, {}),
            row("training_step", 6e-4, {}),
        ]
    )
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["met", "missed", "met", "missed", "met", "missed"]
    assert "512 unit updates/ns, goal 300" in lines[2]
