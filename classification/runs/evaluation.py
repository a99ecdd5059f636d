"""The accuracy of a classifier.

Shapes: N images, K classes.
"""

import logging
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor

from classification.data import Data, Loader

__all__ = ["evaluate", "evaluate_teacher"]

logger = logging.getLogger(__name__)


@torch.no_grad()
def evaluate(
    classify: Callable[[Tensor], Tensor], loader: Loader, accelerator: Accelerator
) -> dict[str, float]:
    """Classify all test images, each in one process.

    Args:
        classify: function from uint8 images (N, 3, H, W) to logits (N, K).
        loader: loader of the test images.
        accelerator: accelerator of this process.

    Returns:
        `top1` and `top5`, in percent: the part of the images whose class is the highest, or among
        the five highest logits.
    """
    counts = torch.zeros(3, device=accelerator.device, dtype=torch.long)
    for images, labels in loader:
        with accelerator.autocast():
            logits = classify(images)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices  # (N, 5)
        hits = best == labels[:, None]
        counts += torch.stack([hits[:, 0].sum(), hits.sum(), counts.new_tensor(len(labels))])
    top1, top5, images = accelerator.reduce(counts, "sum").tolist()
    return {"top1": 100 * top1 / images, "top5": 100 * top5 / images}


def evaluate_teacher(
    classify: Callable[[Tensor], Tensor], data: Data, accelerator: Accelerator, name: str
) -> dict[str, float]:
    """Test a teacher: weights that load are none yet, a wrong mean or order of classes shows here.

    Args:
        classify: function from uint8 images (N, 3, H, W) to the teacher's logits (N, K).
        data: training and test data.
        accelerator: accelerator of this process.
        name: name of the teacher's network.

    Returns:
        As `evaluate`.
    """
    accuracy, chance = evaluate(classify, data.test, accelerator), 100 / len(data.class_names)
    logger.info("Teacher %s: top-1 %.2f, top-5 %.2f", name, accuracy["top1"], accuracy["top5"])
    if accuracy["top1"] < 2 * chance:
        logger.warning(
            "The teacher is hardly better than chance, %.2f: are TEACHER.MEAN, TEACHER.STD and the "
            "order of the classes those it was trained with?",
            chance,
        )
    return accuracy
