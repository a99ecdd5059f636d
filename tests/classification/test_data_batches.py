from itertools import chain

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from classification.data.batches import EpochBatches, Share
from reviewkd_det.common.runs.seeds import mix_seed


def flat(lists):
    return list(chain.from_iterable(lists))


def run(epoch=0, skip=0, **options):
    batches = EpochBatches(**{"length": 103, "batch_size": 8, "training": True, **options})
    batches.set_epoch(epoch, skip)
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_batch_of_all_processes_is_a_batch_of_one(world_size, micro_batches):
    options = {"seed": 5, "epoch": 3, "micro_batches": micro_batches}
    alone = run(batch_size=12 * world_size, **options)
    shares = [Share(rank, world_size) for rank in range(world_size)]
    together = [run(batch_size=12, share=share, **options) for share in shares]
    assert len(alone) == 103 // (12 * world_size) * micro_batches
    for batch, *parts in zip(alone, *together, strict=True):
        assert {len(part) for part in parts} == {12 // micro_batches}
        assert sorted(batch) == sorted(flat(parts))


def test_micro_batches_are_the_pieces_of_a_batch():
    whole, pieces = run(batch_size=12), run(batch_size=12, micro_batches=3)
    groups = [flat(pieces[first : first + 3]) for first in range(0, len(pieces), 3)]
    assert groups == whole


def test_training_leaves_out_only_the_incomplete_batch_and_repeats_nothing():
    batches = run()
    assert [len(batch) for batch in batches] == [8] * 12  # 96 of 103
    assert len(set(flat(batches))) == 96


def test_the_order_is_a_function_of_seed_and_epoch():
    assert run(seed=1, epoch=2) == run(seed=1, epoch=2)
    orders = [run(seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)]
    assert all(first != second for i, first in enumerate(orders) for second in orders[:i])


def test_the_images_left_out_change_from_epoch_to_epoch():
    left_out = [set(range(103)) - set(flat(run(epoch=epoch))) for epoch in range(200)]
    assert set.union(*left_out) == set(range(103))  # (96 / 103) ** 200 is 1 in a million


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [1, 5, 24, 103])
def test_evaluation_sees_every_image_once_over_all_processes(length, world_size):
    options = {"length": length, "training": False}
    shares = [run(share=Share(rank, world_size), **options) for rank in range(world_size)]
    assert sorted(flat(map(flat, shares))) == list(range(length))
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1
    assert all(batch for share in shares for batch in share)


def test_evaluation_is_in_order():
    assert run(length=5, batch_size=2, training=False, epoch=4) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("skip", [0, 2, 10, 24])
def test_a_resumed_epoch_is_the_rest_of_the_whole_one(skip):
    assert run(micro_batches=2, skip=skip, epoch=7) == run(micro_batches=2, epoch=7)[skip:]


def test_the_next_epoch_skips_nothing():
    batches = EpochBatches(103, 8, training=True)
    batches.set_epoch(0, skip_batches=5)
    batches.set_epoch(1)
    assert [batch.tolist() for batch in batches] == run(epoch=1)


def test_a_new_epoch_does_not_disturb_an_iteration_under_way():
    batches = EpochBatches(103, 8, training=True)
    under_way = iter(batches)
    batches.set_epoch(1)
    assert [batch.tolist() for batch in under_way] == run(epoch=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_length_is_the_number_of_batches_even_after_a_skip(training):
    for rank in range(3):
        batches = EpochBatches(100, 9, training=training, share=Share(rank, 3), micro_batches=3)
        assert len(batches) == len(list(batches))
        length = len(batches)
        batches.set_epoch(0, skip_batches=3)
        assert len(batches) == length == len(list(batches)) + 3


def test_images_per_epoch_are_those_of_all_processes():
    assert EpochBatches(103, 8, training=True, share=Share(1, 3)).images_per_epoch == 96
    assert EpochBatches(103, 8, training=False, share=Share(1, 3)).images_per_epoch == 103


def test_torch_accepts_it_as_a_batch_sampler():
    batches = EpochBatches(103, 8, training=True)
    loader = DataLoader(TensorDataset(torch.arange(103)), batch_sampler=batches)
    assert [images.tolist() for (images,) in loader] == run()


def test_neighbouring_seeds_are_unrelated():
    seeds = [mix_seed(a, b, c) for a in range(10) for b in range(10) for c in range(1, 10)]
    assert len(set(seeds)) == 900
    assert mix_seed(1, 2) != mix_seed(2, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"length": 0}, "length, batch_size and micro_batches must be positive; got 0, 8 and 1"),
        ({"batch_size": 0}, "must be positive; got 103, 0 and 1"),
        ({"micro_batches": 0}, "must be positive; got 103, 8 and 0"),
        ({"share": Share(2, 2)}, "rank must be 0 to world_size - 1; got 2 of 2"),
        ({"share": Share(-1, 2)}, "rank must be 0 to world_size - 1; got -1 of 2"),
        ({"seed": -3}, "seed must be 0 or more; got -3"),
        ({"micro_batches": 3}, "must be a multiple of the 3 micro-batches; got 8"),
        ({"batch_size": 104}, r"at most the 103 training images; got 104 \(1 x 104\)"),
        ({"batch_size": 52, "share": Share(0, 2)}, r"got 104 \(2 x 52\)"),
        ({"epoch": -1}, "epoch must be 0 or more; got -1"),
        ({"skip": -1}, "skipped batches must be 0 to 12 in steps of 1; got -1"),
        ({"skip": 13}, "skipped batches must be 0 to 12 in steps of 1; got 13"),
        ({"skip": 3, "micro_batches": 2}, "must be 0 to 24 in steps of 2; got 3"),
    ],
)
def test_wrong_numbers_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(**options)


def test_a_total_batch_of_all_images_is_accepted():
    assert sorted(flat(run(batch_size=103))) == list(range(103))
