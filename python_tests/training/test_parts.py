"""Sheets, metric windows, metric files and the two parts of the error bar."""

import json
import math
import resource
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy

from dvae_ext.data import load
from dvae_ext.training import Ranks, RunError, estimate_likelihood, image_grid, write_sheet
from dvae_ext.training.logbook import Board, Logbook, MetricWindow, Records, json_text, keep_lines_until

CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return toy.Toy(toy.ToyConfig(), load("digits").info)


def test_image_grid_places_every_image():
    images = torch.arange(5).float()[:, None].expand(5, 6) / 4
    grid = image_grid(images, (2, 3), columns=3)
    assert grid.shape == (2 * 3 + 1, 3 * 4 + 1)
    assert grid[1, 1] == 0
    assert grid[1, 5] == 64
    assert grid[4, 6] == 255
    assert grid[0, 0] == grid[5, 10] == 96  # line, and the empty place at the end


def test_sheet_is_a_png_and_leaves_the_generator_alone(model, tmp_path):
    from matplotlib.image import imread

    state = torch.get_rng_state()
    write_sheet(tmp_path / "a.png", model, load("digits"), size=4, seed=1, device=CPU, title="a title")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    image = imread(tmp_path / "a.png")
    assert image.shape[0] >= 600
    assert image.shape[1] >= 1000
    assert image.std() > 0.05
    write_sheet(tmp_path / "b.png", model, load("digits"), size=4, seed=1, device=CPU, title="a title")
    np.testing.assert_array_equal(image, imread(tmp_path / "b.png"))


def test_metric_window_means():
    window = MetricWindow()
    for value in (1.0, 2.0, 6.0):
        window.add({"a": torch.tensor(value), "b": torch.tensor(-value)})
    names, mean = window.take()
    assert names == ["a", "b"]
    assert mean.tolist() == [3.0, -3.0]
    window.add({"a": torch.tensor(5.0), "b": torch.tensor(0.0)})
    assert window.take()[1].tolist() == [5.0, 0.0]


def test_lines_of_a_later_attempt_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    keep_lines_until(path, 10)
    assert not path.exists()
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (5, 10, 15)) + '{"step": 2')
    keep_lines_until(path, 10)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10]


def test_json_has_null_for_what_is_no_number():
    text = json_text({"a": [math.nan, 1.5], "b": {"c": (-math.inf,)}, "d": None, "e": "NaN", "f": True, "g": 3})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, 1.5],
        "b": {"c": [None]},
        "d": None,
        "e": "NaN",
        "f": True,
        "g": 3,
    }


def test_the_bar_shows_what_is_known(tmp_path, capsys):
    values = {"reconstruction": -90.0, "kl_without_log_z": -110.125, "chain_free_energy": -130.0, "learning_rate": 1.0}
    with Logbook(tmp_path, step=0, steps=20) as log:
        log.progress(10, values)
        before = log.bar.postfix
        log.validated(-92.5, 0.25)
        assert log.bar.postfix == before + ", valid=-92.50 ± 0.25"
        log.progress(20, values)
        assert log.bar.postfix == before + ", valid=-92.50 ± 0.25"
    assert before == "reconstruction=-90.00, KL - log Z=-110.12, F of chains=-130.00"


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "line", [b"\xff", DEEP, b'{"step": ' + DEEP, b"{}", b"[]", b"3", b'{"step": "3"}', b'{"step": 2', b"1" * 5000]
)
def test_a_damaged_line_is_named_and_dropped(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}')
    assert keep_lines_until(path, 10) == [f"line 2 of {path} is damaged and was dropped"]
    assert path.read_bytes() == b'{"step": 1}\n{"step": 3}\n'
    assert keep_lines_until(path, 10) == []


