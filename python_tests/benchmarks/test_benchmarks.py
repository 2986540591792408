"""The benchmarks themselves: every case is right at a tiny size, turns alternate, files are whole."""

import json
from importlib import import_module

import pytest
import torch

from dvae_ext import ops
from dvae_ext.__main__ import main
from dvae_ext.benchmarks import ceilings, command, report, runner, timing
from dvae_ext.benchmarks.baselines import COMPILED, forward_backward, rotating
from dvae_ext.benchmarks.case import Benchmark, Case, WrongResult, describe
from dvae_ext.benchmarks.catalogue import BENCHMARKS
from dvae_ext.benchmarks.machine import last_level_cache

CPU = torch.device("cpu")
TINY = {
    "elements": 1000,
    "visible": 8,
    "hidden": 12,
    "chains": 40,
    "sweeps": 3,
    "levels": 4,
    "ladders": 5,
    "batch": 6,
    "dims": 3,
    "samples": 2,
}
LIMITS = dict.fromkeys(ceilings.HOW, 1e9)


def tiny(size):
    return {name: TINY.get(name, value) for name, value in size.items()}


@pytest.fixture(autouse=True)
def small_cache(monkeypatch):
    """Few sets of inputs: the tests are about results."""
    monkeypatch.setattr("dvae_ext.benchmarks.baselines.last_level_cache", lambda device: 1 << 14)


def test_every_op_has_a_benchmark():
    assert set(BENCHMARKS) == {*ops.__all__, "training_step"}


@pytest.mark.parametrize("op", BENCHMARKS)
def test_every_implementation_passes_its_check(op):
    case = BENCHMARKS[op].build(CPU, **tiny(BENCHMARKS[op].sizes[0]))
    assert next(iter(case.implementations)) == "ops"
    assert "eager" in case.implementations
    for name, make in case.implementations.items():
        if name not in COMPILED:
            case.check(make()())
    assert set(case.work) <= set(ceilings.HOW)
    assert all(amount > 0 for amount in case.work.values())


def test_sixteen_bits_and_models_beyond_the_reference_pass_too():
    case = BENCHMARKS["overlap_exponential_icdf"].build(CPU, 1000, "bfloat16")
    case.check(case.implementations["ops"]()())
    case = BENCHMARKS["rbm_log_z_exact"].build(CPU, 19, 4, True)
    assert list(case.implementations) == ["ops"]
    case.check(case.implementations["ops"]()())


@pytest.mark.parametrize(
    ("op", "spoil"),
    [
        ("overlap_exponential_icdf", lambda result: [result[0] + 0.01, result[1]]),
        ("overlap_logistic_log_prob", lambda result: [result[0], result[1], 1.01 * result[2]]),
        ("rbm_gibbs_", lambda result: torch.ones_like(result)),
        ("rbm_temper_", lambda result: result * 2 + 1),
        ("pairwise_kl_normal", lambda result: [result[0].t(), *result[1:]]),
        ("coarse_grain_sample", lambda result: [result[0] + 1, result[1]]),
        ("training_step", lambda result: result * 3),
    ],
)
def test_a_wrong_result_is_noticed(op, spoil):
    size = {**tiny(BENCHMARKS[op].sizes[0]), **({"chains": 1000} if op == "rbm_gibbs_" else {})}
    case = BENCHMARKS[op].build(CPU, **size)
    with pytest.raises(WrongResult, match=op):
        case.check(spoil(case.implementations["ops"]()()))


def test_every_size_can_be_built_from_the_first(monkeypatch):
    for benchmark in BENCHMARKS.values():
        for axis, values in benchmark.scaling.items():
            assert list(values) == sorted(values)
            assert set(axis.split("=")) <= set(benchmark.sizes[0])
        for size in (*benchmark.sizes, *benchmark.gpu_sizes):
            assert {*benchmark.sizes[0]} <= {*size}


def test_runs_take_turns():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "AB"}
    times = timing.take_turns(runs, CPU, seconds=0.0, rounds=(4, 9))
    assert len(times["A"]) == len(times["B"]) == 4
    order = [name for before, name in zip(["", *calls], calls, strict=False) if name != before]
    assert order == list("AB") * 5  # once to find the number of repeats, then four rounds


def test_a_run_stops_at_its_rounds_and_its_seconds():
    runs = {"A": lambda: None}
    assert len(timing.take_turns(runs, CPU, seconds=60.0, rounds=(1, 5))["A"]) == 5
    assert len(timing.take_turns(runs, CPU, seconds=0.0, rounds=(1, 5))["A"]) == 1


def test_ratios_are_taken_round_by_round():
    found = timing.ratios({"ops": [1.0, 2.0, 4.0], "eager": [3.0, 6.0, 12.0]})
    assert found == {"eager": {"median": 3.0, "low": 3.0, "high": 3.0, "min": 3.0, "rounds": 3}}


def test_inputs_rotate_through_more_than_the_cache():
    sets = rotating(lambda seed: (torch.full((1024,), float(seed)),), CPU)
    assert len(sets) == 8  # of 4 KiB each, twice 16 KiB
    seen = [
        run()[0][0].item()
        for run in [forward_backward(lambda x: 2 * x.requires_grad_(), [(s, (torch.ones(1024),)) for s in sets])]
        for _ in range(9)
    ]
    assert seen == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 0.0]
    assert last_level_cache(CPU) >= 1 << 18


def test_the_slowest_ceiling_binds():
    assert ceilings.floor({"memory": 8e9, "philox": 1e9}, {"memory": 4e9, "philox": 1e9}) == ("memory", 2.0)


