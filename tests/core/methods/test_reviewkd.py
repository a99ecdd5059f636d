import pytest
import torch

from reviewkd_det.core import ReviewDistiller, warmup_factor
from tests import reference


def distiller_and_levels():
    torch.manual_seed(0)
    distiller = ReviewDistiller([3, 4], [6, 5], 7)
    student = [torch.randn(2, 3, 9, 12), torch.randn(2, 4, 5, 6)]
    teacher = [torch.randn(2, 6, 11, 10), torch.randn(2, 5, 6, 5)]
    return distiller, student, teacher


def test_one_loss_per_level_as_the_naive_implementation_gives():
    distiller, student, teacher = distiller_and_levels()
    sizes = [tuple(level.shape[-2:]) for level in teacher]
    fused = reference.review_walk(distiller.path.state_dict(), student, sizes, training=True)
    expected = [reference.hcl(f, t) for f, t in zip(fused, teacher, strict=True)]
    torch.testing.assert_close(distiller(student, teacher), expected)


def test_every_parameter_of_the_distiller_learns():
    distiller, student, teacher = distiller_and_levels()
    sum(distiller(student, teacher)).backward()
    without = [n for n, p in distiller.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_single_cell_in_eval_mode_is_handled():
    distiller = ReviewDistiller([3], [4], 5).eval()
    (loss,) = distiller([torch.randn(2, 3, 1, 1)], [torch.randn(2, 4, 1, 1)])
    assert loss.isfinite()


def test_bad_teacher_levels_are_refused():
    distiller, student, teacher = distiller_and_levels()
    with pytest.raises(ValueError, match=r"C = \[6, 5\]; got shapes \[\(2, 6, 11, 10\)\]"):
        distiller(student, teacher[:1])
    with pytest.raises(ValueError, match=r"C = \[6, 5\]; got shapes \[\(2, 5, 6, 5\)"):
        distiller(student, teacher[::-1])
    with pytest.raises(ValueError, match=r"got \(2, 5, 6, 5\) and \(1, 5, 6, 5\)"):
        distiller(student, [teacher[0], teacher[1][:1]])
    with pytest.raises(ValueError, match="must not require a gradient"):
        distiller(student, [teacher[0].requires_grad_(), teacher[1]])
    with pytest.raises(ValueError, match="number 2; got 1 student levels"):
        distiller(student[:1], teacher)


def test_warmup_is_linear_then_one():
    assert [warmup_factor(step, 20) for step in (0, 5, 20, 300)] == [0.0, 0.25, 1.0, 1.0]
    assert warmup_factor(0, 0) == 1.0
    with pytest.raises(ValueError, match="negative; got -1 and 20"):
        warmup_factor(-1, 20)
