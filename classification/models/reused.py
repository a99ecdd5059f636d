"""A network with the classifier of another one."""

import torch
from torch import Tensor, nn

from classification.models.tap_names import TapNames
from reviewkd_det.common.tracing.graph import build_tapped
from reviewkd_det.common.tracing.stages import find_taps
from reviewkd_det.core.methods.simkd import build_projector

__all__ = ["ReusedClassifier"]


class ReusedClassifier(nn.Module):
    """A network up to its last map, a projector, and another network's frozen classifier.

    Its levels are the projected map and the pooled one. Chen et al., CVPR 2022, arXiv:2203.14001.

    Args:
        network: network whose last layers are left out; its other parameters are shared.
        other: network whose last layer classifies; it is copied.
        sizes: pixels a side of the images that the two see.
        reduction: by what the other's channels are divided inside the projector.

    Raises:
        ValueError: a network has no maps that can be found, or the other does not pool its last one
            and classify that by one layer.
    """

    tap_names = TapNames(after=("project",), before=("project",), pooled="pool")

    def __init__(
        self, network: nn.Module, other: nn.Module, sizes: tuple[int, int], reduction: int
    ) -> None:
        super().__init__()
        self.trunk, channels = _up_to_last_map(network, sizes[0])
        _, wanted = _up_to_last_map(other, sizes[1])
        linear = [x for x in other.modules() if isinstance(x, nn.Linear)]
        last = linear[-1] if linear else None
        if last is None or last.in_features != wanted:
            raise ValueError(
                f"the teacher of SimKD must classify its last map, pooled, by one layer; "
                f"{type(other).__name__} has {wanted} channels there and "
                + (f"a last layer of {last.in_features} features" if last else "no linear layer")
            )
        self.project = build_projector(channels, wanted, reduction)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(wanted, last.out_features, bias=last.bias is not None)
        self.classifier.load_state_dict(last.state_dict())
        self.classifier.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images, (N, 3, H, W); logits, (N, K)."""
        (last,) = self.trunk(images)
        logits: Tensor = self.classifier(self.pool(self.project(last)))
        return logits


@torch.no_grad()
def _up_to_last_map(network: nn.Module, size: int) -> tuple[nn.Module, int]:
    """A network cut behind its last map, and the channels of that."""
    name = find_taps(network, size, before_activation=False, pooled=False)[-1]
    trunk = build_tapped(network, [name], "taps", with_output=False)
    was_training = trunk.training
    (last,) = trunk.eval()(torch.zeros(1, 3, size, size))
    trunk.train(was_training)
    return trunk, last.shape[1]
