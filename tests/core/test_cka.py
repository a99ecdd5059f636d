import pytest
import torch

from reviewkd_det.core import linear_cka


def level(channels, size=(6, 8), seed=0, images=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, channels, *size, generator=generator, dtype=torch.float64)


def test_it_is_that_of_the_gram_matrices():
    """Equation 1 of the paper, with the centring matrix H: tr(KHLH) over the norms."""
    student, teacher = level(3), level(5, seed=1) + 0.5 * level(5, seed=2)
    teacher[:, :3] += student
    n = 2 * 6 * 8
    x, y = (z.permute(0, 2, 3, 1).reshape(n, -1) for z in (student, teacher))
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = (centring @ z @ z.T @ centring for z in (x, y))
    expected = (k * m).sum() / (k.norm() * m.norm())
    assert linear_cka(student, teacher).item() == pytest.approx(expected.item())
    assert 0.05 < expected < 0.95


def test_rotation_scale_and_offset_do_not_count():
    teacher = level(4)
    rotation = torch.linalg.qr(level(4, (2, 2), 3, 1)[0].reshape(4, 4)).Q
    student = 7 * torch.einsum("dc,nchw->ndhw", rotation, teacher) + 3
    assert linear_cka(student, teacher).item() == pytest.approx(1)


def test_levels_of_other_sizes_and_channels_are_compared():
    similarity = linear_cka(level(3, (3, 4)), level(5))
    assert similarity.shape == ()
    assert 0 <= similarity <= 1


def test_half_precision_is_widened_and_no_gradient_flows():
    student = level(3).half().requires_grad_()
    similarity = linear_cka(student, level(3).half())
    assert similarity.dtype == torch.float32
    assert not similarity.requires_grad
    assert similarity.item() == pytest.approx(1, abs=1e-3)


def test_a_constant_level_has_none():
    assert linear_cka(torch.ones(2, 3, 4, 4), level(3, (4, 4)).float()).isnan()
