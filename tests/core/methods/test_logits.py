import math

import pytest
import torch
from torch.nn import functional as F

from reviewkd_det.core import decoupled_distillation_loss


def logits(samples=6, classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, samples, classes, generator=generator, dtype=dtype) * 3
    target = torch.randint(0, classes, (samples,), generator=generator)
    return student, teacher, target


def naive(student, teacher, target, alpha, beta, temperature):
    """Sample by sample, with probabilities and sums written out."""
    total = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        p, q = ([math.exp(x / temperature) for x in row] for row in (s, t))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        others = [k for k in range(len(p)) if k != label]
        rest_p, rest_q = sum(p[k] for k in others), sum(q[k] for k in others)
        pairs = [(q[label], p[label]), (rest_q, rest_p)]
        binary = sum(b * math.log(b / a) for b, a in pairs)
        among = sum(q[k] / rest_q * math.log((q[k] / rest_q) / (p[k] / rest_p)) for k in others)
        total += temperature**2 * (alpha * binary + beta * among)
    return total / len(target)


@pytest.mark.parametrize(("alpha", "beta", "temperature"), [(1.0, 0.25, 1.0), (0.5, 8.0, 4.0)])
def test_it_equals_the_naive_implementation(alpha, beta, temperature):
    student, teacher, target = logits()
    weights = {"alpha": alpha, "beta": beta, "temperature": temperature}
    loss = decoupled_distillation_loss(student, teacher, target, **weights)
    assert loss.item() == pytest.approx(naive(student, teacher, target, **weights))


def test_equal_logits_give_zero_whatever_is_added_to_all_of_a_sample():
    student, _, target = logits()
    shifted = student + torch.arange(6.0).view(-1, 1)
    assert decoupled_distillation_loss(student, shifted, target).item() == pytest.approx(
        0, abs=1e-12
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_plain_divergence_when_alpha_and_beta_are_set_so(temperature):
    student, teacher, target = logits(samples=1)
    p_target = F.softmax(teacher / temperature, dim=1)[0, target.item()].item()
    loss = decoupled_distillation_loss(
        student, teacher, target, alpha=1.0, beta=1 - p_target, temperature=temperature
    )
    plain = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.softmax(teacher / temperature, dim=1),
        reduction="batchmean",
    )
    torch.testing.assert_close(loss, temperature**2 * plain)


def test_two_classes_have_no_other_to_compare():
    student, teacher, target = logits(classes=2)
    without = decoupled_distillation_loss(student, teacher, target, beta=0.0)
    torch.testing.assert_close(
        decoupled_distillation_loss(student, teacher, target, beta=9.0), without
    )


def test_gradcheck():
    student, teacher, target = logits()
    assert torch.autograd.gradcheck(
        lambda x: decoupled_distillation_loss(x, teacher, target, temperature=2.0),
        student.requires_grad_(),
    )


def test_a_teacher_that_is_certain_keeps_loss_and_gradient_finite():
    student = torch.tensor([[0.0, 100.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[200.0, 0.0, 0.0]])
    loss = decoupled_distillation_loss(student, teacher, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    student, teacher, target = logits(dtype=torch.float32)
    half = decoupled_distillation_loss(student.half(), teacher.half(), target)
    assert half.dtype == torch.float32
    torch.testing.assert_close(
        half, decoupled_distillation_loss(student, teacher, target), rtol=0.01, atol=0
    )


def test_no_samples_give_a_zero_that_can_be_differentiated():
    student = torch.zeros(0, 5, requires_grad=True)
    loss = decoupled_distillation_loss(student, torch.zeros(0, 5), torch.zeros(0).long())
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("student", "teacher", "target", "temperature", "words"),
    [
        ((4, 5), (4, 6), 4, 1.0, r"got \(4, 5\) and \(4, 6\)"),
        ((4, 1), (4, 1), 4, 1.0, r"K at least 2; got \(4, 1\)"),
        ((4, 5), (4, 5), 3, 1.0, r"each of 4 samples; got shape \(3,\)"),
        ((4, 5), (4, 5), 4, 0.0, "temperature must be positive; got 0.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(student, teacher, target, temperature, words):
    labels = torch.zeros(target).long()
    with pytest.raises(ValueError, match=words):
        decoupled_distillation_loss(
            torch.zeros(student), torch.zeros(teacher), labels, temperature=temperature
        )


def test_a_teacher_that_requires_a_gradient_is_refused():
    teacher = torch.zeros(4, 5, requires_grad=True)
    with pytest.raises(ValueError, match=r"not require a gradient; got some of shape \(4, 5\)"):
        decoupled_distillation_loss(torch.zeros(4, 5), teacher, torch.zeros(4).long())
