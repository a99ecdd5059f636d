"""Making a student's level comparable with a teacher's.

Shapes: a level is (N, C, H, W).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.method import Level
from reviewkd_det.core.widen import widen

__all__ = ["build_aligner", "match_size", "pool_to_smaller"]


def build_aligner(student: Level, teacher: Level) -> nn.Module:
    """Make what brings a student's level to the teacher's channels.

    Args:
        student: the student's level.
        teacher: the teacher's level.

    Returns:
        A 1x1 convolution where the channels differ, the identity where they agree.
    """
    if student.channels == teacher.channels:
        return nn.Identity()
    return nn.Conv2d(student.channels, teacher.channels, 1)


def match_size(student: Tensor, teacher: Tensor) -> Tensor:
    """Resize the student's level bilinearly to the teacher's (H, W), where they differ."""
    size = teacher.shape[-2:]
    if student.shape[-2:] == size:
        return student
    return F.interpolate(student, size=size, mode="bilinear")


def pool_to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool both levels, in float32 or wider, to the smaller height and width."""
    height, width = (min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True))
    ours, theirs = (
        F.adaptive_avg_pool2d(widen(level), (height, width)) for level in (student, teacher)
    )
    return ours, theirs