def case_of(implementations):
    def check(result):
        if result != 1:
            raise WrongResult(f"got {result}")

    def maker(value):
        if isinstance(value, Exception):
            raise value
        return lambda: value

    makers = {name: lambda value=value: maker(value) for name, value in implementations.items()}
    return Benchmark("toy", "one", lambda device: Case(makers, check, {"memory": 1.0}), [{}], [{}])


def test_a_baseline_that_fails_or_errs_is_left_out_with_its_reason():
    toy = case_of({"ops": 1, "eager": 1, "wrong": 2, "broken": RuntimeError("no compiler\nat all")})
    row = runner.run_case(toy, {}, CPU, LIMITS, turn_seconds=0.0)
    assert set(row["seconds"]) == {"ops", "eager"}
    assert set(row["ratios"]) == {"eager"}
    assert row["skipped"] == {"wrong": "wrong result: got 2", "broken": "no compiler"}
    with pytest.raises(WrongResult):
        runner.run_case(case_of({"ops": 2}), {}, CPU, LIMITS)


def test_rows_after_the_limit_are_not_compiled_and_say_so(monkeypatch):
    monkeypatch.setattr(ceilings, "measure", lambda device, seconds: LIMITS)
    toy = case_of({"ops": 1, "torch.compile": RuntimeError("compiled after all")})
    result = runner.run_all(
        [toy], CPU, False, False, lambda what: None, lambda result, row: None, compile_seconds=0.0, turn_seconds=0.0
    )
    assert result["cases"][0]["skipped"] == {"torch.compile": "this row began after the 0 s for compiling"}


def test_scaling_has_a_curve_for_each_number_of_threads():
    before = torch.get_num_threads()
    gibbs = BENCHMARKS["rbm_gibbs_"]
    toy = Benchmark("toy", "", gibbs.build, [tiny(gibbs.sizes[0])], [], {"chains": [2, 4]})
    curves = runner.run_scaling(toy, "chains", CPU, threads=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert set(curves["seconds"]) == {"ops, 1 thread", "ops, 2 threads", "eager"}
    assert all(len(values) == 2 and min(values) > 0 for values in curves["seconds"].values())


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    report.write_json(path, {"a": [1.23456789, 2], "b": "µ"})
    assert json.loads(path.read_text()) == {"a": [1.2346, 2], "b": "µ"}
    with pytest.raises(TypeError):
        report.write_json(path, {"a": object()})
    assert json.loads(path.read_text())["b"] == "µ"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("entry", ["dvae_ext.__main__", "dvae_ext.cli"])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nosuchop"], "unknown op 'nosuchop'; known: overlap_exponential_icdf"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--out", "/no/such/folder/x.json"], "--out: the folder /no/such/folder does not exist"),
        (["--out", "/tmp"], "--out is the folder /tmp, expected a file"),
        (["--device", "cuda"], "--device cuda: "),
    ],
)
def test_mistakes_are_told_in_one_sentence(entry, args, message, capsys):
    if args == ["--device", "cuda"] and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    if entry == "dvae_ext.cli":
        pytest.importorskip("tyro", reason="tyro is not installed: pip install 'dvae_ext[train]'")
    assert import_module(entry).main(["bench", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dvae-ext: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(op in out for op in BENCHMARKS)
    assert "dvae-ext bench --quick" in out


def test_the_command_measures_prints_and_writes(tmp_path, capsys, monkeypatch):
    gibbs = BENCHMARKS["rbm_gibbs_"]
    small = Benchmark("rbm_gibbs_", "toy", gibbs.build, [tiny(gibbs.sizes[0])], [], {"sweeps": [1, 2]})
    monkeypatch.setitem(BENCHMARKS, "rbm_gibbs_", small)
    monkeypatch.setattr(ceilings, "measure", lambda device, seconds: LIMITS)
    before = torch.get_num_threads()
    assert (
        main(["bench", "rbm_gibbs_", "--quick", "--scaling", "--threads", "2", "--out", str(tmp_path / "x.json")]) == 0
    )
    torch.set_num_threads(before)
    printed = capsys.readouterr()
    assert "M unit updates/s" in printed.out
    assert "of the floor" in printed.out or "of floor" in printed.out
    assert "3/3 rbm_gibbs_ against sweeps" in printed.err
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["facts"]["threads"] == 2
    assert [row["size"] for row in result["cases"]] == [tiny(gibbs.sizes[0])]
    assert result["busy"] == (max(result["load"]) > 0.5)


def test_sizes_in_words():
    assert describe({"elements": 1 << 20, "dtype": "bfloat16"}) == "1,048,576 elements, bfloat16"
    assert describe({"visible": 16, "gradient": False}) == "16 visible, without gradient"
    assert (report.duration(2.0), report.duration(0.0213), report.duration(5e-6)) == ("2 s", "21.3 ms", "5 µs")
    assert (report.amount(2.5e9), report.amount(3e3), report.amount(7)) == ("2.5 G", "3 k", "7")


def test_threads_are_as_many_as_processors_may_be_used(monkeypatch):
    threads = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(command.os, "sched_getaffinity", lambda process: {3})
    monkeypatch.setattr(command, "measure", lambda *arguments: seen.append(torch.get_num_threads()) or {})
    try:
        torch.set_num_threads(2)
        command.main(["rbm_gibbs_"])
    finally:
        torch.set_num_threads(threads)
    assert seen == [1]
