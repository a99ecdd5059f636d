"""Evaluation with test-time augmentation, `TEST.AUG`, as Detectron2's own script does it."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, GeneralizedRCNNWithTTA
from torch import nn

from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.runs.evaluation import TestSet, evaluate
from reviewkd_det.d2.runs.launch import unwrapped

__all__ = ["check_augmented", "evaluate_augmented", "joined"]


def check_augmented(cfg: CfgNode) -> None:
    """Check that Detectron2 can evaluate a config's detector with augmentation.

    Raises:
        ValueError: it cannot.
    """
    if not cfg.TEST.AUG.ENABLED:
        return
    student = plain_config(cfg).MODEL.META_ARCHITECTURE
    kind = META_ARCH_REGISTRY.get(student)
    is_rcnn = getattr(kind, "inference", None) is GeneralizedRCNN.inference
    has_boxes = "Rotated" not in cfg.MODEL.ANCHOR_GENERATOR.NAME
    if not (is_rcnn and has_boxes) or cfg.MODEL.KEYPOINT_ON:
        parts = [student, *["keypoints"] * cfg.MODEL.KEYPOINT_ON]
        parts += ["rotated boxes"] * (not has_boxes)
        raise ValueError(
            "TEST.AUG.ENABLED must be False but for boxes and masks of a GeneralizedRCNN; got True "
            f"for {' with '.join(parts)}"
        )


def evaluate_augmented(
    cfg: CfgNode, model: nn.Module, test_sets: Callable[[CfgNode], Iterator[TestSet]]
) -> dict[str, Any]:
    """Evaluate a detector with augmentation; its predictions go to `OUTPUT_DIR/augmented`.

    Args:
        cfg: config of the detector.
        model: detector, plain or distilled, in several processes as they wrap it.
        test_sets: function from a config to names, loaders and evaluators.

    Returns:
        As `evaluate`, with `_TTA` after the name of each task; empty without `TEST.AUG.ENABLED`.
    """
    if not cfg.TEST.AUG.ENABLED:
        return {}
    logging.getLogger(__name__).info("Evaluating with test-time augmentation, TEST.AUG")
    module = unwrapped(model)
    student = module.student if isinstance(module, DistilledDetector) else module
    own = cfg.clone()
    own.defrost()
    own.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR, "augmented"))
    training = student.training
    try:
        results = evaluate(GeneralizedRCNNWithTTA(own, student), test_sets(own))
    finally:
        student.train(training)
    return _suffixed(results, len(cfg.DATASETS.TEST) > 1)


def joined(results: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Results of one model with further ones, by task or by test set and task."""
    return {**results, **{name: {**results.get(name, {}), **part} for name, part in more.items()}}


def _suffixed(results: dict[str, Any], by_set: bool) -> dict[str, Any]:
    if by_set:
        return {name: _suffixed(part, False) for name, part in results.items()}
    return {f"{task}_TTA": scores for task, scores in results.items()}
