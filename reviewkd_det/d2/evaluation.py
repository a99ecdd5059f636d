"""COCO evaluation with faster-coco-eval, which gives pycocotools' numbers in less time."""

from typing import Any

from detectron2.evaluation import COCOEvaluator

from reviewkd_det.d2.compat import counted_by

__all__ = ["FastCOCOEvaluator", "fast_coco_eval"]


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
