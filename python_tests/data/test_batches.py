"""Training batches: order and noise are functions of (seed, step) alone."""

import pytest
import torch

from dvae_ext.data import DataError, TrainingBatches, derive_seed, evaluation_batches

GREY = torch.rand(23, 6, generator=torch.Generator().manual_seed(0))
BITS = torch.arange(23 * 6).reshape(23, 6).remainder(2).to(torch.uint8)


def test_any_step_can_be_drawn_without_the_ones_before():
    in_order = TrainingBatches(GREY, 5, seed=3)
    sequence = [in_order(step) for step in range(12)]
    for step in (11, 0, 7, 4):
        assert torch.equal(TrainingBatches(GREY, 5, seed=3)(step), sequence[step])
        assert torch.equal(in_order(step), sequence[step])


def test_batches_have_the_device_that_is_named():
    expected = [TrainingBatches(images, 5, seed=3)(step) for images in (GREY, BITS) for step in (0, 7)]
    torch.set_default_device("meta")
    try:
        batches = [TrainingBatches(images, 5, seed=3)(step) for images in (GREY, BITS) for step in (0, 7)]
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(*pair) for pair in zip(batches, expected, strict=True))


def test_an_epoch_holds_no_image_twice_and_epochs_differ():
    index = torch.eye(23, dtype=torch.uint8)
    batches = TrainingBatches(index, 5, seed=0)
    assert batches.steps_per_epoch == 4
    epochs = [torch.cat([batches(4 * epoch + i) for i in range(4)]) for epoch in range(3)]
    for epoch in epochs:
        assert epoch.sum(dim=0).max() == 1
        assert epoch.sum() == 20
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


def test_ranks_share_an_epoch_without_overlap():
    index = torch.eye(23, dtype=torch.uint8)
    ranks = [TrainingBatches(index, 5, seed=0, rank=rank, world_size=2) for rank in range(2)]
    assert ranks[0].steps_per_epoch == 2
    seen = torch.cat([rank(step) for rank in ranks for step in range(2)])
    assert seen.sum(dim=0).max() == 1
    assert seen.sum() == 20


def test_dynamic_binarisation_follows_the_grey_values():
    grey = torch.tensor([[0.0, 1.0, 0.25, 0.75]]).repeat(1000, 1)
    batches = TrainingBatches(grey, 1000, seed=1)
    draws = torch.stack([batches(step) for step in range(20)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    mean = draws.mean(dim=(0, 1))
    assert mean[0] == 0
    assert mean[1] == 1
    # 20,000 draws: 5 standard errors, a false alarm once in 10^6
    assert (mean[2:] - torch.tensor([0.25, 0.75])).abs().max() < 5 * (0.1875 / 20_000) ** 0.5
    assert not torch.equal(draws[0], draws[1])


def test_dynamic_noise_differs_between_ranks_and_seeds():
    grey = torch.full((64, 8), 0.5)
    draws = [TrainingBatches(grey, 16, seed, rank, 2)(0) for seed in (0, 1) for rank in (0, 1)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 4


def test_static_bits_pass_unchanged():
    batch = TrainingBatches(BITS, 23, seed=0)(0)
    assert batch.dtype == torch.float32
    assert torch.equal(batch.sum(), BITS.sum().float())


def test_too_few_images():
    with pytest.raises(DataError, match=r"batch_size 12 on 2 process.*needs 24 training images, the data set has 23"):
        TrainingBatches(BITS, 12, seed=0, world_size=2)
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        TrainingBatches(BITS, 0, seed=0)


def test_evaluation_batches_cover_everything_in_order():
    assert torch.equal(torch.cat(list(evaluation_batches(BITS, 7))), BITS.float())


def test_derived_seeds_are_fixed_for_all_time():
    assert derive_seed(0, "order", 0) == 7134422430951335918
    seeds = {derive_seed(seed, purpose, i) for seed in range(5) for purpose in ("a", "b") for i in range(50)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_grey_batches_are_left_as_they_are():
    images = torch.linspace(0, 1, 12).reshape(4, 3)
    batches = TrainingBatches(images, batch_size=4, seed=0, binarise=False)
    assert torch.equal(batches(0).sort(dim=0).values, images)
