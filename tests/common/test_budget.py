"""How long to train in a given time."""

import pytest

from reviewkd_det.common.runs.budget import Measured, choose_schedule, fit_batch


def test_the_time_that_is_left_is_used():
    schedule = choose_schedule(1000, Measured(step=0.5, overhead=20, images=10_000), batch=4)
    assert schedule == ((1000 - 40 - 60) / 0.5, False)


@pytest.mark.parametrize(("images", "expected"), [(200, 3000), (10_000, 90_000)])
def test_a_training_gets_no_longer_than_it_needs(images, expected):
    schedule = choose_schedule(1e6, Measured(step=0.5, overhead=20, images=images), batch=4)
    assert schedule == (expected, True)


def test_no_time_is_refused():
    with pytest.raises(
        ValueError, match=r"time for 50 iterations of 0.50 s, .* 0.03 h; got 0.01 h"
    ):
        choose_schedule(40, Measured(step=0.5, overhead=10, images=100), batch=4)


def test_a_batch_that_is_too_large_is_cut_with_its_rate():
    assert fit_batch(16, 0.02, 4, adaptive=False) == (4, 0.005)
    assert fit_batch(16, 0.02, 4, adaptive=True) == (4, 0.01)
    assert fit_batch(4, 0.02, 16, adaptive=True) == (4, 0.02)
