"""The heads of a teacher that methods read, beside its backbone."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from reviewkd_det.core import Need
from reviewkd_det.d2.teacher.box_head import BoxHead
from reviewkd_det.d2.teacher.classes import take_classes
from reviewkd_det.d2.teacher.dense_head import DenseHead, is_dense
from reviewkd_det.d2.teacher.mask_head import MaskHead
from reviewkd_det.d2.teacher.proposal_head import ProposalHead

__all__ = ["HEADS", "ROWS", "TeacherHeads", "build_heads"]

ROWS = Need.LOGITS | Need.VECTOR | Need.DELTAS  # what is read row by row
HEADS = ROWS | Need.MASKS | Need.OBJECTNESS | Need.BRANCHES


class TeacherHeads(nn.Module):
    """Heads of a teacher; None for what no method needs.

    Args:
        box: box head of a two-stage detector.
        masks: mask head of a two-stage detector.
        proposals: head of its proposal generator.
        dense: dense head of a one-stage detector.
    """

    def __init__(
        self,
        box: BoxHead | None = None,
        masks: MaskHead | None = None,
        proposals: ProposalHead | None = None,
        dense: DenseHead | None = None,
    ) -> None:
        super().__init__()
        self.box, self.masks, self.proposals, self.dense = box, masks, proposals, dense

    def named_parts(self) -> dict[str, nn.Module]:
        """What has weights, by its name in a detector."""
        return dict(self._named_parts())

    def _named_parts(self) -> Iterator[tuple[str, nn.Module]]:
        owners = {"roi_heads.": (self.box, self.masks), "proposal_generator.": (self.proposals,),
                  "": (self.dense,)}  # fmt: skip
        for prefix, heads in owners.items():
            for head in heads:
                for name, part in head.named_children() if head is not None else ():
                    if next(part.parameters(), None) is not None:
                        yield prefix + name, part

    def take_classes(self, order: Sequence[int]) -> None:
        """Give what belongs to classes in another order.

        Args:
            order: number, among the teacher's classes, of each class of the new order.
        """
        if self.dense is not None:
            self.dense.take_classes(order)
        for head in (self.box, self.masks):
            if head is not None:
                take_classes(head, order, head.objects)
                head.objects = len(order)


def build_heads(detector: Any, needs: Need) -> TeacherHeads:
    """Take the heads that methods need from a teacher.

    Args:
        detector: the teacher.
        needs: what the methods need together.

    Raises:
        ValueError: a head is not of the needed kind.
    """
    roi_heads = getattr(detector, "roi_heads", None)
    proposals = getattr(detector, "proposal_generator", None)
    reads_rows = bool(needs & ROWS) or Need.BRANCHES in needs
    dense = is_dense(detector) and reads_rows
    return TeacherHeads(
        BoxHead(roi_heads) if reads_rows and not dense else None,
        MaskHead(roi_heads) if Need.MASKS in needs else None,
        ProposalHead(proposals) if Need.OBJECTNESS in needs else None,
        DenseHead(detector) if dense else None,
    )
