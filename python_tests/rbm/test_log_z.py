"""log Z by tempering against the exact value: calibration, warnings, bad input, and other estimators."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dvae_ext.rbm import RBM, LogZEstimate, log_z
from dvae_ext.rbm.ensemble import Ensemble, World
from dvae_ext.rbm.ensemble import Path as TemperedPath
from dvae_ext.rbm.ladder import equalise, interpolate, levels_for
from dvae_ext.rbm.log_z_plot import plot_log_z
from dvae_ext.rbm.statistics import delete_group_jackknife, student_factor
from dvae_ext.reference.rbm_temper import negative_free_energy
from python_tests.rbm.known_models import MODELS, model, random_rbm, rbm, separated_modes


@pytest.mark.parametrize("name", MODELS)
def test_known_models(name: str) -> None:
    """4 standard errors, widened for 32 ladders, are exceeded by chance in about 1 run of 5,000."""
    exact = log_z(model(name), "exact")
    assert exact.std_error == 0
    estimate = log_z(model(name), sweeps=512, seed=7)
    assert abs(estimate.value - exact.value) < 4 * estimate.std_error
    assert estimate.std_error < 0.2
    assert estimate.betas[0] == 0
    assert estimate.betas[-1] == 1
    assert len(estimate.rejection) == len(estimate.betas) - 1
    assert len(estimate.effective_sample_size) == len(estimate.betas)
    assert 0 < min(estimate.effective_sample_size)
    assert max(estimate.effective_sample_size) <= 512 * 32
    assert estimate.trace[-1] == (512, estimate.value, estimate.std_error)


def test_error_bar_is_calibrated() -> None:
    """60 runs: inside 2 standard errors in 95 % of them; 51 or fewer are met by chance once in 2,000 such tests."""
    models = [random_rbm(8, 12, 0.5, seed=1), random_rbm(10, 20, 1.5, seed=2)]
    inside, scores = 0, []
    for one in models:
        exact = log_z(one, "exact").value
        for seed in range(30):
            estimate = log_z(one, sweeps=96, seed=seed)
            assert not estimate.warnings
            scores.append((estimate.value - exact) / estimate.std_error)
            inside += abs(scores[-1]) <= 2
    assert inside > 51
    assert 0.7 < torch.tensor(scores).std().item() < 1.3  # and it is not too wide


def test_the_smaller_barrier_decides_on_the_reference() -> None:
    one = random_rbm(16, 24, 1.0)
    automatic = log_z(one, sweeps=256, seed=1)
    forced = {name: log_z(one, sweeps=256, seed=1, reference=name) for name in ("uniform", "independent")}
    assert {name: estimate.reference for name, estimate in forced.items()} == {n: n for n in forced}
    assert automatic.reference == min(forced, key=lambda name: forced[name].barrier) == "independent"
    assert forced["uniform"].barrier > 2 * automatic.barrier
    assert len(forced["uniform"].betas) > len(automatic.betas)
    difference = forced["uniform"].value - forced["independent"].value
    assert abs(difference) < 4 * math.hypot(*(estimate.std_error for estimate in forced.values()))


def test_rejections_become_equal() -> None:
    estimate = log_z(random_rbm(20, 30, 1.0), sweeps=1024, reference="uniform", seed=0)
    assert 0.2 < min(estimate.rejection) < max(estimate.rejection) < 0.4


def test_what_was_missed_is_warned_of() -> None:
    """Modes far apart, fewer sweeps than a journey takes."""
    hard = separated_modes(30, 4, 60)
    estimate = log_z(hard, sweeps=32, levels=4, reference="uniform", seed=0)
    assert any("round trips per ladder, fewer than 10" in warning for warning in estimate.warnings)


def test_same_seed_same_estimate_and_threads_do_not_matter() -> None:
    threads = torch.get_num_threads()
    for one in (random_rbm(20, 60, 1.0), random_rbm(40, 60, 1.0), random_rbm(12, 9, 1.0)):
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(log_z(one, sweeps=64, seed=3))
        torch.set_num_threads(threads)
        first, second = (dataclasses.replace(estimate, seconds=0.0) for estimate in results)
        assert first == second
    torch.manual_seed(11)
    unseeded = log_z(one, sweeps=64)
    torch.manual_seed(11)
    assert log_z(one, sweeps=64).value == unseeded.value != first.value


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    one = random_rbm(8, 10, 0.7)
    converted = rbm(*(getattr(one, n).to(dtype) for n in ("weight", "visible_bias", "hidden_bias")))
    exact = log_z(rbm(*(getattr(converted, n).double() for n in vars(converted))), "exact")
    estimate = log_z(converted, sweeps=256, seed=0)
    assert abs(estimate.value - exact.value) < 4 * estimate.std_error


def test_zero_weights_are_exact_and_immediate() -> None:
    one = random_rbm(300, 400, 1.0)
    one.weight.zero_()
    expected = sum(math.log1p(math.exp(x)) for x in [*one.visible_bias.tolist(), *one.hidden_bias.tolist()])
    for method in ("tempering", "ais"):
        started = time.perf_counter()
        estimate = log_z(one, method)
        assert time.perf_counter() - started < 1
        assert estimate.std_error == 0
        assert abs(estimate.value - expected) < 1e-9


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_one_unit_on_a_side(shape: tuple[int, int]) -> None:
    one = random_rbm(*shape, 2.0)
    estimate = log_z(one, sweeps=256, seed=0)
    assert abs(estimate.value - log_z(one, "exact").value) < 4 * estimate.std_error + 1e-6


def test_target_and_time_budget() -> None:
    one = random_rbm(20, 30, 1.0)
    lines: list[str] = []
    precise = log_z(one, target_std_error=0.01, seed=0, progress=lines.append)
    assert precise.std_error <= 0.01
    assert not precise.warnings
    assert any("measured" in line for line in lines)
    assert any("uniform reference, round 1" in line for line in lines)
    missed = log_z(one, target_std_error=1e-6, sweeps=256, seed=0)
    assert any("did not reach the target" in warning for warning in missed.warnings)
    started = time.perf_counter()
    timed = log_z(one, seconds=3.0, seed=0)
    assert timed.sweeps > 0
    assert time.perf_counter() - started < 30
    with pytest.raises(TimeoutError, match="seconds is 1e-06, too few to adapt the ladder"):
        log_z(one, seconds=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guess"}, "method is 'guess', expected one of tempering, exact, ais"),
        ({"method": "exact", "sweeps": 64}, "sweeps is 64, expected none: it belongs to 'tempering', not 'exact'"),
        ({"method": "ais", "target_std_error": 0.1}, "target_std_error is 0.1, expected none"),
        ({"sweeps": 3}, "sweeps is 3, expected an integer of at least 16"),
        ({"sweeps": 64.0}, "sweeps is 64.0, expected an integer"),
        ({"ladders": 4}, "ladders is 4, expected an integer of at least 16, which the jackknife needs"),
        ({"levels": 1}, "levels is 1, expected an integer of at least 2"),
        ({"levels": 1000}, "levels is 1000, expected at most 512"),
        ({"seconds": 0}, "seconds is 0, expected a positive number"),
        ({"target_std_error": math.nan}, "target_std_error is nan, expected a positive number"),
        ({"reference": "mean field"}, "reference is 'mean field', expected one of auto, uniform, independent"),
        ({"method": "ais", "chains": 1}, "chains is 1, expected an integer of at least 2"),
        ({"method": "ais", "num_betas": 0}, "num_betas is 0, expected an integer of at least 1"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_z(random_rbm(3, 4, 1.0), **options)


def test_bad_parameters() -> None:
    for name in ("weight", "visible_bias", "hidden_bias"):
        for bad in (math.nan, math.inf):
            one = random_rbm(3, 4, 1.0)
            getattr(one, name).view(-1)[0] = bad
            with pytest.raises(ValueError, match=f"{name} holds NaN or infinity, expected finite numbers"):
                log_z(one)
    large = random_rbm(3, 4, 1e38)
    with pytest.raises(
        ValueError, match=r"sizes add up to .* times the largest number of torch.float32.*would overflow"
    ):
        log_z(large)
    with pytest.raises(ValueError, match=r"expected weight \[n_visible, n_hidden\].*got \[3, 4\], \[4\] and \[4\]"):
        log_z(rbm(torch.zeros(3, 4), torch.zeros(4), torch.zeros(4)))
    with pytest.raises(ValueError, match="at least one unit on each side"):
        log_z(rbm(torch.zeros(0, 4), torch.zeros(0), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"weight has dtype torch\.complex64, expected real floating-point numbers"):
        log_z(rbm(torch.ones(3, 4, dtype=torch.complex64), torch.zeros(3), torch.zeros(4)))
    with pytest.raises(RuntimeError, match="smaller side of weight has 31 units"):
        log_z(random_rbm(31, 40, 0.1), "exact")


def test_annealed_importance_sampling() -> None:
    one = random_rbm(8, 12, 0.5)
    estimate = log_z(one, "ais", chains=512, num_betas=100, seed=0)
    assert 0 < estimate.std_error < 0.05
    assert abs(estimate.value - log_z(one, "exact").value) < 4 * estimate.std_error


def test_agrees_with_mbar() -> None:
    """The same states, weighed by an independent implementation of the multistate Bennett acceptance ratio."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pymbar = pytest.importorskip("pymbar", reason="pymbar is not installed: pip install 'dvae_ext[test]'")
    one = random_rbm(12, 30, 1.0)
    path = TemperedPath.uniform(one.weight, one.visible_bias, one.hidden_bias)
    betas = torch.linspace(0, 1, 8, dtype=torch.float64)
    ensemble = Ensemble(path, betas, 32, seed=0, world=World())
    ensemble.run(64)
    ensemble.shifts = ensemble.estimate().increments
    ensemble.forget()
    energies = []
    calls, thinning = 25, 8
    for _ in range(calls):
        ensemble.run(thinning)
        at_level = ensemble.visible.gather(1, ensemble.level.argsort(1)[..., None].expand_as(ensemble.visible))
        states = at_level.transpose(0, 1).reshape(-1, 12).double()  # by level
        model_and_reference = [x.double() for x in dataclasses.astuple(path)[:5]]
        energies.append(torch.stack([-negative_free_energy(states, *model_and_reference, b) for b in betas]))
    reduced = torch.stack(energies, 2).reshape(len(betas), len(betas), -1).flatten(1)  # [level, samples by level]
    mbar = pymbar.MBAR(reduced.numpy(), [32 * calls] * len(betas))
    found = mbar.compute_free_energy_differences()
    theirs, their_error = -found["Delta_f"][0, -1], found["dDelta_f"][0, -1]
    ours = ensemble.estimate()
    assert abs(ours.value - theirs) < 4 * math.hypot(ours.std_error, their_error)
    exact = log_z(one, "exact").value - path.reference_log_z
    assert abs(theirs - exact) < 4 * their_error


