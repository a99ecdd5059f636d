"""MGD: the teacher's maps generated from masked ones of the student. Yang et al., ECCV 2022.

arXiv:2205.01529. Shapes: a level is (N, C, H, W).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reviewkd_det.core.alignment import build_aligner, match_size
from reviewkd_det.core.levelwise import LevelSettings, LevelwiseMethod
from reviewkd_det.core.method import Level
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["MGD", "Generator"]


class Generator(nn.Module):
    """Mask a student's level and generate the teacher's of the rest.

    Args:
        student: the student's level; other channels pass a 1x1 convolution first.
        teacher: the teacher's level.
        masked: part that is dropped in training, in [0, 1).
        by_channel: whether channels are dropped, else cells.
    """

    def __init__(self, student: Level, teacher: Level, masked: float, *, by_channel: bool) -> None:
        super().__init__()
        width = teacher.channels
        self.align = build_aligner(student, teacher)
        self.generate = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.masked = masked
        self.by_channel = by_channel

    def forward(self, student: Tensor) -> Tensor:
        """Generate a level, (N, Ct, H, W)."""
        aligned: Tensor = self.align(student)
        if self.training and self.masked:
            images, channels, height, width = aligned.shape
            shape = (images, channels, 1, 1) if self.by_channel else (images, 1, height, width)
            aligned = aligned * (torch.rand(shape, device=aligned.device) >= self.masked)
        generated: Tensor = self.generate(aligned)
        return generated


@register("MGD")
class MGD(LevelwiseMethod):
    """The squared error of the generated maps, summed over the levels. Equation 4 of the paper.

    As published it is summed over channels and cells and averaged over images, so a weight suits
    one size of image: it equals a mean squared error of weight times C x H x W, some 86 on the
    finest level of 256 channels and 100 x 168 cells for 2e-5, and 0.37 on one of 32 and 24 x 24.
    """

    remedy = "mind that it is a sum over cells, which larger images have more of"

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of MGD; weights and parts are published for ImageNet and COCO."""

        loss_weight: float | str = weight_setting(7e-5, detection=AUTO)
        mask_ratio: float = setting(
            0.15,
            "Part of the student's level that is masked in training, below 1.",
            least=0,
            below=1,
            one_stage=0.65,
            two_stage=0.45,
        )
        mask: str = setting(
            "channels",
            '"cells" masks cells, of all channels, "channels" whole channels.',
            choices=("cells", "channels"),
            detection="cells",
        )

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make the generator of a level."""
        by_channel = self.settings.mask == "channels"
        return Generator(student, teacher, self.settings.mask_ratio, by_channel=by_channel)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the squared error of a generated level."""
        difference = match_size(widen(student), teacher) - widen(teacher)
        return difference.square().sum() / len(teacher)
