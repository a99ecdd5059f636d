"""FGD: objects apart from their background, and relations. Yang et al., CVPR 2022.

arXiv:2111.11837. Shapes: a level is (N, C, H, W); image n has B_n boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.alignment import build_aligner, match_size
from reviewkd_det.core.levelwise import LevelMethod, LevelSettings
from reviewkd_det.core.method import Level, Need, Side, Truth, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import product, widen

__all__ = [
    "FGD",
    "GlobalContext",
    "box_masks",
    "channel_attention",
    "focal_losses",
    "spatial_attention",
]


def spatial_attention(level: Tensor, temperature: float) -> Tensor:
    """Where a level is active: H x W times the softmax over its cells, (N, H, W). Equation 2.

    The softmax is of the channels' mean magnitude over the temperature.
    """
    magnitude = widen(level).abs().mean(1)  # (N, H, W)
    images, height, width = magnitude.shape
    shares = (magnitude.flatten(1) / temperature).softmax(1)
    return height * width * shares.view(images, height, width)


def channel_attention(level: Tensor, temperature: float) -> Tensor:
    """Which channels are active: C times the softmax over them, (N, C). Equation 3.

    The softmax is of the cells' mean magnitude over the temperature.
    """
    magnitude = widen(level).abs().mean((2, 3))  # (N, C)
    return magnitude.shape[1] * (magnitude / temperature).softmax(1)


def box_masks(
    boxes: Sequence[Tensor], image_size: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """How much each cell counts among those of objects, and among the others. Equations 4 to 6.

    A cell of a box counts 1 over the box's cells, that of several the largest of these; the others
    1 over their number. As in the authors' code a box reaches from the cell of its first edge to
    that where its last edge ends, inclusive.

    Args:
        boxes: boxes of each image, (B, 4) as x0, y0, x1, y1 in pixels.
        image_size: height and width of the images in pixels.
        size: height and width of the level in cells.

    Returns:
        Both masks, (N, H, W) each, float32.
    """
    objects = torch.stack([_object_mask(x, image_size, size) for x in boxes])
    others = (objects == 0).float()
    return objects, others / others.sum((1, 2), keepdim=True).clamp(min=1)


def _object_mask(boxes: Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    (image_height, image_width), (height, width) = image_size, size
    corners = boxes.float().unbind(1)
    x0, y0 = (
        (corners[0] / image_width * width).floor(),
        (corners[1] / image_height * height).floor(),
    )
    x1, y1 = (corners[2] / image_width * width).ceil(), (corners[3] / image_height * height).ceil()
    shares = 1 / ((y1 + 1 - y0) * (x1 + 1 - x0))  # (B,)
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    in_rows = (rows >= y0[:, None]) & (rows <= y1[:, None])  # (B, H)
    in_columns = (columns >= x0[:, None]) & (columns <= x1[:, None])  # (B, W)
    covered = in_rows[:, :, None] & in_columns[:, None]  # (B, H, W)
    none = torch.zeros(1, height, width, device=boxes.device)
    return torch.cat([none, covered * shares[:, None, None]]).amax(0)


def focal_losses(
    student: Tensor,
    teacher: Tensor,
    masks: tuple[Tensor, Tensor],
    *,
    temperature: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare a level among objects and among the others, and the attentions. Equations 7 and 8.

    Args:
        student: the student's level, (N, C, H, W).
        teacher: the teacher's level, (N, C, H, W).
        masks: both of `box_masks`.
        temperature: divisor in both attentions.

    Returns:
        The squared differences, weighted by the teacher's attentions and by each mask, and the
        absolute differences of the attentions: sums, divided by N, shape () each.
    """
    ours, theirs = widen(student), widen(teacher)
    spatial, channel = (
        spatial_attention(theirs, temperature),
        channel_attention(theirs, temperature),
    )
    weighted = (ours - theirs).square() * channel[:, :, None, None]
    squares = weighted.sum(1) * spatial  # (N, H, W)
    objects, others = ((mask * squares).sum() / len(ours) for mask in masks)
    difference = F.l1_loss(spatial_attention(ours, temperature), spatial, reduction="sum")
    difference = difference + F.l1_loss(
        channel_attention(ours, temperature), channel, reduction="sum"
    )
    return objects, others, difference / len(ours)


class GlobalContext(nn.Module):
    """Add to each cell what all cells say together. Equation 9 of the paper.

    `X + W2 ReLU(LayerNorm(W1 c))`, c being the sum of the cells, weighted by a softmax over them.
    The last convolution begins at 0, so the level is at first given as it is.

    Args:
        channels: C of the level.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.mask = nn.Conv2d(channels, 1, 1)
        last = nn.Conv2d(hidden, channels, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), last
        )
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, level: Tensor) -> Tensor:
        """Compute the level with its context, (N, C, H, W)."""
        with torch.autocast(level.device.type, enabled=False):  # a sum over large features
            wide = widen(level)
            shares = self.mask(wide).flatten(1).softmax(1)  # (N, H * W)
            context = product(wide.flatten(2), shares[:, :, None])[..., None]  # (N, C, 1, 1)
            added: Tensor = wide + self.transform(context)
        return added


@register("FGD")
class FGD(LevelMethod):
    """Objects, background, attentions and relations, summed over the levels.

    All terms are sums over cells or channels, divided by the images, as published. A student of
    other channels passes a 1x1 convolution. The relations of both sides are trained.
    """

    needs = Need.LEVELS | Need.BOXES

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of FGD; the weights are published for COCO."""

        loss_weight: float | str = weight_setting(1.0, detection=AUTO)
        most_levels: int = setting(
            0,
            "How many of the finest levels are compared where LEVELS names none; 0 takes all.",
            least=0,
            two_stage=4,
        )
        temperature: float = setting(0.5, "Divisor in the attentions; FCOS has 0.8.", above=0)
        objects: float = setting(
            1e-3, "Weight of the cells of objects.", least=0, one_stage=1e-3, two_stage=5e-5
        )
        others: float = setting(
            5e-4, "Weight of the other cells.", least=0, one_stage=5e-4, two_stage=2.5e-5
        )
        attention: float = setting(
            5e-4, "Weight of the attentions.", least=0, one_stage=5e-4, two_stage=5e-5
        )
        relation: float = setting(
            5e-6, "Weight of the relations.", least=0, one_stage=5e-6, two_stage=5e-7
        )

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        widths = [teacher.levels[position].channels for position in self.positions]
        self.ours, self.theirs = (
            nn.ModuleList(GlobalContext(width) for width in widths) for _ in range(2)
        )

    def choose_levels(self, levels: Sequence[Level]) -> tuple[int, ...]:
        """Choose the finest levels."""
        return tuple(range(len(levels)))[: self.settings.most_levels or None]

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make a 1x1 convolution where the channels differ."""
        return build_aligner(student, teacher)

    def compare_at(self, index: int, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of a level, of the images that have boxes to tell objects by."""
        boxes, s = given(truth.boxes), self.settings
        count = len(boxes)
        theirs = teacher[:count]
        ours = match_size(student[:count], theirs)
        masks = box_masks(boxes, given(truth.size), (theirs.shape[2], theirs.shape[3]))
        objects, others, attention = focal_losses(ours, theirs, masks, temperature=s.temperature)
        difference = self.ours[index](ours) - self.theirs[index](theirs)
        relation = difference.square().sum() / count
        total: Tensor = (
            s.objects * objects + s.others * others + s.attention * attention
            + s.relation * relation
        )  # fmt: skip
        return total
