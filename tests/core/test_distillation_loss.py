import math

import pytest
import torch

from reviewkd_det.core import distillation_loss


def logits(samples=6, classes=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, samples, classes, generator=generator, dtype=torch.float64) * 3


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_equals_the_sum_written_out(temperature):
    student, teacher = logits()
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = ([math.exp(x / temperature) for x in row] for row in (s, t))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        total += temperature**2 * sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    loss = distillation_loss(student, teacher, temperature=temperature)
    assert loss.item() == pytest.approx(total / 6)


def test_equal_logits_give_zero_whatever_is_added_to_all_of_a_sample():
    student, _ = logits()
    shifted = student + torch.arange(6.0).view(-1, 1)
    assert distillation_loss(student, shifted).item() == pytest.approx(0, abs=1e-12)


def test_a_high_temperature_compares_centred_logits():
    # Hinton et al., equation 4: the limit is half their mean squared difference.
    student, teacher = logits()
    centred = student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True)
    limit = 0.5 * (centred[0] - centred[1]).square().mean(1).mean()
    torch.testing.assert_close(
        distillation_loss(student, teacher, temperature=1e4), limit, rtol=1e-3, atol=0
    )


def test_its_gradient_is_right_and_no_samples_give_zero():
    student, teacher = logits()
    assert torch.autograd.gradcheck(
        lambda x: distillation_loss(x, teacher), student.requires_grad_()
    )
    assert distillation_loss(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0


def test_half_precision_is_computed_in_float32():
    student, teacher = (torch.full((2, 3), x).half() for x in (6e4, -6e4))
    loss = distillation_loss(student, teacher, temperature=1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), 4.0, r"\(2, 3\) and \(2, 4\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3), 0.0, "positive; got 0.0"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3, requires_grad=True),
            4.0,
            r"got some of shape \(2, 3",
        ),
    ],
)
def test_bad_input_is_refused(student, teacher, temperature, message):
    with pytest.raises(ValueError, match=message):
        distillation_loss(student, teacher, temperature=temperature)
