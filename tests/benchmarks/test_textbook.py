"""The textbook form of the method: it is core's in value and gradient."""

import pytest
import torch
from torch import nn

from benchmarks.textbook import TextbookReview, textbook_hcl
from reviewkd_det.core import ReviewDistiller, hierarchical_context_loss

STUDENT, TEACHER, MID = (6, 8, 5), (7, 4, 9), 10
STUDENT_SIZES = [(13, 18), (7, 9), (3, 5)]
TEACHER_SIZES = [(12, 20), (7, 10), (4, 3)]


def maps(channels, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, c, *size, generator=generator)
        for c, size in zip(channels, sizes, strict=True)
    ]


def same_weights():
    """Ours and the textbook's, with weights that differ from every default."""
    torch.manual_seed(3)
    ours, textbook = ReviewDistiller(STUDENT, TEACHER, MID), TextbookReview(STUDENT, TEACHER, MID)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, 0.3, 0.5)
    for buffer in ours.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5)
    textbook.load_state_dict(ours.state_dict())
    return ours, textbook


def losses_and_gradients(review, student_sizes, teacher_sizes):
    student = [x.requires_grad_() for x in maps(STUDENT, student_sizes, 1)]
    losses = review(student, maps(TEACHER, teacher_sizes, 2))
    weighted = sum((i + 1) * loss for i, loss in enumerate(losses))
    parameters = dict(review.named_parameters())
    gradients = torch.autograd.grad(weighted, [*student, *parameters.values()])
    names = [f"level {i}" for i in range(len(student))] + list(parameters)
    return torch.stack(losses), dict(zip(names, gradients, strict=True))


def assert_equal(actual, expected):
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=1e-6)
    assert set(actual[1]) == set(expected[1])
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            actual[1][name], gradient, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_state_dicts_load_both_ways():
    ours, textbook = ReviewDistiller(STUDENT, TEACHER, MID), TextbookReview(STUDENT, TEACHER, MID)
    textbook.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(TextbookReview(STUDENT, TEACHER, MID).state_dict(), strict=True)
    assert sum(p.numel() for p in textbook.parameters()) == sum(
        p.numel() for p in ours.parameters()
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "teacher_sizes", [STUDENT_SIZES, TEACHER_SIZES], ids=["equal sizes", "uneven sizes"]
)
def test_the_textbook_is_core_in_value_and_gradient(teacher_sizes, training):
    ours, textbook = same_weights()
    expected = losses_and_gradients(ours.train(training), STUDENT_SIZES, teacher_sizes)
    actual = losses_and_gradients(textbook.train(training), STUDENT_SIZES, teacher_sizes)
    assert_equal(actual, expected)
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(textbook.get_buffer(name), buffer)


def test_one_level_has_no_gate():
    review = TextbookReview([3], [4], 5)
    assert not any("gate" in name for name in review.state_dict())
    (loss,) = review([torch.ones(2, 3, 2, 5)], [torch.zeros(2, 4, 2, 5)])
    assert loss.isfinite()


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (3, 2), (4, 9), (5, 4), (11, 6)])
def test_the_textbook_loss_is_core(size):
    student, teacher = maps([3], [size], 1)[0].requires_grad_(), maps([3], [size], 2)[0]
    results = []
    for hcl in (textbook_hcl, hierarchical_context_loss):
        loss = hcl(student, teacher)
        results.append((loss, *torch.autograd.grad(loss, student)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("height", "weights"), [(1, 1.0), (2, 1.5), (4, 1.75), (6, 1.875)])
def test_the_loss_of_a_constant_and_of_a_checkerboard(height, weights):
    teacher = torch.zeros(2, 3, height, 10)
    assert float(textbook_hcl(teacher + 3, teacher)) == pytest.approx(9)
    if height in (2, 4):  # each pooled cell holds as many of both signs
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(8), indexing="ij")
        board = (3 - 6 * ((rows + columns) % 2)).float().expand(2, 3, -1, -1)
        expected = 9 / weights
        assert float(textbook_hcl(board, torch.zeros_like(board))) == pytest.approx(expected)
