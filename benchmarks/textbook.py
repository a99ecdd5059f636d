"""The method as the paper's formulas read: what our own faster code is checked and timed against.

Nothing is fused, reordered or shared here, and nothing of `reviewkd_det` is used.

Shapes: N images, H x W cells; the student's level has Cs channels, the teacher's Ct, and M channels
are shared by all levels. Level lists run from high to low resolution.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["TextbookDetector", "TextbookReview", "textbook_hcl"]


class TextbookReview(nn.Module):
    """The method with the state dict and the call of `reviewkd_det.core.ReviewDistiller`.

    Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021, section 3.

    Args:
        student_channels: Cs of each level.
        teacher_channels: Ct of each level.
        mid_channels: M.
        norm: makes the normalisation layer from a channel count.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        mid_channels: int,
        *,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        coarsest = len(student_channels) - 1
        levels = nn.ModuleList(
            _Fusion(student, mid_channels, teacher, has_residual=i < coarsest, norm=norm)
            for i, (student, teacher) in enumerate(
                zip(student_channels, teacher_channels, strict=True)
            )
        )
        self.path = nn.ModuleDict({"levels": levels})  # so the weights have the same names

    def forward(
        self, student_levels: Sequence[Tensor], teacher_levels: Sequence[Tensor]
    ) -> list[Tensor]:
        """One loss per level.

        Args:
            student_levels: (N, Cs, Hs, Ws) each.
            teacher_levels: (N, Ct, Ht, Wt) each, without gradient.

        Returns:
            The hierarchical context loss of each level, shape () each.
        """
        outputs = self.fuse(student_levels, [teacher.shape[-2:] for teacher in teacher_levels])
        return [
            textbook_hcl(x, teacher) for x, teacher in zip(outputs, teacher_levels, strict=True)
        ]

    def fuse(
        self, student_levels: Sequence[Tensor], teacher_sizes: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Fuse all levels, from coarse to fine.

        Args:
            student_levels: (N, Cs, Hs, Ws) each.
            teacher_sizes: (Ht, Wt) each.

        Returns:
            The outputs to compare with the teacher's levels, (N, Ct, Ht, Wt) each.
        """
        levels = zip(self.path["levels"].children(), student_levels, teacher_sizes, strict=True)
        outputs: list[Tensor] = []
        residual = None
        for fusion, student, size in reversed(list(levels)):
            output, residual = fusion(student, residual, size)
            outputs.insert(0, output)
        return outputs


class _Fusion(nn.Module):
    """Attention-based fusion of one level; "ABF" in the paper."""

    def __init__(
        self,
        student_channels: int,
        mid_channels: int,
        teacher_channels: int,
        *,
        has_residual: bool,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        reduce = nn.Conv2d(student_channels, mid_channels, 1, bias=False)
        expand = nn.Conv2d(mid_channels, teacher_channels, 3, padding=1, bias=False)
        nn.init.kaiming_uniform_(reduce.weight, a=1)
        nn.init.kaiming_uniform_(expand.weight, a=1)
        self.reduce = nn.Sequential(reduce, norm(mid_channels))
        self.expand = nn.Sequential(expand, norm(teacher_channels))
        self.gate = nn.Conv2d(2 * mid_channels, 2, 1) if has_residual else None

    def forward(
        self, student: Tensor, residual: Tensor | None, teacher_size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        x = self.reduce(student)  # (N, M, H, W)
        if self.gate is not None:
            assert residual is not None
            r = F.interpolate(residual, size=x.shape[-2:], mode="nearest")  # (N, M, H, W)
            g = torch.sigmoid(self.gate(torch.cat([x, r], dim=1)))  # (N, 2, H, W)
            x = x * g[:, 0:1] + r * g[:, 1:2]
        if x.shape[-2:] != teacher_size:
            x = F.interpolate(x, size=tuple(teacher_size), mode="nearest")  # (N, M, Ht, Wt)
        return self.expand(x), x


def textbook_hcl(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss of one level; "HCL" in the paper.

    Args:
        student: the student's map, (N, C, H, W).
        teacher: the teacher's map, (N, C, H, W), without gradient.

    Returns:
        The loss, shape ().
    """
    loss = F.mse_loss(student, teacher)
    weight = total_weight = 1.0
    for k in (4, 2, 1):
        if k >= student.shape[2]:
            continue
        weight = weight / 2
        pooled_student = F.adaptive_avg_pool2d(student, (k, k))
        pooled_teacher = F.adaptive_avg_pool2d(teacher, (k, k))
        loss = loss + weight * F.mse_loss(pooled_student, pooled_teacher)
        total_weight = total_weight + weight
    return loss / total_weight


class TextbookDetector:
    """A student, the teacher's stock backbone and the textbook's method, put together plainly.

    Args:
        student: a Detectron2 detector with a `backbone`.
        teacher: the teacher's backbone; it is put in eval mode, its gradients are left as built.
        mean: the teacher's pixel mean, (3, 1, 1).
        std: the teacher's pixel standard deviation, (3, 1, 1).
        reverse_channels: whether the student's channel order is the reverse of the teacher's.
        review: fusions and loss.
        names: names of the levels compared, from high to low resolution.
        loss_weight: factor of the summed loss.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any,
        mean: Tensor,
        std: Tensor,
        *,
        reverse_channels: bool,
        review: TextbookReview,
        names: Sequence[str],
        loss_weight: float,
    ) -> None:
        self.student, self.teacher, self.review = student, teacher.eval(), review
        self.mean, self.std, self.reverse_channels = mean, std, reverse_channels
        self.names, self.loss_weight = tuple(names), loss_weight

    def images(self, batch: Sequence[Mapping[str, Any]]) -> Tensor:
        """The images as the teacher sees them, (N, 3, H, W), padded as Detectron2 pads them."""
        images = [x["image"].to(self.mean.device) for x in batch]
        if self.reverse_channels:
            images = [image.flip(0) for image in images]
        return ImageList.from_tensors(
            [(image - self.mean) / self.std for image in images],
            self.teacher.size_divisibility,
            padding_constraints=self.teacher.padding_constraints,
        ).tensor

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The student's losses and `loss_distillation`."""
        levels: dict[str, Tensor] = {}
        hook = self.student.backbone.register_forward_hook(
            lambda _, __, output: levels.update(output)
        )
        losses = dict(self.student(batch))
        hook.remove()
        with torch.no_grad():
            targets = self.teacher(self.images(batch))
        distilled = self.review(
            [levels[name] for name in self.names], [targets[name] for name in self.names]
        )
        losses["loss_distillation"] = self.loss_weight * torch.stack(distilled).sum()
        return losses
