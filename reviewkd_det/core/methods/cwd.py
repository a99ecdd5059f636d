"""CWD: each channel as a distribution over its cells. Shu et al., ICCV 2021, arXiv:2011.13256.

Shapes: a level is (N, C, H, W).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.alignment import build_aligner, match_size
from reviewkd_det.core.levelwise import LevelSettings, LevelwiseMethod
from reviewkd_det.core.method import Level
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["CWD", "channel_loss"]


def channel_loss(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compare two levels by where each channel is active.

    With p the softmax over the cells of a channel divided by the temperature T:
    `T^2 * KL(p_teacher, p_student)`, the mean over images and channels. Adding a number to a whole
    map changes nothing. Equation 4 of the paper.

    Args:
        student: the student's level, (N, C, Hs, Ws), resized bilinearly to the teacher's.
        teacher: the teacher's level, (N, C, Ht, Wt).
        temperature: T, positive.

    Returns:
        The loss, shape ().
    """
    images, channels = teacher.shape[:2]
    log_p_student, log_p_teacher = (
        F.log_softmax(maps.flatten(2) / temperature, dim=2)
        for maps in (match_size(widen(student), teacher), widen(teacher))
    )  # (N, C, H * W)
    divergence = F.kl_div(log_p_student, log_p_teacher, reduction="sum", log_target=True)
    return temperature**2 * divergence / (images * channels)


@register("CWD")
class CWD(LevelwiseMethod):
    """The channel loss, summed over the levels; see `channel_loss`.

    A student of other channels learns through a 1x1 convolution.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of CWD; the weight is published for COCO, with levels of pyramids."""

        loss_weight: float | str = weight_setting(10.0, detection=AUTO)
        temperature: float = setting(1.0, "Temperature of both softmaxes.", above=0)

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make a 1x1 convolution where the channels differ."""
        return build_aligner(student, teacher)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the channel loss of a level."""
        return channel_loss(student, teacher, temperature=self.settings.temperature)
