"""Attention-based fusion of a student's levels, from coarse to fine.

Shapes: N images, H x W cells; the student's level has Cs channels, the teacher's Ct, and M channels
(`mid_channels`) are shared by all levels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.kernels.gated_sum import GatedSum, resize_nearest

__all__ = ["FUSIONS", "AttentionFusion", "ReviewPath"]

Size = tuple[int, int]
# How a level takes in the coarser ones: the method's own, and what it is compared with.
FUSIONS = ("attention", "sum", "none")


class AttentionFusion(nn.Module):
    """Fuse one level with the residual of the coarser one. "ABF" in Chen et al., CVPR 2021.

    `x = reduce(student)`, then where there is a residual r (resized to x, nearest neighbour),
    `x = x * g1 + r * g2` with the gates `(g1, g2) = sigmoid(gate([x, r]))`, one value per cell.
    The output for the teacher's level is `expand(x)`; x is the next finer level's residual.

    Args:
        student_channels: Cs.
        mid_channels: M.
        teacher_channels: Ct.
        has_residual: False for the coarsest level, which has no gate.
        gated: False makes both gates 1, with no parameters.
        norm: function from a channel count to the normalisation layer.
    """

    def __init__(
        self,
        student_channels: int,
        mid_channels: int,
        teacher_channels: int,
        *,
        has_residual: bool,
        gated: bool = True,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.has_residual = has_residual
        reduce = nn.Conv2d(student_channels, mid_channels, 1, bias=False)
        expand = nn.Conv2d(mid_channels, teacher_channels, 3, padding=1, bias=False)
        for convolution in (reduce, expand):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.reduce = nn.Sequential(reduce, norm(mid_channels))
        self.expand = nn.Sequential(expand, norm(teacher_channels))
        self.gate = nn.Conv2d(2 * mid_channels, 2, 1) if has_residual and gated else None

    def forward(
        self, student: Tensor, residual: Tensor | None = None, teacher_size: Size | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fuse one level.

        Args:
            student: the student's level, (N, Cs, H, W).
            residual: the coarser level's second output, (N, M, any, any); None at the coarsest.
            teacher_size: (Ht, Wt) of the teacher's level; None means (H, W).

        Returns:
            The output to compare with the teacher's level, (N, Ct, Ht, Wt), and the residual for
            the next finer level, (N, M, Ht, Wt).

        Raises:
            ValueError: a residual is missing where the level takes one, or given where it does not.
        """
        if (residual is None) == self.has_residual:
            raise ValueError(
                f"residual must be given exactly when has_residual; got has_residual="
                f"{self.has_residual} and residual {'None' if residual is None else 'given'}"
            )
        x = self.reduce(student)  # (N, M, H, W)
        if residual is not None and self.gate is None:
            x = x + resize_nearest(residual, x.shape[-2:])
        elif residual is not None:
            gates = self.gates(x, residual)  # (N, 2, H, W)
            x = GatedSum.apply(x, residual, gates)
        if teacher_size is not None:
            x = resize_nearest(x, teacher_size)  # (N, M, Ht, Wt)
        return self.expand(x), x

    def gates(self, x: Tensor, residual: Tensor) -> Tensor:
        """How much of the level and of its residual each cell takes.

        Args:
            x: the reduced level, (N, M, H, W).
            residual: the coarser level's second output, (N, M, any, any).

        Returns:
            (g1, g2), from 0 to 1 each, (N, 2, H, W).
        """
        # A convolution of a concatenation is a sum of two, and a 1x1 convolution commutes with a
        # nearest-neighbour resize: the residual's half is computed on its own, coarser cells.
        assert self.gate is not None
        for_x, for_residual = self.gate.weight.chunk(2, dim=1)
        logits = F.conv2d(x, for_x, self.gate.bias)
        logits = logits + resize_nearest(F.conv2d(residual, for_residual), x.shape[-2:])
        return torch.sigmoid(logits)


class ReviewPath(nn.Module):
    """Walk a student's levels from the coarsest to the finest through one fusion each.

    Channel and level lists run from high to low resolution. "Residual learning with ABF" in
    Chen et al., CVPR 2021, section 3.3.

    Args:
        student_channels: Cs of each level.
        teacher_channels: Ct of each level.
        mid_channels: M.
        fusion: "attention" is the method; "sum" leaves out its gates, and "none" compares each
            level by itself.
        norm: function from a channel count to the normalisation layer.

    Raises:
        ValueError: the lists are empty or of different lengths, a channel count is not positive, or
            the fusion is unknown.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        mid_channels: int,
        *,
        fusion: str = "attention",
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be {', '.join(FUSIONS)}; got {fusion}")
        if not student_channels or len(student_channels) != len(teacher_channels):
            raise ValueError(
                "student_channels and teacher_channels must name the same levels, at least one; "
                f"got {list(student_channels)} and {list(teacher_channels)}"
            )
        if min(*student_channels, *teacher_channels, mid_channels) < 1:
            raise ValueError(
                f"channels must be positive; got student {list(student_channels)}, "
                f"teacher {list(teacher_channels)}, mid {mid_channels}"
            )
        self.student_channels = tuple(student_channels)
        coarsest = len(student_channels) - 1
        self.levels = nn.ModuleList(
            AttentionFusion(
                student,
                mid_channels,
                teacher,
                has_residual=fusion != "none" and i < coarsest,
                gated=fusion == "attention",
                norm=norm,
            )
            for i, (student, teacher) in enumerate(
                zip(student_channels, teacher_channels, strict=True)
            )
        )

    def forward(
        self, student_levels: Sequence[Tensor], teacher_sizes: Sequence[Size] | None = None
    ) -> list[Tensor]:
        """Fuse all levels.

        Args:
            student_levels: (N, Cs, H, W) each.
            teacher_sizes: (Ht, Wt) each; None means the student's own sizes.

        Returns:
            The outputs to compare with the teacher's levels, (N, Ct, Ht, Wt) each.

        Raises:
            ValueError: another number of levels, other channels, or levels that grow coarse to
                fine in the wrong order.
        """
        self._check(student_levels, teacher_sizes)
        sizes: Sequence[Size | None] = teacher_sizes or [None] * len(student_levels)
        outputs: list[Tensor] = []
        residual = None
        for level, student, size in reversed(
            list(zip(self.levels, student_levels, sizes, strict=True))
        ):
            output, residual = level(student, residual if level.has_residual else None, size)
            outputs.insert(0, output)
        return outputs

    def _check(self, student_levels: Sequence[Tensor], sizes: Sequence[Size] | None) -> None:
        expected = len(self.student_channels)
        if len(student_levels) != expected or (sizes is not None and len(sizes) != expected):
            raise ValueError(
                f"levels must number {expected}; got {len(student_levels)} student levels"
                + ("" if sizes is None else f" and {len(sizes)} teacher sizes")
            )
        shapes = [tuple(level.shape) for level in student_levels]
        if any(len(s) != 4 for s in shapes) or tuple(s[1] for s in shapes) != self.student_channels:
            raise ValueError(
                f"student levels must be (N, C, H, W) with C = {list(self.student_channels)}; "
                f"got shapes {shapes}"
            )
        if any(fine[2] < coarse[2] for fine, coarse in pairwise(shapes)):
            raise ValueError(f"levels must run from high to low resolution; got shapes {shapes}")