def test_jackknife() -> None:
    """Of a mean it is the usual standard error; of a square it removes the bias of order 1/n."""
    x = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, std_error = delete_group_jackknife(lambda kept: kept @ x / kept.sum(1), 40)
    torch.testing.assert_close(value, x.mean())
    torch.testing.assert_close(std_error, student_factor(39) * x.std() / 40**0.5)
    square, _ = delete_group_jackknife(lambda kept: (kept @ x / kept.sum(1)) ** 2, 40)
    torch.testing.assert_close(square, x.mean() ** 2 - x.var() / 40)


@pytest.mark.parametrize("degrees", [15, 31, 63])
def test_student_factor(degrees: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed: pip install 'dvae_ext[test]'")
    assert abs(2 * student_factor(degrees) - stats.t.ppf(stats.norm.cdf(2), degrees)) < 2e-3


def test_ladder() -> None:
    betas = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    moved = equalise(betas, torch.tensor([0.6, 0.2], dtype=torch.float64), 5)
    torch.testing.assert_close(
        moved, torch.tensor([0.0, 1 / 6, 1 / 3, 0.5, 1.0], dtype=torch.float64), atol=1e-3, rtol=0
    )
    assert levels_for(torch.full((10,), 0.3)) == 11
    assert levels_for(torch.full((10,), 1.0)) == 35
    assert levels_for(torch.full((2,), 0.01)) == 4
    assert levels_for(torch.full((511,), 1.0)) == 512
    x = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    torch.testing.assert_close(interpolate(x, betas, 2 * betas), 2 * x)
    flat = equalise(betas, torch.zeros(2, dtype=torch.float64), 3)
    assert (flat.diff() > 0).all()


def test_report_and_picture(tmp_path: Path) -> None:
    estimate = log_z(random_rbm(6, 8, 1.0), sweeps=64, seed=0)
    loaded = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
    assert loaded["value"] == estimate.value
    assert loaded["betas"] == list(estimate.betas)
    assert "ladders" in str(estimate)
    exact = LogZEstimate(1.0, 0.0, "exact", 0.1)
    assert json.loads(json.dumps(exact.to_dict(), allow_nan=False))["lower"] is None
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'dvae_ext[test]'")
    plot_log_z(estimate, tmp_path / "log_z.png")
    assert (tmp_path / "log_z.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="has no ladder to draw"):
        plot_log_z(exact, tmp_path / "none.png")


PROCESS = """
import json, sys, torch.distributed as dist
from python_tests.rbm.known_models import random_rbm
from dvae_ext.rbm import log_z
dist.init_process_group("gloo")
estimate = log_z(random_rbm(12, 9, 1.0), sweeps=64, seed=3, ladders=17)
timed = log_z(random_rbm(12, 9, 1.0), seconds=2.0, ladders=16)
with open(f"{sys.argv[1]}/{dist.get_rank()}.json", "w") as file:
    json.dump([estimate.to_dict(), timed.to_dict()], file)
dist.destroy_process_group()
"""


def test_two_processes_share_the_ladders(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*command, str(script), str(tmp_path)], env=environment, check=True, timeout=300, capture_output=True
    )
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for one, other in zip(first, second, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    alone = log_z(random_rbm(12, 9, 1.0), sweeps=64, seed=3, ladders=17)
    assert first[0]["value"] == pytest.approx(alone.value, abs=1e-9)  # the same draws, whoever makes them
    assert first[0]["std_error"] == pytest.approx(alone.std_error, rel=1e-6)


def test_weights_too_strong_for_any_overlap_are_warned_of():
    prior = RBM(6, 5)
    with torch.no_grad():
        prior.weight.copy_(1000 * torch.randn(6, 5, generator=torch.Generator().manual_seed(9)))
    estimate = log_z(prior, "tempering", sweeps=256, seed=0)
    assert math.isfinite(estimate.value) or "not finite" in estimate.warnings[0]


def test_weights_next_to_zero_raise_no_alarm():
    prior = RBM(12, 10)
    with torch.no_grad():
        prior.weight.copy_(1e-8 * torch.randn(12, 10, generator=torch.Generator().manual_seed(0)))
    estimate = log_z(prior, "tempering", sweeps=256, seed=0)
    assert estimate.value == pytest.approx(22 * math.log(2), abs=1e-6)
    assert not [warning for warning in estimate.warnings if "stepping stones" in warning]


def test_a_reference_that_misses_a_mode_is_right_all_the_same():
    """Weights of 30 have modes that no marginal shows: from the fitted reference it was 3 nats off, ± 0.25."""
    generator = torch.Generator().manual_seed(137)
    one = rbm(torch.randn(6, 5, generator=generator) * 30, torch.zeros(6), torch.zeros(5))
    exact = log_z(one, "exact").value
    for reference in ("independent", "uniform", "auto"):
        estimate = log_z(one, reference=reference, sweeps=1024, seed=260)
        assert abs(estimate.value - exact) < 4 * estimate.std_error < 0.2
        assert not estimate.warnings
