"""KD and DKD of logits whose classes are told apart by a sigmoid each."""

import math

import pytest
import torch
from torch.nn import functional as F

from reviewkd_det.core import (
    Level,
    Side,
    Truth,
    View,
    binary_decoupled_loss,
    binary_distillation_loss,
    distillation_loss,
    find_method,
)


def logits(rows=6, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, rows, classes, generator=generator).double() * 3
    return student, teacher, torch.randint(0, classes, (rows,), generator=generator)


def naive(student, teacher, target, alpha, beta, temperature):
    """Class by class, with probabilities written out."""
    total = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        for k, (x, y) in enumerate(zip(s, t, strict=True)):
            p, q = (1 / (1 + math.exp(-z / temperature)) for z in (x, y))
            divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
            total += temperature**2 * (alpha if k == label else beta) * divergence
    return total / len(target)


@pytest.mark.parametrize(("alpha", "beta", "temperature"), [(1.0, 0.25, 1.0), (0.5, 8.0, 4.0)])
def test_it_equals_the_naive_implementation(alpha, beta, temperature):
    given = logits()
    weights = {"alpha": alpha, "beta": beta, "temperature": temperature}
    loss = binary_decoupled_loss(*given, **weights)
    assert loss.item() == pytest.approx(naive(*given, **weights))
    plain = binary_distillation_loss(*given[:2], temperature=temperature)
    assert plain.item() == pytest.approx(naive(*given, 1.0, 1.0, temperature))


def test_one_class_is_a_softmax_with_a_logit_of_zero():
    student, teacher, _ = logits(classes=1)
    pairs = [F.pad(x, (0, 1)) for x in (student, teacher)]
    torch.testing.assert_close(
        binary_distillation_loss(student, teacher, temperature=2.0),
        distillation_loss(*pairs, temperature=2.0),
    )


def test_equal_logits_give_zero_and_sure_ones_stay_finite():
    student, _, target = logits()
    assert binary_decoupled_loss(student, student.clone(), target).item() == 0
    sure = torch.tensor([[100.0, -100.0]], requires_grad=True)
    loss = binary_distillation_loss(sure, -sure.detach())
    loss.backward()
    assert loss.isfinite()
    assert sure.grad.isfinite().all()


def test_gradcheck_and_no_rows():
    student, teacher, target = logits()
    assert torch.autograd.gradcheck(
        lambda x: binary_decoupled_loss(x, teacher, target, temperature=2.0),
        student.requires_grad_(),
    )
    empty = torch.zeros(0, 5, requires_grad=True)
    for loss in (
        binary_distillation_loss(empty, torch.zeros(0, 5)),
        binary_decoupled_loss(empty, torch.zeros(0, 5), torch.zeros(0).long()),
    ):
        loss.backward()
        assert loss.item() == 0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"K at least 1; got \(4, 0\)"):
        binary_distillation_loss(torch.zeros(4, 0), torch.zeros(4, 0))
    with pytest.raises(ValueError, match=r"each of 4 samples; got shape \(3,\)"):
        binary_decoupled_loss(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(3).long())


@pytest.mark.parametrize("name", ["KD", "DKD"])
def test_a_method_takes_the_form_of_its_sides(name):
    student, teacher, target = logits()
    method = find_method(name)
    losses = []
    for binary in (False, True):
        side = Side((Level("a", 1),), 5, binary)
        built = method(method.Settings(), side, side)
        losses.append(built(View((), student), View((), teacher), Truth(target))[""])
    form = {"KD": binary_distillation_loss(student, teacher, temperature=4.0)}
    form["DKD"] = binary_decoupled_loss(student, teacher, target, beta=8.0, temperature=4.0)
    torch.testing.assert_close(losses[1], form[name])
    assert losses[0] != losses[1]
