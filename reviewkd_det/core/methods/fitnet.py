"""FitNet: hints, the teacher's maps regressed from the student's. Romero et al., ICLR 2015.

arXiv:1412.6550; in the form of Tian et al., ICLR 2020 (CRD),
arXiv:1910.10699, whose regressor ends with a batch norm and a ReLU.
Shapes: a level is (N, C, H, W).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.alignment import match_size
from reviewkd_det.core.levelwise import LevelSettings, LevelwiseMethod
from reviewkd_det.core.method import Level
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["FitNet", "build_regressor"]


def build_regressor(student: Level, teacher: Level) -> nn.Sequential:
    """Make what maps a student's level to the size and channels of the teacher's.

    A convolution, then a batch norm and a ReLU: 3 x 3 of stride 2 where the student's map is twice
    as large, transposed 4 x 4 of stride 2 where it is half as large, else one without padding that
    leaves the teacher's size, of 1 x 1 where the sizes agree or are not known.

    Args:
        student: the student's level.
        teacher: the teacher's level.

    Raises:
        ValueError: the student's map is smaller, and not by half.
    """
    channels = student.channels, teacher.channels
    height, width = student.size or (1, 1)
    target = teacher.size or (1, 1)
    convolution: nn.Module
    if (height, width) == (2 * target[0], 2 * target[1]):
        convolution = nn.Conv2d(*channels, 3, stride=2, padding=1)
    elif (2 * height, 2 * width) == target:
        convolution = nn.ConvTranspose2d(*channels, 4, stride=2, padding=1)
    elif height >= target[0] and width >= target[1]:
        convolution = nn.Conv2d(*channels, (1 + height - target[0], 1 + width - target[1]))
    else:
        raise ValueError(
            f"FitNet's student level must be as large as the teacher's, larger, or half as large; "
            f"got {student.name} {student.size} for {teacher.name} {teacher.size}"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(channels[1]), nn.ReLU())


@register("FitNet")
class FitNet(LevelwiseMethod):
    """The mean squared error between regressed and teacher's maps, summed over the levels."""

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of FitNet; the weight is published for images of one size, with one level."""

        loss_weight: float | str = weight_setting(100.0, detection=AUTO)
        levels: tuple[int, ...] = setting(
            (1,),
            "Positions of the levels compared, 0 being the finest; () takes all.",
            least=0,
            detection=(),
        )

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make the regressor of a level."""
        return build_regressor(student, teacher)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the mean squared error of a level."""
        return F.mse_loss(match_size(widen(student), teacher), widen(teacher))
