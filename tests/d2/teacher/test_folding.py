import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from reviewkd_det.d2.teacher.folding import fold_batch_norms


def randomised(network):
    """Norms that do something: as they start they change next to nothing."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval().requires_grad_(False)


def detectron2_network():
    def convolution(inputs, outputs, norm, **kwargs):
        return Conv2d(inputs, outputs, 3, padding=1, norm=norm(outputs), **kwargs)

    return nn.Sequential(
        convolution(3, 8, FrozenBatchNorm2d, bias=False, activation=torch.relu),
        convolution(8, 12, nn.BatchNorm2d, bias=True, stride=2),
        convolution(12, 12, nn.BatchNorm2d, bias=False, groups=3),
        Conv2d(12, 4, 1, norm=nn.GroupNorm(2, 4)),
        Conv2d(4, 4, 1),
    )


def torchvision_network():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU6()),
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)),
    )


class NormAndActivation(nn.BatchNorm2d):
    """As timm's: a norm that holds the activation after it."""

    def forward(self, x):
        return super().forward(x).relu()


def test_a_norm_that_is_more_than_a_norm_stays():
    network = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), NormAndActivation(8))).double()
    images = torch.randn(2, 3, 9, 13, dtype=torch.float64)
    before = network(images)
    assert fold_batch_norms(network) == 0
    torch.testing.assert_close(network(images), before)


@pytest.mark.parametrize(
    ("make", "norms", "left"), [(detectron2_network, 3, 0), (torchvision_network, 2, 1)]
)
def test_folding_changes_no_output(make, norms, left):
    network = randomised(make()).double()
    images = torch.randn(2, 3, 9, 13, dtype=torch.float64)
    before = network(images)
    assert fold_batch_norms(network) == norms
    torch.testing.assert_close(network(images), before)
    kept = [m for m in network.modules() if isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d)]
    assert len(kept) == left  # a norm that follows no convolution
    assert not any(p.requires_grad for p in network.parameters())


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(RuntimeError, match=r"eval mode.*got it in training mode"):
        fold_batch_norms(detectron2_network().train())
