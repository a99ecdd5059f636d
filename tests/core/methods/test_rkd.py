"""RKD where rows lie on each other or far from the origin."""

import pytest
import torch
from torch.nn import functional as F

from reviewkd_det.core.methods import rkd


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angles_of_rows_far_from_the_origin_are_those_of_their_differences(dtype):
    torch.manual_seed(0)
    ours, theirs = 1e3 * (5 + torch.rand(2, 9, 16, dtype=dtype))
    towards = [F.normalize(rows - rows[:, None], dim=2) for rows in (ours, theirs)]
    expected = F.smooth_l1_loss(*(x @ x.mT for x in towards))
    torch.testing.assert_close(rkd.angle_loss(ours, theirs), expected, rtol=1e-5, atol=0)


def test_rows_that_the_student_cannot_tell_apart_do_not_dominate_the_gradient():
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 9, 16)

    def gradient(rows):
        rows = rows.clone().requires_grad_()
        rkd.angle_loss(rows, theirs).backward()
        return float(rows.grad.norm())

    apart = gradient(ours)
    ours[3] = ours[7]
    assert gradient(ours) < 2 * apart
