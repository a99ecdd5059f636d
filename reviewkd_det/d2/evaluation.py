"""COCO evaluation: of as many detections as a detector gives, and with faster-coco-eval.

The latter gives pycocotools' numbers in less time, where an image counts no more than 100.
"""

from typing import Any

from detectron2.evaluation import COCOEvaluator

from reviewkd_det.d2.compat import counted_by

__all__ = ["FastCOCOEvaluator", "counted_detections", "fast_coco_eval"]

COCO_DETECTIONS = 100  # of an image, which COCO counts
ALL_DETECTIONS = 10_000  # more than a detector gives for an image


def counted_detections(per_image: int) -> int | None:
    """How many detections of an image count, as `COCOEvaluator` takes it.

    COCO's own 100 would leave out the others of a detector that gives more.

    Args:
        per_image: detections that the detector gives for an image; negative for all.

    Returns:
        Their number; None for COCO's own.
    """
    if per_image < 0:
        return ALL_DETECTIONS
    return per_image if per_image > COCO_DETECTIONS else None


def fast_coco_eval() -> type[Any]:
    """The class that stands in for `pycocotools.cocoeval.COCOeval`.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import cocoeval
    except ImportError as error:
        raise ImportError(
            f"TEST.FAST_COCO_EVAL must be False without faster-coco-eval; got True: {error}; "
            "install it with pip install faster-coco-eval"
        ) from error
    return cocoeval.COCOeval


class FastCOCOEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator with the matching and counting of faster-coco-eval.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._coco_eval = fast_coco_eval()
        with counted_by(self._coco_eval):
            super().__init__(*args, **options, use_fast_impl=True)

    def evaluate(self, *args: Any, **options: Any) -> Any:
        """Count with faster-coco-eval; in all else as the parent does."""
        with counted_by(self._coco_eval):
            return super().evaluate(*args, **options)
