"""A loader that is not known to us is read past what a run has seen."""

import pytest

from reviewkd_det.d2.data.own_loader import OwnLoader

BATCHES = [[{"file_name": f"{number}.png"}] for number in range(3)]


def test_it_goes_on_after_the_batches_that_were_seen():
    loader = OwnLoader(BATCHES)
    loader.skip(2)
    assert next(iter(loader)) == BATCHES[2] == loader.last_batch


def test_batches_that_end_are_refused():
    loader = OwnLoader(BATCHES)
    with pytest.raises(ValueError, match=r"dataloader.train must give .*; got 3"):
        loader.skip(4)
    with pytest.raises(ValueError, match=r"dataloader.train must give .*; got its last one"):
        list(OwnLoader(BATCHES))
