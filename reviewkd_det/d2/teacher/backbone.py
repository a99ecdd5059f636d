"""The teacher: any Detectron2 detector, of which the backbone alone is built, verified and frozen.

Shapes: N images, each (3, h, w); H x W is the padded size the student used.
"""

import logging
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from detectron2.structures import Boxes
from torch import Tensor, nn

from reviewkd_det.common.tensors.compiled import compiled_or_plain
from reviewkd_det.core import FrozenTeacher
from reviewkd_det.d2.reading.images import channels_first, cut_to, normalize_and_pad, size_for
from reviewkd_det.d2.reading.regions import BoxHead
from reviewkd_det.d2.teacher.folding import fold_batch_norms
from reviewkd_det.d2.teacher.source import WEIGHTS_KEY, read_teacher
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = ["PRECISIONS", "TeacherBackbone", "build_teacher", "load_teacher", "teacher_state"]

logger = logging.getLogger(__name__)
PRECISIONS = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip


class TeacherBackbone(nn.Module):
    """A backbone that takes the student's images and sees them its own way.

    Channels are reordered before they are normalised with the teacher's mean and std. The
    normalised images are padded with zeros to the student's padded size, and on to what the
    backbone needs where that is more; its levels are then cut to the student's padded size. Inside,
    maps have their channels last, which convolutions without gradients are faster with.

    Args:
        backbone: the teacher's backbone.
        pixel_mean: mean of each channel, in the teacher's channel order, in pixel values.
        pixel_std: standard deviation, likewise.
        reverse_channels: whether the student's channel order is the reverse of the teacher's.
        roi_heads: the teacher's box head, for methods on regions.
        precision: of the backbone, which is converted, and of the levels.
        compile_backbone: run the backbone through torch.compile, where it can be.
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
        roi_heads: BoxHead | None = None,
        precision: torch.dtype = torch.float32,
        compile_backbone: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone.to(precision).to(memory_format=torch.channels_last)
        self.precision = precision
        self._run = (
            compiled_or_plain(backbone, logger, dynamic=True)
            if compile_backbone
            else backbone.__call__
        )
        self.roi_heads = roi_heads
        self.reverse_channels = reverse_channels
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    def forward(self, images: Sequence[Tensor], padded_size: tuple[int, int]) -> dict[str, Tensor]:
        """Compute the pyramid.

        Args:
            images: (3, h, w) each, pixel values in the student's channel order.
            padded_size: (H, W), at least every image's own size.

        Returns:
            The levels by name, (N, C, H / stride, W / stride) each, rounded up, contiguous.
        """
        own_size = size_for(self.backbone, padded_size)
        batch = [
            normalize_and_pad(
                image.flip(0) if self.reverse_channels else image,
                self.pixel_mean,
                self.pixel_std,
                own_size,
            )
            for image in images
        ]
        seen = torch.stack(batch).to(self.precision, memory_format=torch.channels_last)
        levels = {name: channels_first(level) for name, level in self._run(seen).items()}
        if own_size == padded_size:
            return levels
        shapes = self.backbone.output_shape()
        return {
            name: cut_to(level, padded_size, shapes[name].stride) for name, level in levels.items()
        }

    def region_logits(self, levels: Mapping[str, Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """Class logits of boxes, (R, classes + 1), one `Boxes` for each of the first images."""
        assert self.roi_heads is not None
        own = {name: level[: len(boxes)].float() for name, level in levels.items()}
        return self.roi_heads(own, boxes)


def build_teacher(cfg: CfgNode) -> FrozenTeacher:
    """The teacher that `cfg.MODEL.DISTILL.TEACHER` names for the student of this config.

    Raises:
        FileNotFoundError, ValueError: see `load_teacher`.
    """
    settings = cfg.MODEL.DISTILL.TEACHER
    return load_teacher(
        settings.CONFIG_FILE,
        settings.WEIGHTS,
        settings.OPTS,
        student_format=cfg.INPUT.FORMAT,
        with_box_head="DKD" in cfg.MODEL.DISTILL.METHODS,
        precision=settings.PRECISION,
        compile_backbone=settings.COMPILE,
    )


def load_teacher(
    config_file: str,
    weights: str = "",
    opts: Sequence[str] = (),
    *,
    student_format: str = "BGR",
    with_box_head: bool = False,
    precision: str = "float32",
    compile_backbone: bool = False,
) -> FrozenTeacher:
    """Build, load, verify and freeze a teacher, its batch norms folded.

    Args:
        config_file: its own config, a path or a model-zoo name.
        weights: its checkpoint; "" takes its config's own.
        opts: changes to its config.
        student_format: channel order of the student's images, RGB or BGR.
        with_box_head: whether methods on regions need its box head.
        precision: of its backbone, float32, bfloat16 or float16.
        compile_backbone: run its backbone through torch.compile, where it can be.

    Returns:
        A frozen `TeacherBackbone`, on the CPU.

    Raises:
        FileNotFoundError: its config or checkpoint does not exist.
        ValueError: no checkpoint is named, it cannot be read or lacks weights, the student's
            images cannot be turned into the teacher's, or the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"MODEL.DISTILL.TEACHER.PRECISION must be one of {', '.join(PRECISIONS)}; "
            f"got {precision!r}"
        )
    source = read_teacher(config_file, weights, opts)
    backbone = source.build_backbone()
    roi_heads = BoxHead(source.build_roi_heads(backbone)) if with_box_head else None
    parts = {"backbone": backbone} | ({} if roi_heads is None else {"roi_heads": roi_heads})
    VerifiedCheckpointer(nn.ModuleDict(parts), key=WEIGHTS_KEY, prefix="teacher.").load(
        source.weights
    )
    fold_batch_norms(backbone.eval())
    teacher = TeacherBackbone(
        backbone,
        source.pixel_mean,
        source.pixel_std,
        reverse_channels=_is_reversed(student_format, source.input_format),
        roi_heads=roi_heads,
        precision=PRECISIONS[precision],
        compile_backbone=compile_backbone,
    )
    return FrozenTeacher(teacher)


def teacher_state(cfg: CfgNode) -> dict[str, Tensor]:
    """The state dict of the whole teacher that `cfg.MODEL.DISTILL.TEACHER` names, verified."""
    settings = cfg.MODEL.DISTILL.TEACHER
    return read_teacher(settings.CONFIG_FILE, settings.WEIGHTS, settings.OPTS).load_state()


def _is_reversed(student_format: str, teacher_format: str) -> bool:
    if student_format == teacher_format:
        return False
    if {student_format, teacher_format} == {"RGB", "BGR"}:
        return True
    raise ValueError(
        "INPUT.FORMAT of student and teacher must be equal, or RGB and BGR; "
        f"got {student_format} and {teacher_format}"
    )
