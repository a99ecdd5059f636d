"""IRG: a graph of the batch's images and what stages make of it. Liu et al., CVPR 2019.

"Knowledge Distillation via Instance Relationship Graph". Shapes: N images, R rows of D features; a
level is (N, C, H, W).
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.relations import squared_distances
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["IRG", "edge_loss", "transformation_loss"]

SMALLEST = 1e-12  # divisor of distances that are all 0


def edge_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the edges of the graph: the squared distances of rows, over the largest one.

    The mean squared difference of both (R, R) matrices. Equation 5 of the paper.

    Args:
        student: rows of features, (R, Ds).
        teacher: rows of features, (R, Dt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = (_relative(squared_distances(widen(x))) for x in (student, teacher))
    return F.mse_loss(ours, theirs)


def transformation_loss(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Compare what two stages make of each image: its squared distance, over the largest one.

    The mean squared difference of both (N,) vectors. Equation 7 of the paper. The larger map of two
    stages is average-pooled to the smaller, and so are the channels of that with more.

    Args:
        student: two levels in the order of the network.
        teacher: two levels in the order of the network.

    Returns:
        The loss, shape ().
    """
    ours, theirs = (_relative(_stage_distances(*levels)) for levels in (student, teacher))
    return F.mse_loss(ours, theirs)


def _stage_distances(first: Tensor, second: Tensor) -> Tensor:
    channels, height, width = [
        min(sides) for sides in zip(first.shape[1:], second.shape[1:], strict=True)
    ]
    ours, theirs = (
        F.adaptive_avg_pool3d(widen(level)[:, None], (channels, height, width)).flatten(1)
        for level in (first, second)
    )
    return (ours - theirs).square().sum(1)  # (N,)


def _relative(distances: Tensor) -> Tensor:
    return distances / distances.amax().clamp(min=SMALLEST)


@register("IRG")
class IRG(Method):
    """The edges of the rows of features, and the transformations between successive levels.

    Rows and images are compared within the batch of a process. The paper's vertices, the logits
    themselves, are KD's.
    """

    needs = Need.LEVELS | Need.VECTOR

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of IRG; the weight is published beside KD."""

        loss_weight: float | str = weight_setting(0.005, detection=AUTO)
        edges: float = setting(1.0, "Weight of the edges.", least=0)
        transformations: float = setting(1.0, "Weight of the transformations.", least=0)

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        loss = self.settings.edges * edge_loss(given(student.vector), given(teacher.vector))
        pairs = list(zip(pairwise(student.levels), pairwise(teacher.levels), strict=True))
        for ours, theirs in pairs:
            factor = self.settings.transformations / len(pairs)
            loss = loss + factor * transformation_loss(ours, theirs)
        return {"": loss}
