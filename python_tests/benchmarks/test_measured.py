"""Page, plots and README say what the files of results say, and --check notices where they do not."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from dvae_ext.benchmarks import ceilings, machine, runner
from dvae_ext.benchmarks.case import Benchmark
from dvae_ext.benchmarks.catalogue import BENCHMARKS
from dvae_ext.benchmarks.report import write_json

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'dvae_ext[bench]'")
ROOT = Path(__file__).resolve().parents[2]
TINY = {"visible": 4, "hidden": 5, "chains": 20, "sweeps": 2}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("measured", ROOT / "tools" / "measured.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{module.BEGIN}old\n{module.END}after\n")
    results = tmp_path / "results"
    results.mkdir()
    (results / "training.json").write_bytes((ROOT / "bench" / "results" / "training.json").read_bytes())
    gibbs = Benchmark("rbm_gibbs_", "sweeps", BENCHMARKS["rbm_gibbs_"].build, [TINY], [], {"chains": [2, 4]})
    monkeypatch.setattr(ceilings, "measure", lambda device, seconds: dict.fromkeys(ceilings.HOW, 1e9))
    monkeypatch.setattr(machine, "others_load", lambda: 1.5)
    result = runner.run_all(
        [gibbs], torch.device("cpu"), True, True, step=lambda what: None, report=lambda result, row: None
    )
    peers = {"rate": {"ops": 2.0, "rbms": 1.0}, "size": {"visible": 4}}
    result["peers"] = {"note": "In turns.", "gibbs": [peers], "log_z": [], "skipped": {"thrml": "not importable"}}
    write_json(results / "toy.json", result)
    for name, value in {
        "ROOT": tmp_path,
        "RESULTS": results,
        "PAGE": tmp_path / "docs" / "performance.md",
        "IMAGES": tmp_path / "docs" / "images",
    }.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "argv", ["measured.py"])
    module.main()
    monkeypatch.setattr(sys, "argv", ["measured.py", "--check"])
    return module


def test_page_and_readme_hold_what_was_measured(measured):
    page = measured.PAGE.read_text()
    for text in ("BUSY", "rbm_gibbs_", "Against chains", "thrml: not measured, not importable", "| philox |"):
        assert text in page
    readme = (measured.ROOT / "README.md").read_text()
    assert readme.startswith("before\n")
    assert readme.endswith("after\n")
    assert "4 visible, 5 hidden, 20 chains, 2 sweeps" in readme
    assert "nats" in readme
    measured.main()  # --check finds nothing


@pytest.mark.parametrize("spoilt", ["README.md", "docs/performance.md"])
def test_check_notices_an_edited_file(measured, spoilt):
    path = measured.ROOT / spoilt
    path.write_text(path.read_text().replace("chains", "chain"))
    with pytest.raises(SystemExit, match=f"{Path(spoilt).name} differ from bench/results"):
        measured.main()


def test_check_notices_other_results_a_lost_plot_and_one_too_many(measured):
    (plot,) = (measured.IMAGES / "performance").iterdir()
    (plot.parent / "other.png").touch()
    with pytest.raises(SystemExit, match=r"other\.png \(of no result\)"):
        measured.main()
    (plot.parent / "other.png").unlink()
    path = measured.RESULTS / "toy.json"
    result = json.loads(path.read_text())
    result["scaling"][0]["seconds"]["ops, 1 thread"][0] *= 2
    path.write_text(json.dumps(result))
    with pytest.raises(SystemExit, match=plot.name):
        measured.main()
    plot.unlink()
    with pytest.raises(SystemExit, match=plot.name):
        measured.main()
