"""Features as large as real teachers' under automatic mixed precision, and in half precision."""

import pytest
import torch
from torch import nn

from reviewkd_det.core import LevelScale, ReviewDistiller, hierarchical_context_loss

STUDENT_CHANNELS, TEACHER_CHANNELS = (6, 7), (8, 9)
SIZES = [(12, 20), (6, 10)]
MAGNITUDE = 1e3
HALF = [torch.bfloat16, torch.float16]
# The largest relative rounding error of a value; the loss of a level sums thousands of them.
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


def levels(channels, scale=MAGNITUDE, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(channels))
    return [
        (scale * torch.randn(2, c, *size, generator=generator)).to(dtype)
        for c, size in zip(channels, SIZES, strict=True)
    ]


def distil(dtype=None, inputs=torch.float32):
    """Losses, gradients of all weights, and the module after one training step in a precision."""
    torch.manual_seed(0)
    distiller = ReviewDistiller(STUDENT_CHANNELS, TEACHER_CHANNELS, 5).train()
    student = levels(STUDENT_CHANNELS, dtype=inputs)
    teacher = levels(TEACHER_CHANNELS, dtype=inputs)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        losses = distiller(student, teacher)
    sum(losses).backward()
    return losses, {name: p.grad for name, p in distiller.named_parameters()}, distiller


@pytest.mark.parametrize("inputs", [torch.float32, "half"])
@pytest.mark.parametrize("dtype", HALF)
def test_losses_and_gradients_under_autocast_are_those_of_float32(dtype, inputs):
    losses, gradients, _ = distil(dtype, dtype if inputs == "half" else inputs)
    expected_losses, expected_gradients, _ = distil()
    tolerance = 8 * EPSILON[dtype]
    for loss, expected in zip(losses, expected_losses, strict=True):
        assert loss.dtype == torch.float32
        assert loss.item() > 65504  # no square of these magnitudes exists in float16
        torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
    for name, expected in expected_gradients.items():
        gradient = gradients[name]
        assert gradient.isfinite().all()
        # Of a whole weight: single cells are differences of large numbers.
        error = (gradient - expected).norm() / expected.norm()
        assert error < 8 * tolerance, name


@pytest.mark.parametrize("dtype", HALF)
def test_batch_statistics_under_autocast_are_float32(dtype):
    _, _, distiller = distil(dtype, dtype)
    _, _, expected = distil()
    norms = [x for x in distiller.modules() if isinstance(x, nn.BatchNorm2d)]
    assert len(norms) == 4
    expected_norms = [x for x in expected.modules() if isinstance(x, nn.BatchNorm2d)]
    for norm, wanted in zip(norms, expected_norms, strict=True):
        for statistic in ("running_mean", "running_var"):
            value = getattr(norm, statistic)
            assert value.dtype == torch.float32
            torch.testing.assert_close(
                value, getattr(wanted, statistic), rtol=8 * EPSILON[dtype], atol=EPSILON[dtype] * 50
            )


@pytest.mark.parametrize("dtype", HALF)
def test_the_loss_of_half_precision_maps_is_computed_in_float32(dtype):
    (student, _), (teacher, _) = (levels(c, dtype=dtype) for c in [(8, 9), (8, 7)])
    half, full = student.clone().requires_grad_(), student.float().requires_grad_()
    loss = hierarchical_context_loss(half, teacher)
    expected = hierarchical_context_loss(full, teacher.float())
    loss.backward()
    expected.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert half.grad.dtype == dtype
    # Rounded once, at the end.
    assert torch.equal(half.grad, full.grad.to(dtype))


@pytest.mark.parametrize("dtype", HALF)
def test_the_scale_of_half_precision_maps_is_measured_in_float32(dtype):
    teacher = levels(TEACHER_CHANNELS, dtype=dtype)
    scale = LevelScale(len(teacher)).train()
    scaled = scale(teacher)
    assert scale.mean_square.dtype == torch.float32
    assert all(x.dtype == torch.float32 for x in scaled)
    for level in scaled:
        assert level.square().mean().item() == pytest.approx(1, rel=1e-4)
