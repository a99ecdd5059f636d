"""Several teachers of one classifier.

Shapes: N images, K classes.
"""

from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from reviewkd_det.core import View

__all__ = ["SeveralTeachers", "mean_logits", "teacher_configs", "teacher_name"]


def teacher_configs(cfg: CfgNode) -> list[CfgNode]:
    """The config of each teacher: that of the run, with TEACHER naming one of them.

    Those of TEACHER.OTHERS see images as their library's weights do, or as INPUT says.
    """
    configs = [cfg]
    for name, weights in cfg.TEACHER.OTHERS:
        other = cfg.clone()
        other.defrost()
        other.TEACHER.merge_from_list(
            ["NAME", name, "WEIGHTS", weights, "WEIGHTS_ENTRY", "", "MEAN", (), "STD", ()]
        )
        configs.append(other)
    return configs


def teacher_name(cfg: CfgNode) -> str:
    """The names of all teachers, in a line."""
    return " and ".join([cfg.TEACHER.NAME, *(name for name, _ in cfg.TEACHER.OTHERS)])


class SeveralTeachers(nn.Module):
    """Classify by several networks, each of which sees images in its own way.

    Args:
        preprocesses: what makes the input of each network of images.
        networks: the networks, each a `TappedModel`.
        average: whether they answer as one, by the mean of their logits.
    """

    def __init__(
        self, preprocesses: Sequence[nn.Module], networks: Sequence[nn.Module], *, average: bool
    ) -> None:
        super().__init__()
        pairs = zip(preprocesses, networks, strict=True)
        self.networks = nn.ModuleList(nn.Sequential(*pair) for pair in pairs)
        self.average = average

    def forward(self, images: Tensor) -> View:
        """Classify.

        Args:
            images: uint8, (N, 3, H, W); where they are mixed, float32 in [0, 1].

        Returns:
            The first network's view with those of the others, or the mean of all logits.
        """
        first, *others = (network(images) for network in self.networks)
        view: View = first._replace(others=tuple(others))
        return View(logits=mean_logits(view)) if self.average else view


def mean_logits(view: View) -> Tensor:
    """The mean of the logits, (N, K), of one teacher or several."""
    return torch.stack([x.logits for x in (view, *view.others) if x.logits is not None]).mean(dim=0)
