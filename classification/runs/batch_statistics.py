"""What is refused where a part of a batch is one image and single values are normalised."""

import torch
from accelerate import Accelerator
from fvcore.common.config import CfgNode

from classification.distilled import DistilledClassifier
from reviewkd_det.common.distill.batch_of_one import StarvedError, try_call
from reviewkd_det.core import Truth

__all__ = ["check_batch_statistics"]


def check_batch_statistics(
    classifier: DistilledClassifier, cfg: CfgNode, accelerator: Accelerator
) -> None:
    """Check that no layer would normalise single values, where each part of a batch is one image.

    Args:
        classifier: what is trained, before it is wrapped for several processes.
        cfg: config of the run.
        accelerator: accelerator of this process.

    Raises:
        ValueError: a level of one cell is normalised.
    """
    parts = accelerator.num_processes * cfg.SOLVER.ACCUMULATION_STEPS
    if parts < cfg.SOLVER.BATCH_SIZE:
        return
    try:
        _try_parts(classifier, cfg.INPUT.SIZE, cfg.TEACHER.SIZE or cfg.INPUT.SIZE)
    except StarvedError as error:
        raise ValueError(
            f"SOLVER.BATCH_SIZE must give each of {accelerator.num_processes} processes x "
            f"{cfg.SOLVER.ACCUMULATION_STEPS} accumulation steps 2 images where a level has one "
            f"cell, whose single value cannot be normalised; got {cfg.SOLVER.BATCH_SIZE}, so 1 "
            f"image in {error.part}; set SOLVER.BATCH_SIZE to {2 * parts} or more"
        ) from error
    except Exception:  # whatever a network raises that needs values
        return


def _try_parts(classifier: DistilledClassifier, size: int, teacher_size: int) -> None:
    images, seen = (torch.empty(1, 3, x, x, device="meta") for x in (size, teacher_size))
    view = try_call("the student", classifier.student, images)
    if classifier.teacher is None:
        return
    taught = try_call("the teacher", classifier.teacher.module, seen)
    truth = Truth(torch.zeros(1, dtype=torch.long, device="meta"))
    for name, method in classifier.methods.items():
        try_call(f"DISTILL.{name.upper()}", method, view, taught, truth)
