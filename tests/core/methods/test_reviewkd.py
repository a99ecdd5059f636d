import pytest
import torch

from reviewkd_det.core import Level, ReviewDistiller, Side, Truth, View, find_method
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


def build(student_channels, teacher_channels, **settings):
    sides = [
        Side(tuple(Level(f"l{i}", c) for i, c in enumerate(channels)))
        for channels in (student_channels, teacher_channels)
    ]
    method = find_method("ReviewKD")
    return method(method.Settings(**settings), *sides)


@pytest.mark.parametrize(("coarsest", "mid"), [(6, 6), (512, 512), (2048, 512)])
def test_the_fusions_share_the_coarsest_channels_of_the_student_up_to_512(coarsest, mid):
    path = build([3, coarsest], [4, 5]).distiller.path
    assert path.levels[0].reduce[0].out_channels == mid
    path = build([3, coarsest], [4, 5], mid_channels=9).distiller.path
    assert path.levels[0].reduce[0].out_channels == 9
    assert (path.levels[0].expand[0].out_channels, path.levels[1].expand[0].out_channels) == (4, 5)


def test_groups_must_divide_the_channels():
    build([3, 4], [64, 32], mid_channels=32, norm="GN")
    with pytest.raises(ValueError, match=r"norm must be .* \[12, 64, 32\].* of 32; got 'GN'"):
        build([3, 4], [64, 32], mid_channels=12, norm="GN")


def test_the_scale_of_the_teacher_does_not_matter_with_rms():
    student = View([torch.randn(2, 3, 8, 12), torch.randn(2, 4, 4, 6)])
    teacher = [torch.randn(2, 6, 8, 12), torch.randn(2, 5, 4, 6)]
    losses = []
    for factor in (1.0, 1000.0):
        torch.manual_seed(0)
        method = build([3, 4], [6, 5], teacher_scale="rms")
        losses.append(method(student, View([factor * level for level in teacher]), Truth()))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)


def test_the_names_in_its_state_are_those_of_earlier_runs():
    names = set(build([3, 4], [6, 5], teacher_scale="rms").state_dict())
    assert {"teacher_scale.mean_square", "teacher_scale.measured"} < names
    assert {f"distiller.path.levels.{i}.reduce.0.weight" for i in (0, 1)} < names
    assert {"distiller.path.levels.0.gate.bias", "distiller.path.levels.1.expand.1.bias"} < names
