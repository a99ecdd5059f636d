"""The accuracy of a classifier.

Shapes: N images, K classes.
"""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor

from classification.data import Loader

__all__ = ["evaluate"]


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
