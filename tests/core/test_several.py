"""One method from several teachers, and their weights."""

import pytest
import torch

from reviewkd_det.core import FromEach, Truth, View, balanced_weights, find_method
from tests.core.methods import samples

GENERATOR = torch.Generator().manual_seed(0)


def test_equal_gradients_have_equal_weights():
    assert balanced_weights(torch.ones(4, 3)).tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("length", [1.0, 5.0])
def test_opposite_gradients_cancel(length):
    gradient = torch.tensor([3.0, -4.0, 1.0])
    gradients = torch.stack([gradient, -length * gradient])
    weights = balanced_weights(gradients)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights @ gradients).tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_the_weights_are_the_best_of_all():
    """Compared with a fine grid of the weights of three losses."""
    gradients = torch.randn(3, 6, generator=GENERATOR, dtype=torch.float64)
    gradients[2] = -gradients[0] - 0.3 * gradients[1]  # else the limit is not reached
    units = gradients / gradients.norm(dim=1, keepdim=True)
    grid = torch.linspace(0, 0.6, 601, dtype=torch.float64)
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    points = torch.stack([a, b, 1 - a - b], dim=-1).flatten(0, 1)
    points = points[(points[:, 2] >= 0) & (points[:, 2] <= 0.6)]
    best = points[(points @ units).norm(dim=1).argmin()]
    best = best / gradients.norm(dim=1)
    assert balanced_weights(gradients).tolist() == pytest.approx(
        (best / best.sum()).tolist(), abs=3e-3
    )


def test_a_teacher_has_no_more_than_the_largest_weight():
    gradients = torch.eye(3) * torch.tensor([1.0, 1.0, 0.0])[:, None] + 1e-3
    assert balanced_weights(torch.randn(5, 9, generator=GENERATOR), 0.2).isfinite().all()
    assert balanced_weights(gradients, 0.5).isfinite().all()


def build(name, levels, **options):
    method = find_method(name)
    methods = [
        method(
            method.Settings(),
            samples.side(samples.STUDENT)._replace(
                levels=samples.side(samples.STUDENT).levels[-n:]
            ),
            samples.side(samples.SAME)._replace(levels=samples.side(samples.SAME).levels[-n:]),
        )
        for n in levels
    ]
    return FromEach(methods, levels, **options).train()


def views(levels):
    first, *others = (
        samples.view(samples.SAME, seed)._replace(
            levels=samples.view(samples.SAME, seed).levels[-n:]
        )
        for seed, n in enumerate(levels, start=5)
    )
    return samples.view(samples.STUDENT, 1), first._replace(others=others)


@pytest.mark.parametrize("name", ["KD", "DKD", "AT", "PKD"])
def test_the_loss_is_the_mean_of_those_from_each(name):
    """A teacher of fewer levels is compared with the student's last ones."""
    levels = (2, 1, 2)
    built = build(name, levels)
    student, teacher = views(levels)
    found = samples.total(built(student, teacher, samples.truth()))
    alone = [
        samples.total(method(student._replace(levels=student.levels[-n:]), view, samples.truth()))
        for method, n, view in zip(built.each, levels, (teacher, *teacher.others), strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(alone).mean())
    assert built.needs == find_method(name).needs


def test_balanced_losses_oppose_each_other_less_than_their_mean():
    student, teacher = views((2, 2, 2))
    logits = student.logits.requires_grad_()
    norms = []
    for largest in (0.0, 0.6):
        built = build("KD", (2, 2, 2), largest=largest)
        loss = samples.total(built(student, teacher, samples.truth()))
        (gradient,) = torch.autograd.grad(loss, logits)
        norms.append(gradient.sum(dim=0).norm().item())
    assert norms[1] < norms[0]
    with torch.no_grad():  # where no gradient can be measured
        assert samples.total(built(student, teacher, samples.truth())).isfinite()


def test_a_stage_is_that_of_each():
    built = build("FT", (2, 2))
    student, teacher = views((2, 2))
    truth = Truth()
    alone = [
        method.forward_stage(student, view, truth)[""]
        for method, view in zip(built.each, (teacher, *teacher.others), strict=True)
    ]
    found = built.forward_stage(student, teacher, truth)
    torch.testing.assert_close(found[""], torch.stack(alone).mean())
    assert not built.teaches_in_stage


def test_a_view_has_no_others_unless_there_are_some():
    assert View().others == ()
