"""CrossKD's losses against those of libraries that the core does not use."""

import torch
from torchvision.ops import generalized_box_iou_loss

from reviewkd_det.core.methods.crosskd import match_statistics, weighted_giou_loss


def test_the_generalised_iou_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    corners = 50 * torch.rand(2, 200, 2, generator=generator)
    sizes = 30 * torch.rand(2, 200, 2, generator=generator)
    boxes, wanted = torch.cat([corners, corners + sizes], dim=2).double()
    wanted[:3], weights = boxes[:3], torch.rand(200, generator=generator)
    boxes[3, 2:] = boxes[3, :2]  # of no area
    boxes.requires_grad_()
    found, expected = (
        weighted_giou_loss(boxes, wanted, weights),
        (weights * generalized_box_iou_loss(boxes, wanted)).sum(),
    )
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(x, boxes, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_a_map_gets_the_mean_and_deviation_of_each_channel():
    ours, theirs = torch.randn(2, 3, 4, 5), 3 * torch.randn(2, 3, 6, 5) + 7
    ours[:, 1] = 2.0  # without any deviation
    matched = match_statistics(ours, theirs)
    torch.testing.assert_close(matched.mean((0, 2, 3)), theirs.mean((0, 2, 3)))
    wanted = theirs.std((0, 2, 3), correction=0)
    torch.testing.assert_close(
        matched.std((0, 2, 3), correction=0),
        wanted * torch.tensor([1.0, 0.0, 1.0]),
        rtol=1e-4,
        atol=1e-4,
    )
