import pytest
import torch
from torch import nn

from reviewkd_det.core import Method, Weighted, decay_factor, warmup_factor


def test_warmup_is_linear_then_one():
    assert [warmup_factor(step, 20) for step in (0, 5, 20, 300)] == [0.0, 0.25, 1.0, 1.0]
    assert warmup_factor(0, 0) == 1.0
    with pytest.raises(ValueError, match="negative; got -1 and 20"):
        warmup_factor(-1, 20)


def test_the_factor_is_the_weight_that_grows():
    weighted = Weighted(Method, 3.0, 10)
    assert [weighted.factor(step) for step in (0, 5, 10, 20)] == [0.0, 1.5, 3.0, 3.0]


def test_decay_is_linear_then_zero():
    assert [decay_factor(step, 20) for step in (0, 5, 20, 300)] == [1.0, 0.75, 0.0, 0.0]
    assert decay_factor(300, 0) == 1.0


def test_the_factor_grows_falls_and_ends():
    weighted = Weighted(Method, 4.0, 10, 20)
    assert [weighted.factor(step) for step in (0, 5, 10, 15, 20)] == [0.0, 1.5, 2.0, 1.0, 0.0]
    assert [weighted.has_ended(step) for step in (0, 19, 20, 21)] == [False, False, True, True]
    assert not Weighted(Method).has_ended(10**9)


def test_what_has_ended_gives_its_parameters_a_gradient_of_zero():
    method = nn.Linear(2, 3)
    loss = Weighted(method, decay_steps=1).nothing(torch.ones(4))
    loss.backward()
    assert loss.shape == ()
    assert loss == 0
    assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in method.parameters())