def test_metrics_that_cannot_be_written_anew_stay(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    before = b'{"step": 1}\n' * 100 + b'{"step": 2'
    path.write_bytes(before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(RunError, match=r"cannot save .*metrics\.jsonl: File too large"):
            keep_lines_until(path, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before


def test_a_full_disk_names_the_file_that_is_appended_to():
    records = Records(Path("/dev/full"))
    with pytest.raises(RunError, match=r"^cannot save /dev/full: No space left on device$"):
        records.write(b"x")
    records.close()


def test_tensorboard_reads_the_events_and_hides_those_of_a_later_attempt(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, steps in ((0, (1, 2, 3)), (1, (2,))):
        with Logbook(tmp_path, done, 3) as log:
            for step in steps:
                log.write("train", step, {"loss": step + 10.0 * done})
            log.image("prior", 1, np.zeros((3, 4), np.uint8))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 12.0)]
    assert (events.Images("prior")[0].height, events.Images("prior")[0].width) == (3, 4)


def test_attempts_of_one_second_are_read_in_their_order(tmp_path):
    boards = [Board(tmp_path, 0) for _ in range(20)]
    for board in boards:
        board.file.close()
    assert [board.file.path for board in boards] == sorted(tmp_path.iterdir())


def test_a_sum_of_other_metrics_is_begun_anew():
    window = MetricWindow()
    window.add({"a": torch.tensor(1.0)})
    window.add({"a": torch.tensor(3.0), "b": torch.tensor(5.0)})
    names, mean = window.take()
    assert (names, mean.tolist()) == (["a", "b"], [3.0, 5.0])


def test_error_bar_has_two_parts(model, monkeypatch):
    images = load("digits").test[:40]
    plain = estimate_likelihood(model, images, 20, seed=3, device=CPU, ranks=Ranks())
    assert plain.num_examples == 40
    assert plain.log_z is None
    assert plain.std_error == plain.data_std_error
    assert "log_z_std_error" not in plain.as_dict()
    estimate = SimpleNamespace(value=2.5, std_error=0.3, method="ais", warnings=("swaps are rare",))
    monkeypatch.setattr(toy.Toy, "log_partition", lambda self, quick: estimate, raising=False)
    shifted = estimate_likelihood(model, images, 20, seed=3, device=CPU, ranks=Ranks())
    assert shifted.log_likelihood == pytest.approx(plain.log_likelihood - 2.5, abs=1e-9)
    assert shifted.data_std_error == pytest.approx(plain.data_std_error)
    assert shifted.std_error == pytest.approx(math.hypot(plain.data_std_error, 0.3))
    assert shifted.warnings[0] == "swaps are rare"
    assert shifted.log_z == 2.5
    assert shifted.log_z_method == "ais"
    assert "log_z_method" not in shifted.as_dict()
    assert shifted.as_dict()["log_z"] == 2.5


def test_likelihood_is_the_importance_weighted_mean(model):
    """One example at a time by hand, with a linear-Gaussian model whose weights are computed directly."""
    images = load("digits").test[:6].float()
    result = estimate_likelihood(model, images, 4000, seed=0, device=CPU, ranks=Ranks())
    model.eval()
    with torch.no_grad():
        weights = model.log_weights(images, 20_000, torch.Generator().manual_seed(5)).double()
    direct = (weights.logsumexp(0) - math.log(20_000)).mean()
    # both estimates have a spread below 0.01 at these sample sizes (effective samples in the thousands)
    assert result.effective_samples > 1000
    assert result.warnings == ()
    loose = estimate_likelihood(model, images, 5, seed=0, device=CPU, ranks=Ranks())
    assert loose.log_likelihood < result.log_likelihood
    assert loose.loose_share == 1.0
    assert loose.warnings[0].startswith("100 % of the examples have fewer than 10 effective importance samples: ")
    assert abs(result.log_likelihood - direct.item()) < 0.05
    assert model.training is False


def test_shares_cover_everything_once():
    rows = torch.arange(11)
    shares = [Ranks(rank, 3).share(rows) for rank in range(3)]
    assert torch.equal(torch.cat(shares), rows)
    assert {len(share) for share in shares} <= {3, 4}
