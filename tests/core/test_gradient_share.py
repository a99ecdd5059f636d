import copy
import math

import pytest
import torch

from reviewkd_det.core import GradientShare


def losses(x, scale=1.0):
    """Two losses on a tensor, whose gradients have norms that are known."""
    return (3.0 * x).sum(), scale * (x * torch.tensor([4.0, 0.0])).sum()


def point():
    return torch.ones(2, requires_grad=True)


def test_the_weighted_gradient_has_the_share():
    share, x = GradientShare(0.5), point()
    share.measure(*losses(x), [x])
    # Norms 3 sqrt(2) and 4.
    assert share.weight == pytest.approx(0.5 * 3 * math.sqrt(2) / 4)


def test_norms_are_over_all_tensors_that_a_loss_reaches():
    share, x, y = GradientShare(1.0), point(), point()
    own, _ = losses(x)
    share.measure(own + (4 * y).sum(), (5 * y).sum(), [x, y])
    assert share.weight == pytest.approx(math.sqrt(2 * 9 + 2 * 16) / math.sqrt(2 * 25))


def test_gradients_are_left_as_they_are():
    share, x = GradientShare(1.0), point()
    own, loss = losses(x)
    share.measure(own, loss, [x])
    assert x.grad is None
    (own + loss).backward()
    assert x.grad.tolist() == [7.0, 3.0]


def test_every_25th_step_is_measured_and_smoothed():
    share, x = GradientShare(1.0), point()
    for step in range(51):
        share.measure(*losses(x, 1.0 if step < 25 else 2.0), [x])
        if step in (0, 24):
            first = share.weight
    assert first == pytest.approx(3 * math.sqrt(2) / 4)
    # Half of it twice, each time with half of it in logarithms.
    assert share.weight == pytest.approx(first * 0.5 ** (0.5 + 0.5 * 0.5))


def test_the_first_measurement_counts_in_full_whenever_it_comes():
    share, x = GradientShare(1.0), point()
    own, loss = losses(x)
    share.measure(0.0 * own, loss, [x])
    assert share.weight == 1.0
    share.measure(own, loss, [x])
    assert share.weight == pytest.approx(3 * math.sqrt(2) / 4)


@pytest.mark.parametrize("odd", ["zero", "nan", "unused", "none", "frozen"])
def test_a_step_without_gradients_changes_nothing(odd):
    share, x = GradientShare(1.0), point()
    own, loss = losses(x)
    points = [x]
    if odd == "zero":
        loss = 0.0 * loss
    elif odd == "nan":
        loss = float("nan") * loss
    elif odd == "unused":
        loss = (1.0 * point()).sum()
    elif odd == "none":
        own = None
    else:
        points = []
    share.measure(own, loss, points)
    assert share.weight == 1.0


def test_it_goes_on_where_it_was():
    share, x = GradientShare(1.0), point()
    for step in range(30):
        share.measure(*losses(x, 1.0 + step), [x])
    other = GradientShare(1.0)
    other.load_state_dict(copy.deepcopy(share.state_dict()))
    for step in range(30):
        for one in (share, other):
            one.measure(*losses(x, 7.0 + step), [x])
    assert other.weight == share.weight != 1.0


def test_small_gradients_in_float16_are_seen():
    share = GradientShare(1.0)
    x = torch.ones(4, dtype=torch.float16, requires_grad=True)
    share.measure((x * 1e-7).sum(), (x * 2e-7).sum(), [x])
    assert share.weight == pytest.approx(0.5, rel=0.3)
