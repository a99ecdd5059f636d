"""SimKD: the teacher's classifier behind the student's maps. Chen et al., CVPR 2022.

"Knowledge Distillation with the Reused Teacher Classifier", arXiv:2203.14001. Shapes: a map is
(N, C, H, W).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from reviewkd_det.core.alignment import pool_to_smaller
from reviewkd_det.core.levelwise import LevelSettings, LevelwiseMethod, maps_of
from reviewkd_det.core.method import Level, Need
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting

__all__ = ["SimKD", "build_projector", "map_loss"]


def build_projector(student: int, teacher: int, reduction: int) -> nn.Sequential:
    """Make what turns the student's last map into one like the teacher's.

    Convolutions of 1x1, 3x3 and 1x1, each with a batch norm and a ReLU. Section 3.2.

    Args:
        student: channels of the student's map.
        teacher: channels of the teacher's map.
        reduction: by what the teacher's channels are divided between the convolutions.
    """
    inner = max(teacher // reduction, 1)
    layers: list[nn.Module] = []
    for channels, outputs, size in ((student, inner, 1), (inner, inner, 3), (inner, teacher, 1)):
        convolution = nn.Conv2d(channels, outputs, size, padding=size // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def map_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of two maps, the larger average-pooled to the smaller. Equation 3.

    Args:
        student: projected map of the student, (N, C, Hs, Ws).
        teacher: map of the teacher, (N, C, Ht, Wt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = pool_to_smaller(student, teacher)
    return (ours - theirs).square().mean()


@register("SimKD")
class SimKD(LevelwiseMethod):
    """Match the teacher's last map, and classify with the teacher's frozen classifier.

    The network that is deployed changes: it is the student without its own classifier, the
    projector of `build_projector` and the teacher's classifier. Who trains with the method builds
    it; here its projected map is compared. Labels are not used.
    """

    needs = Need.LEVELS | Need.CLASSIFIER
    learns_from_labels = False
    activation = "after"

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of SimKD; weight and reduction are published for CIFAR-100."""

        reduction: int = setting(
            2, "By what the teacher's channels are divided inside the projector.", least=1
        )

    def choose_levels(self, levels: Sequence[Level]) -> tuple[int, ...]:
        """Choose the last map of several cells."""
        return maps_of(levels)[-1:]

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make the projector of a map that has not passed one, which its channels tell."""
        if student.channels == teacher.channels:
            return nn.Identity()
        return build_projector(student.channels, teacher.channels, self.settings.reduction)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the error of the projected map."""
        return map_loss(student, teacher)
