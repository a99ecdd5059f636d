import pytest

from reviewkd_det.core import Method, Weighted, warmup_factor


def test_warmup_is_linear_then_one():
    assert [warmup_factor(step, 20) for step in (0, 5, 20, 300)] == [0.0, 0.25, 1.0, 1.0]
    assert warmup_factor(0, 0) == 1.0
    with pytest.raises(ValueError, match="negative; got -1 and 20"):
        warmup_factor(-1, 20)


def test_the_factor_is_the_weight_that_grows():
    weighted = Weighted(Method, 3.0, 10)
    assert [weighted.factor(step) for step in (0, 5, 10, 20)] == [0.0, 1.5, 3.0, 3.0]
