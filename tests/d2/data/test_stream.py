"""Batches are a function of the seed and of their number."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data.samplers import TrainingSampler

from reviewkd_det.d2.data import JoinedLoader, StreamLoader

RECORDS = [{"number": i, "width": 60 + 20 * (i % 3), "height": 80} for i in range(11)]


def draw(record):
    """A mapper that draws from every generator there is."""
    return {**record, "drawn": (random.random(), np.random.rand(), torch.rand(()).item())}


def loader(batch_size=2, records=RECORDS, seed=5, **options):
    sampler = TrainingSampler(len(records), seed=7)
    return StreamLoader(records, draw, sampler, batch_size, seed=seed, **options)


def take(stream, batches):
    return list(islice(iter(stream), batches))


@pytest.mark.parametrize("grouping", [False, True])
@pytest.mark.parametrize("done", [1, 5, 17])
def test_what_is_skipped_changes_nothing_that_follows(done, grouping):
    whole = take(loader(aspect_ratio_grouping=grouping), 24)
    rest = loader(aspect_ratio_grouping=grouping)
    rest.skip(done)
    assert take(rest, 24 - done) == whole[done:]


def test_workers_change_nothing():
    assert take(loader(num_workers=2), 6) == take(loader(), 6)


def test_images_draw_differently_each_time_and_by_the_seed():
    images = [x for batch in take(loader(), 11) for x in batch]
    assert {x["number"] for x in images} == set(range(11))
    assert len({x["drawn"] for x in images}) == 22
    assert take(loader(seed=6), 1) != take(loader(), 1)


def test_the_random_states_of_the_process_are_left_alone():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    take(loader(), 3)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_a_batch_is_wide_or_not():
    batches = take(loader(aspect_ratio_grouping=True), 20)
    kinds = {tuple({x["width"] > x["height"] for x in batch}) for batch in batches}
    assert kinds == {(True,), (False,)}


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_what_one_would_see(processes, monkeypatch):
    shares = []
    for rank in range(processes):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: processes)
        shares.append(take(loader(2), 5))
    monkeypatch.undo()
    for whole, *parts in zip(take(loader(2 * processes), 5), *shares, strict=True):
        together = [x for part in parts for x in part]
        assert sorted(whole, key=str) == sorted(together, key=str)


def test_joined_streams_are_skipped_together():
    def joined():
        return JoinedLoader(loader(2), loader(3, seed=8))

    whole, rest = take(joined(), 6), joined()
    rest.skip(4)
    assert take(rest, 2) == whole[4:]
    assert [x["drawn"] for x in rest.last_batch] == [x["drawn"] for x in whole[5]]
