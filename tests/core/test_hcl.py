import pytest
import torch
from torch.nn import functional as F

from reviewkd_det.core import hierarchical_context_loss
from tests import facts_rule, reference

SHAPES = [(2, 3, 16, 12), (2, 3, 7, 9), (2, 5, 4, 6), (2, 5, 3, 8), (2, 4, 2, 5), (3, 4, 1, 1)]
FACTS = facts_rule.load("review_reference.json")["hcl"]


def pair(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *shape, generator=generator, dtype=dtype).unbind()


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: str(fact["shape"]))
def test_loss_and_gradient_equal_the_published_behaviour(fact):
    student = facts_rule.made_input(fact["shape"]).requires_grad_()
    reverse = tuple(reversed(range(4)))
    teacher = facts_rule.made_input(fact["shape"][::-1]).permute(reverse)
    loss = hierarchical_context_loss(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(fact["loss"], rel=1e-5)
    assert student.grad.abs().sum().item() == pytest.approx(fact["grad_sum_abs"], rel=1e-5)
    first = student.grad.flatten()[: len(fact["grad_first"])].tolist()
    assert first == pytest.approx(fact["grad_first"], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_a_constant_apart_give_its_square(shape):
    student, _ = pair(shape, torch.float64)
    loss = hierarchical_context_loss(student, student - 3.0)
    assert loss.item() == pytest.approx(9.0)


def test_a_checkerboard_survives_in_the_full_map_only():
    rows, columns = torch.arange(8).view(-1, 1), torch.arange(12).view(1, -1)
    board = (1.0 - 2.0 * ((rows + columns) % 2)).expand(2, 3, 8, 12)
    loss = hierarchical_context_loss(0.5 * board, torch.zeros(2, 3, 8, 12))
    assert loss.item() == pytest.approx(0.25 / (1 + 1 / 2 + 1 / 4 + 1 / 8))


def test_a_pool_size_not_below_the_height_keeps_its_weight_for_the_next():
    student, teacher = pair((2, 3, 2, 6))  # only pooling to 1 x 1 is left
    full = F.mse_loss(student, teacher)
    pooled = F.mse_loss(student.mean((2, 3)), teacher.mean((2, 3)))
    expected = (full + pooled / 2) / 1.5
    torch.testing.assert_close(hierarchical_context_loss(student, teacher), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_equal_the_naive_implementation(shape):
    student, teacher = pair(shape)
    mine, naive = student.clone().requires_grad_(), student.clone().requires_grad_()
    loss, expected = hierarchical_context_loss(mine, teacher), reference.hcl(naive, teacher)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(mine.grad, naive.grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradcheck(shape):
    student, teacher = pair(shape, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: hierarchical_context_loss(x, teacher), student.requires_grad_()
    )


def test_swapping_the_maps_changes_nothing_and_doubling_the_difference_quadruples():
    student, teacher = pair((2, 3, 9, 6), torch.float64)
    loss = hierarchical_context_loss(student, teacher)
    torch.testing.assert_close(hierarchical_context_loss(teacher, student), loss)
    doubled = hierarchical_context_loss(teacher + 2 * (student - teacher), teacher)
    torch.testing.assert_close(doubled, 4 * loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_half_precision_maps_do_not_overflow(dtype):
    student = torch.full((2, 3, 8, 6), 1000.0, dtype=dtype)
    loss = hierarchical_context_loss(student, -student)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(4e6)


def test_other_pool_sizes_are_walked_in_the_order_given():
    student, teacher = pair((2, 3, 8, 6))
    full = F.mse_loss(student, teacher)
    torch.testing.assert_close(hierarchical_context_loss(student, teacher, ()), full)
    pooled = F.mse_loss(F.adaptive_avg_pool2d(student, 3), F.adaptive_avg_pool2d(teacher, 3))
    loss = hierarchical_context_loss(student, teacher, (3,))
    torch.testing.assert_close(loss, (full + pooled / 2) / 1.5)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((2, 3, 4, 5), (2, 3, 5, 4)),
        ((2, 3, 4, 5), (1, 3, 4, 5)),
        ((3, 4, 5), (3, 4, 5)),
        ((0, 3, 4, 5), (0, 3, 4, 5)),
    ],
)
def test_shapes_that_differ_are_refused_with_both(student, teacher):
    with pytest.raises(
        ValueError, match=r"one shape \(N, C, H, W\) without zeros; got .* and "
    ) as error:
        hierarchical_context_loss(torch.zeros(student), torch.zeros(teacher))
    assert str(student) in str(error.value)
    assert str(teacher) in str(error.value)


def test_a_teacher_that_requires_a_gradient_is_refused():
    teacher = torch.zeros(2, 3, 4, 5, requires_grad=True)
    with pytest.raises(
        ValueError, match=r"not require a gradient; got one of shape \(2, 3, 4, 5\)"
    ):
        hierarchical_context_loss(torch.zeros(2, 3, 4, 5), teacher)


# Bins that nest, bins of the smaller sizes alone that do, and none.
@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (2, 3, 6, 8), (2, 3, 9, 10), (2, 5, 1, 7)])
@pytest.mark.parametrize("pool_sizes", [(4, 2, 1), (3, 2, 4), (1,), ()])
def test_the_order_of_memory_changes_nothing(shape, pool_sizes):
    student, teacher = pair(shape, torch.float64)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        map_ = student.detach().contiguous(memory_format=memory_format).requires_grad_()
        other = teacher.contiguous(memory_format=memory_format)
        loss = hierarchical_context_loss(map_, other, pool_sizes)
        loss.backward()
        results.append((loss.detach(), map_.grad))
    torch.testing.assert_close(results[0], results[1])
    expected = student.detach().requires_grad_()
    naive_pooled(expected, teacher, pool_sizes).backward()
    torch.testing.assert_close(results[0][1], expected.grad)


def naive_pooled(student, teacher, pool_sizes):
    terms, weight, weights = [F.mse_loss(student, teacher)], 1.0, [1.0]
    for size in (size for size in pool_sizes if size < student.shape[2]):
        weight /= 2
        maps = [F.adaptive_avg_pool2d(x, size) for x in (student, teacher)]
        terms.append(weight * F.mse_loss(*maps))
        weights.append(weight)
    return sum(terms) / sum(weights)


def test_a_second_backward_gives_the_same_gradient():
    student, teacher = pair((2, 3, 8, 12))
    student.requires_grad_()
    loss = hierarchical_context_loss(student, teacher)
    first, second = (torch.autograd.grad(loss, student, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
