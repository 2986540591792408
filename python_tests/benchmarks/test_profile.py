"""The flame graph and the messages of make profile."""

import sys
from collections import Counter

from bench import profile

SCRIPT = """\
python
\t    7f01 dvae_ext::kernels::avx512::lookup::add_fields<5>(unsigned int const*, long)
\t    7f00 dvae_ext::rbm_gibbs(float (*)(int))+0x1c
\t    7e00 _PyEval_EvalFrameDefault

python
\t    7f01 dvae_ext::kernels::avx512::lookup::add_fields<4>(unsigned int const*, long)
\t    7e00 _PyEval_EvalFrameDefault

python
\t    7e00 _PyEval_EvalFrameDefault

"""
STACKS = profile.fold(SCRIPT)
KERNEL = "dvae_ext::kernels::avx512::lookup::add_fields"


def test_samples_are_folded_outermost_first():
    assert STACKS == Counter(
        {
            ("_PyEval_EvalFrameDefault", "dvae_ext::rbm_gibbs", KERNEL): 1,
            ("_PyEval_EvalFrameDefault", KERNEL): 1,
            ("_PyEval_EvalFrameDefault",): 1,
        }
    )


def test_the_hottest_functions_are_counted_without_their_calls():
    assert profile.hottest(STACKS)[0].split() == ["66.7%", KERNEL]


def test_widths_are_shares_and_names_are_escaped():
    svg = profile.flame_graph(STACKS + Counter({("a<b",): 1}), "toy")
    assert svg.count("<rect") == 5
    assert "<title>_PyEval_EvalFrameDefault, 75.0%</title>" in svg
    assert 'width="900.0"' in svg
    assert "a&lt;b" in svg


def test_an_op_must_be_known(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["profile", "nosuch"])
    assert profile.main() == 2
    assert "unknown op 'nosuch'" in capsys.readouterr().err


def test_missing_programs_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(profile.shutil, "which", lambda name: None)
    out = tmp_path / "x"
    assert "perf is not installed" in profile.profile_with_perf([], out, "", 1.0)
    assert "valgrind is not installed" in profile.profile_with_callgrind([], out)
    assert "ncu is not installed" in profile.profile_with_ncu([], out)
