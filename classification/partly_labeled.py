"""Batches in which some images have no label.

Shapes: N images, K classes; the target of an image without a label is -1.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["UNLABELED", "count_labeled", "fill_target", "partial_cross_entropy"]

UNLABELED = -1  # the target of an image that has no label


def partial_cross_entropy(
    logits: Tensor, target: Tensor, labeled_share: float | None, smoothing: float = 0.0
) -> Tensor:
    """Average the cross entropy over as many images as have a label in an average batch.

    That number is the same for every batch, so a label counts the same in each; over an epoch the
    mean is that over all labels; the parts of a batch in several processes or accumulation steps
    add up to the batch; and a batch without a label gives 0.

    Args:
        logits: class logits, (N, K).
        target: true classes or -1, (N,); without a share also probabilities, (N, K).
        labeled_share: part of the images of an average batch that have a label, in (0, 1]; None
            where all images have one, for the plain mean.
        smoothing: part of each label that is shared by all classes.

    Returns:
        The loss, shape ().
    """
    if labeled_share is None:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    total = F.cross_entropy(
        logits, target, ignore_index=UNLABELED, reduction="sum", label_smoothing=smoothing
    )
    return total / (labeled_share * len(target))


def fill_target(target: Tensor, teacher_logits: Tensor) -> Tensor:
    """Take the teacher's class, that of its highest logit, where an image has no label.

    Args:
        target: true classes or -1, (N,).
        teacher_logits: class logits, (N, K).

    Returns:
        Classes in [0, K), (N,).
    """
    return torch.where(target == UNLABELED, teacher_logits.argmax(dim=1), target)


def count_labeled(target: Tensor) -> int:
    """Count the images that have a label; this waits for the device."""
    return int((target != UNLABELED).sum())
