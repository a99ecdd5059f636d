"""The part of a two-stage detector that turns boxes into masks.

Shapes: R boxes of all images, K object classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from torch import Tensor, nn

__all__ = ["MaskHead", "has_masks"]


def has_masks(roi_heads: Any) -> bool:
    """Whether ROI heads give masks as Detectron2's `StandardROIHeads` does, by logits of cells."""
    head, pooler = (getattr(roi_heads, name, None) for name in ("mask_head", "mask_pooler"))
    return isinstance(head, BaseMaskRCNNHead) and isinstance(pooler, nn.Module)


class MaskHead(nn.Module):
    """The part of Detectron2's `StandardROIHeads` that turns boxes into mask logits.

    Args:
        roi_heads: ROI heads of a teacher; its other heads are left behind.

    Raises:
        ValueError: they are not of that kind.
    """

    def __init__(self, roi_heads: Any) -> None:
        super().__init__()
        if not has_masks(roi_heads):
            raise ValueError(
                "the teacher must have a mask head, as StandardROIHeads has, for methods on masks; "
                f"got {type(roi_heads).__name__ if roi_heads is not None else 'none'} without"
            )
        self.objects = roi_heads.num_classes  # K
        self.in_features: Sequence[str] = roi_heads.mask_in_features
        self.mask_pooler = roi_heads.mask_pooler
        self.mask_head: Any = roi_heads.mask_head

    def forward(self, levels: Mapping[str, Tensor], boxes: Sequence[Any]) -> Tensor:
        """Compute the mask logits of boxes of each image, (R, K or 1, H, W)."""
        pooled = self.mask_pooler([levels[name] for name in self.in_features], boxes)
        logits: Tensor = self.mask_head.layers(pooled)
        return logits
