"""The teacher: any Detectron2 detector, of which the backbone alone is built, verified and frozen.

Shapes: N images, each (3, h, w); H x W is the padded size the student used.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import move_device_like
from detectron2.modeling import Backbone, build_backbone
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core import FrozenTeacher
from reviewkd_det.d2.checkpoint import VerifiedCheckpointer
from reviewkd_det.d2.config import find_teacher_config, load_config

__all__ = ["TeacherBackbone", "build_teacher"]


class TeacherBackbone(nn.Module):
    """A backbone that takes the student's images and sees them its own way.

    Channels are reordered before they are normalised with the teacher's mean and std, and the
    normalised images are padded with zeros to the student's padded size.

    Args:
        backbone: the teacher's backbone.
        pixel_mean: mean of each channel, in the teacher's channel order, in pixel values.
        pixel_std: standard deviation, likewise.
        reverse_channels: whether the student's channel order is the reverse of the teacher's.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        *,
        reverse_channels: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reverse_channels = reverse_channels
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    def forward(self, images: Sequence[Tensor], padded_size: tuple[int, int]) -> dict[str, Tensor]:
        """Compute the pyramid.

        Args:
            images: (3, h, w) each, pixel values in the student's channel order.
            padded_size: (H, W), at least every image's own size.

        Returns:
            The levels by name, (N, C, H / stride, W / stride) each.
        """
        batch = torch.stack([self._prepare(image, padded_size) for image in images])  # (N, 3, H, W)
        return self.backbone(batch)

    def _prepare(self, image: Tensor, padded_size: tuple[int, int]) -> Tensor:
        image = move_device_like(image, self.pixel_mean)
        if self.reverse_channels:
            image = image.flip(0)
        image = (image - self.pixel_mean) / self.pixel_std
        height, width = image.shape[-2:]
        return F.pad(image, (0, padded_size[1] - width, 0, padded_size[0] - height))


def build_teacher(cfg: CfgNode) -> FrozenTeacher:
    """Build, load, verify and freeze the teacher that `cfg.MODEL.DISTILL.TEACHER` names.

    Args:
        cfg: the student's config.

    Returns:
        A frozen `TeacherBackbone`, on the CPU.

    Raises:
        FileNotFoundError: its config or checkpoint does not exist.
        ValueError: no checkpoint is named, it cannot be read or lacks backbone weights, or the
            student's images cannot be turned into the teacher's.
    """
    settings = cfg.MODEL.DISTILL.TEACHER
    teacher_cfg = load_config(
        find_teacher_config(settings.CONFIG_FILE), settings.OPTS, "MODEL.DISTILL.TEACHER.OPTS"
    )
    weights = settings.WEIGHTS or teacher_cfg.MODEL.WEIGHTS
    if not weights:
        raise ValueError(
            "MODEL.DISTILL.TEACHER.WEIGHTS must name the teacher's checkpoint; got '', and its "
            f"config '{settings.CONFIG_FILE}' has no MODEL.WEIGHTS either"
        )
    teacher = TeacherBackbone(
        build_backbone(teacher_cfg),
        teacher_cfg.MODEL.PIXEL_MEAN,
        teacher_cfg.MODEL.PIXEL_STD,
        reverse_channels=_is_reversed(cfg.INPUT.FORMAT, teacher_cfg.INPUT.FORMAT),
    )
    VerifiedCheckpointer(teacher, key="MODEL.DISTILL.TEACHER.WEIGHTS").load(weights)
    return FrozenTeacher(teacher)


def _is_reversed(student_format: str, teacher_format: str) -> bool:
    if student_format == teacher_format:
        return False
    if {student_format, teacher_format} == {"RGB", "BGR"}:
        return True
    raise ValueError(
        "INPUT.FORMAT of student and teacher must be equal, or RGB and BGR; "
        f"got {student_format} and {teacher_format}"
    )
